"""Adapt a generalist base to the language of medicine by a prompt, and show what that changes.

    accelerate launch recipes/medical.py
    accelerate launch recipes/medical.py --config recipes/configs/medical_terms.yaml
    accelerate launch recipes/medical.py --config recipes/configs/medical_text.yaml

Organ systems of findings, clinical terms for lay words, perplexity of medical text; every key of a
config is a flag too. No medical knowledge comes out of it: this is not for clinical use.
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from accelerate import PartialState
from peft import PromptTuningConfig

from softhub import PromptModel, SoftPrompt, Task, fit, load_base
from softhub.cli import run_recipe
from softhub.config import RunConfig, parse_config
from softhub.evaluation.calibrate import calibrate
from softhub.evaluation.evaluate import evaluate
from softhub.evaluation.hard_prompts import (
    choose_hard_prompts,
    evaluate_hard_prompts,
    trivial_baselines,
)
from softhub.evaluation.label_report import report_labels
from softhub.experiments.report import write_run
from softhub.training import PromptTrainingArguments

DEFAULT = Path(__file__).resolve().parent / "configs" / "medical_organ.yaml"
EXAMPLE = "The patient presents dyspnea with bilateral crackles."


@dataclass
class MedicalConfig(RunConfig):
    example: str = field(default=EXAMPLE, metadata={"help": "A text to try it on."})


def main() -> None:
    config, args = parse_config(MedicalConfig, PromptTrainingArguments, default=DEFAULT)
    task = Task.from_file(config.task)
    train = task.load("train", limit=config.max_train_examples)
    dev = task.load("dev", limit=config.max_dev_examples)
    test = task.load("test", limit=config.max_test_examples)
    base = load_base(config.base_model, name=config.base_name, dtype=config.dtype)

    peft_config = PromptTuningConfig(task_type=base.task_type, **config.prompt_options)
    init = SoftPrompt.from_pretrained(config.init_from) if config.init_from else config.init
    data = {"train": train, "dev": dev}
    result = fit(base, task, peft_config, **data, args=args, init=init, resume=config.resume)
    if not (PartialState().is_main_process or base.is_sharded):
        return

    model = PromptModel(base)
    model.load_prompt(result.prompt, name="soft prompt")
    if task.kind == "classification":
        calibration = calibrate(model, task, dev, prompt="soft prompt")
        result = replace(result, prompt=calibration.applied_to(result.prompt))
        model.load_prompt(result.prompt, name="soft prompt")
    hard, baselines = choose_hard_prompts(model, task, dev), trivial_baselines(task, train, test)
    baselines |= evaluate_hard_prompts(model, task, hard, test)
    soft = evaluate(model, task, test, prompt="soft prompt")
    choices = {"hard_prompts": [asdict(prompt) for prompt in hard]}
    if task.kind == "classification":
        labels = report_labels(task, test, soft, calibration.decision).to_record()
        choices |= {"labels": labels, "reliability_on_dev": calibration.dev.to_record()}
    write_run(args.output_dir, result, soft, baselines, config=asdict(config), **choices)

    answer = model.generate if task.kind == "generation" else model.predict
    for name in (None, "soft prompt"):
        said = answer([config.example], prompt=name, task=task)[0]
        print(f"{name or 'bare base'}: {config.example!r} -> {getattr(said, 'label', said)!r}")
    print(f"Limits:  {task.limitations}")


if __name__ == "__main__":
    run_recipe(main)
