"""Train a soft prompt that writes texts, and hold it against the base without it.

    accelerate launch recipes/generation.py --task my/task.yaml --base_model Qwen/Qwen2.5-0.5B
    accelerate launch recipes/generation.py --config my/config.yaml --max_test_examples 50

The task is one of generation: each row has a text and a reference text (`softhub init-task` drafts
such a task from a table). Every key of a config file is a flag too, and so is every training
argument of transformers. The adapter is written to <output_dir>/adapter, the figures to
<output_dir>/report.json.
"""

from dataclasses import asdict, dataclass, field

from accelerate import PartialState
from peft import PromptTuningConfig

from softhub import PromptModel, SoftPrompt, Task, fit, load_base
from softhub.cli import run_recipe
from softhub.config import RunConfig, parse_config
from softhub.evaluation.evaluate import evaluate, select_metrics
from softhub.evaluation.hard_prompts import (
    choose_hard_prompts,
    evaluate_hard_prompts,
    trivial_baselines,
)
from softhub.experiments.report import write_run
from softhub.training import PromptTrainingArguments


@dataclass
class GenerationConfig(RunConfig):
    init: str | None = field(default="vocabulary", metadata={"help": "auto, vocabulary, text, …"})
    run_generated_code: bool = field(default=False, metadata={"help": "See docs/sandbox.md."})
    shown: int = field(default=3, metadata={"help": "Test examples to print with their answers."})


def main() -> None:
    config, args = parse_config(GenerationConfig, PromptTrainingArguments)
    task, code = Task.from_file(config.task), {"run_code": config.run_generated_code}
    select_metrics(task, **code)  # what cannot be judged is refused before it is trained
    train = task.load("train", limit=config.max_train_examples)
    dev = task.load("dev", limit=config.max_dev_examples)
    test = task.load("test", limit=config.max_test_examples)
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
    hard_prompts = choose_hard_prompts(model, task, dev, **code)
    baselines = trivial_baselines(task, train, test)
    baselines |= evaluate_hard_prompts(model, task, hard_prompts, test, **code)
    soft = evaluate(model, task, test, prompt="soft prompt", **code)

    for example, answer in list(zip(test, soft.predictions, strict=True))[: config.shown]:
        print(f"text:      {example.text}\nreference: {example.target}\nanswer:    {answer}\n")
    choices = {"config": asdict(config), "hard_prompts": [asdict(hard) for hard in hard_prompts]}
    write_run(args.output_dir, result, soft, baselines, **choices)


if __name__ == "__main__":
    run_recipe(main)
