"""Train a soft prompt that classifies texts, and compare it with the same base model without it.

    softhub train --config recipes/configs/sentiment.yaml
    accelerate launch recipes/classification.py --config recipes/configs/sentiment.yaml \\
        --base-model Qwen/Qwen2.5-0.5B --max-steps 300 --output-dir runs/qwen

Every key of the config file is also a flag, and so is every training argument of transformers.
Writes the adapter to <output_dir>/adapter and all results to <output_dir>/report.json.
"""

from dataclasses import dataclass, field

from peft import get_peft_config

from softhub import PromptTrainingArguments, Task, evaluate_run, fit, load_base, run_recipe
from softhub.experiments import RunConfig


@dataclass
class ClassificationConfig(RunConfig):
    examples_per_label: int | None = field(
        default=None, metadata={"help": "Few-shot: train on this many examples of each label."}
    )


def main(config: ClassificationConfig, args: PromptTrainingArguments) -> None:
    task = Task.from_file(config.task, kind="classification")
    data = task.load_splits(config.limits, per_label=config.examples_per_label, seed=args.seed)
    base = load_base(config.base_model, **config.base_options)

    peft_config = get_peft_config({"task_type": base.task_type, **config.prompt_options})
    result = fit(base, task, peft_config, data, args=args, init=config.init, resume=config.resume)

    report = evaluate_run(base, task, result, data)  # on test, beside the baselines
    report.save(args.output_dir, config)
    report.print()


if __name__ == "__main__":
    run_recipe(main, ClassificationConfig)
