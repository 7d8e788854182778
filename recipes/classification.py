"""Train a soft prompt that classifies texts, and hold it against the base without it.

    accelerate launch recipes/classification.py --config recipes/configs/sentiment.yaml
    accelerate launch recipes/classification.py --config recipes/configs/sentiment.yaml \
        --base_model Qwen/Qwen2.5-0.5B --max_steps 300 --output_dir runs/qwen

Every key of the config file is a flag too, and so is every training argument of transformers.
The adapter is written to <output_dir>/adapter, the figures to <output_dir>/report.json.
"""

from dataclasses import asdict, dataclass, field, replace

from accelerate import PartialState
from peft import PromptTuningConfig

from softhub import PromptModel, SoftPrompt, Task, fit, load_base
from softhub.cli import run_recipe
from softhub.config import RunConfig, parse_config
from softhub.errors import ConfigError
from softhub.evaluation.calibrate import calibrate
from softhub.evaluation.evaluate import evaluate
from softhub.evaluation.few_shot import choose_shots
from softhub.evaluation.hard_prompts import (
    choose_hard_prompts,
    evaluate_hard_prompts,
    trivial_baselines,
)
from softhub.evaluation.label_report import report_labels
from softhub.experiments.report import write_run
from softhub.training import PromptTrainingArguments


@dataclass
class ClassificationConfig(RunConfig):
    examples_per_label: int | None = field(
        default=None, metadata={"help": "Few-shot: so many of each label in train and in dev."}
    )


def main() -> None:
    config, args = parse_config(ClassificationConfig, PromptTrainingArguments)
    task = Task.from_file(config.task)
    if task.verbalizer is None:
        raise ConfigError(f"{task.name} has no labels to choose from: use recipes/generation.py.")
    train = task.load("train", limit=config.max_train_examples)
    dev = task.load("dev", limit=config.max_dev_examples)
    test = task.load("test", limit=config.max_test_examples)
    if config.examples_per_label:
        few = config.examples_per_label * len(task.verbalizer.labels)
        train, dev = (choose_shots(task, split, few, args.seed) for split in (train, dev))
    base = load_base(config.base_model, name=config.base_name, dtype=config.dtype)

    peft_config = PromptTuningConfig(task_type=base.task_type, **config.prompt_options)
    init = SoftPrompt.from_pretrained(config.init_from) if config.init_from else config.init
    result = fit(
        base, task, peft_config, train=train, dev=dev, args=args, init=init, resume=config.resume
    )
    if not (PartialState().is_main_process or base.is_sharded):
        return

    model = PromptModel(base)
    model.load_prompt(result.prompt, name="soft prompt")
    calibration = calibrate(model, task, dev, prompt="soft prompt")
    result = replace(result, prompt=calibration.applied_to(result.prompt))
    model.load_prompt(result.prompt, name="soft prompt")
    hard_prompts = choose_hard_prompts(model, task, dev)
    baselines = trivial_baselines(task, train, test)
    baselines |= evaluate_hard_prompts(model, task, hard_prompts, test)
    soft = evaluate(model, task, test, prompt="soft prompt")

    labels = report_labels(task, test, soft, calibration.decision)
    choices = {"config": asdict(config), "hard_prompts": [asdict(hard) for hard in hard_prompts]}
    choices |= {"labels": labels.to_record(), "reliability_on_dev": calibration.dev.to_record()}
    write_run(args.output_dir, result, soft, baselines, **choices)


if __name__ == "__main__":
    run_recipe(main)
