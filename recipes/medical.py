"""Adapt a general base model to medical language with a soft prompt, and show what changes.

    softhub train --recipe medical                                              # organ systems
    softhub train --recipe medical --config recipes/configs/medical_terms.yaml
    softhub train --recipe medical --config recipes/configs/medical_text.yaml   # perplexity

The task file decides what is measured: the accuracy of labels, generated terms, or perplexity.
A prompt adds no medical knowledge to a base model. Not for clinical use.
"""

from dataclasses import dataclass, field

from peft import get_peft_config

from softhub import PromptTrainingArguments, Task, evaluate_run, fit, load_base, run_recipe
from softhub.experiments import RunConfig


@dataclass
class MedicalConfig(RunConfig):
    example: str = field(
        default="The patient presents dyspnea with bilateral crackles.",
        metadata={"help": "A text to answer with and without the prompt."},
    )


def main(config: MedicalConfig, args: PromptTrainingArguments) -> None:
    task = Task.from_file(config.task)
    data = task.load_splits(config.limits)
    base = load_base(config.base_model, **config.base_options)

    peft_config = get_peft_config({"task_type": base.task_type, **config.prompt_options})
    result = fit(base, task, peft_config, data, args=args, init=config.init, resume=config.resume)

    report = evaluate_run(base, task, result, data)
    report.save(args.output_dir, config)
    report.print()
    report.print_answers(config.example)  # of the base model alone, then with the prompt
    print(f"Limitations: {task.limitations}")


if __name__ == "__main__":
    run_recipe(main, MedicalConfig, default_config="medical_organ.yaml")
