"""Train one soft prompt per task on one base model, publish them, and use all in one batch.

    softhub train --recipe multitask                      # translation, summarization, code
    softhub train --recipe multitask --shared-steps 120   # initialized from a shared prompt (SPoT)

Writes results to <output_dir>/<task>, and pushes each adapter as <namespace>/<task>.
"""

from pathlib import Path

from peft import get_peft_config

from softhub import (
    PromptModel,
    PromptTrainingArguments,
    Task,
    evaluate_run,
    fit_tasks,
    load_base,
    run_recipe,
)
from softhub.experiments import MultitaskConfig


def main(config: MultitaskConfig, args: PromptTrainingArguments) -> None:
    tasks = [Task.from_file(path, kind="generation") for path in config.task]
    data = [task.load_splits(config.limits) for task in tasks]
    base = load_base(config.base_model, **config.base_options)
    peft_config = get_peft_config({"task_type": base.task_type, **config.prompt_options})
    results = fit_tasks(base, tasks, peft_config, data, args=args, **config.schedule)

    model, names = PromptModel(base), [task.name for task in tasks]
    for task, splits, result in zip(tasks, data, results, strict=True):
        report = evaluate_run(base, task, result, splits, run_code=config.run_generated_code)
        report.save(Path(args.output_dir) / task.name, config)
        report.print()
        model.load_prompt(report.publish(config.hub, config.repo_id(task.name)), name=task.name)

    answers = model.generate([splits.test[0].row for splits in data], prompt=names)
    print("\nOne batch, each row with the prompt of its task:")
    print("\n".join(f"{name}: {answer!r}" for name, answer in zip(names, answers, strict=True)))


if __name__ == "__main__":
    run_recipe(main, MultitaskConfig, default_config="multitask.yaml")
