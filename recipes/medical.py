"""Adapt a generalist base to the language of medicine by a prompt, and show what that changes.

    accelerate launch recipes/medical.py
    accelerate launch recipes/medical.py --config recipes/configs/medical_terms.yaml
    accelerate launch recipes/medical.py --config recipes/configs/medical_text.yaml

The first sorts findings by organ system, the second turns lay words into clinical terms, the third
measures the perplexity of medical text. Every key of a config is a flag too. Adapter and figures go
to <output_dir>. No medical knowledge comes out of this: it is not for clinical use.
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from accelerate import PartialState
from peft import PromptTuningConfig

from softhub import PromptModel, SoftPrompt, Task, fit, load_base
from softhub.cli import run_recipe
from softhub.comparison import choose_hard_prompts, evaluate_hard_prompts, without_model
from softhub.comparison.perplexity import evaluate_perplexity, likeliest_template
from softhub.config import RunConfig, parse_config
from softhub.pipeline import evaluate
from softhub.report import write_run
from softhub.training import PromptTrainingArguments

DEFAULT = Path(__file__).resolve().parent / "configs" / "medical_organ.yaml"
EXAMPLE = "The patient presents dyspnea with bilateral crackles."


@dataclass
class MedicalConfig(RunConfig):
    num_virtual_tokens: int = field(default=50, metadata={"help": "Rows of the soft prompt."})
    domain_text: bool = field(default=False, metadata={"help": "Judge by perplexity alone."})
    example: str = field(default=EXAMPLE, metadata={"help": "A text to try it on."})


def main() -> None:
    config, args = parse_config(MedicalConfig, PromptTrainingArguments, default=DEFAULT)
    task = Task.from_file(config.task)
    train = task.load("train", limit=config.max_train_examples)
    dev = task.load("dev", limit=config.max_dev_examples)
    test = task.load("test", limit=config.max_test_examples)
    base = load_base(config.base_model, name=config.base_name, dtype=config.dtype)

    peft_config = PromptTuningConfig(
        task_type=base.task_type, num_virtual_tokens=config.num_virtual_tokens
    )
    init = SoftPrompt.from_pretrained(config.init_from) if config.init_from else config.init
    result = fit(
        base, task, peft_config, train=train, dev=dev, args=args, init=init, resume=config.resume
    )
    if not (PartialState().is_main_process or base.is_sharded):
        return

    model = PromptModel(base)
    model.load_prompt(result.prompt, name="soft prompt")
    if config.domain_text:
        chosen = [likeliest_template(model, task, dev)]
        plain = replace(task, template=chosen[0])
        baselines = {"zero-shot": evaluate_perplexity(model, plain, test)}
        soft = evaluate_perplexity(model, task, test, prompt="soft prompt")
    else:
        chosen = choose_hard_prompts(model, task, dev)
        baselines = without_model(task, train, test)
        baselines |= evaluate_hard_prompts(model, task, chosen, test)
        soft = evaluate(model, task, test, prompt="soft prompt")
    choices = {"hard_prompts": [asdict(hard) for hard in chosen]}
    write_run(args.output_dir, result, soft, baselines, config=asdict(config), **choices)

    answer = model.generate if task.kind == "generation" else model.predict
    for name in (None, "soft prompt"):
        said = answer([config.example], prompt=name, task=task)[0]
        print(f"{name or 'bare base'}: {config.example!r} -> {getattr(said, 'label', said)!r}")
    print(f"Limits:  {task.limitations}")


if __name__ == "__main__":
    run_recipe(main)
