"""Train a soft prompt that generates text, and compare it with the same base model without it.

    softhub train --recipe generation --task my/task.yaml --base-model Qwen/Qwen2.5-0.5B
    accelerate launch recipes/generation.py --config my/config.yaml --max-test-examples 50

Each row of the task has a text and a reference text; `softhub init-task` drafts such a task from a
table. Writes the adapter to <output_dir>/adapter and all results to <output_dir>/report.json.
"""

from dataclasses import dataclass, field

from peft import get_peft_config

from softhub import PromptTrainingArguments, Task, evaluate_run, fit, load_base, run_recipe
from softhub.experiments import RunConfig


@dataclass
class GenerationConfig(RunConfig):
    init: str = field(
        default="vocabulary",
        metadata={"help": "auto, task, text, vocabulary, random, or the folder of an adapter."},
    )
    examples_shown: int = field(default=3, metadata={"help": "Test examples to print."})


def main(config: GenerationConfig, args: PromptTrainingArguments) -> None:
    task = Task.from_file(config.task, kind="generation")
    data = task.load_splits(config.limits)
    base = load_base(config.base_model, **config.base_options)

    peft_config = get_peft_config({"task_type": base.task_type, **config.prompt_options})
    result = fit(base, task, peft_config, data, args=args, init=config.init, resume=config.resume)

    report = evaluate_run(base, task, result, data, run_code=config.run_generated_code)
    report.print_examples(config.examples_shown)
    report.save(args.output_dir, config)
    report.print()


if __name__ == "__main__":
    run_recipe(main, GenerationConfig)
