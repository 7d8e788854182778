"""Train several prompts on one base, publish each, and use them side by side in one batch.

    accelerate launch recipes/multitask.py
    accelerate launch recipes/multitask.py --config recipes/configs/multitask_t5.yaml
    accelerate launch recipes/multitask.py --shared_steps 120 --output_dir runs/multitask-shared

The first is translation, summarization and code on the demo base. With --shared_steps, one prompt
is trained on all tasks first, and each task's own starts from it. Every key of a config is a flag
too. Adapter and figures go to <output_dir>/<task>, and the adapter is pushed as <namespace>/<task>
to the local hub, or to the one that --hub names.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from accelerate import PartialState
from peft import PromptTuningConfig

from softhub import Hub, PromptModel, SoftPrompt, Task, load_base
from softhub.cli import run_recipe
from softhub.config import RunConfig, parse_config
from softhub.evaluation.evaluate import evaluate, select_metrics
from softhub.evaluation.hard_prompts import (
    choose_hard_prompts,
    evaluate_hard_prompts,
    trivial_baselines,
)
from softhub.experiments.report import write_run
from softhub.training import Part, PromptTrainingArguments, fit_tasks

DEFAULT = Path(__file__).resolve().parent / "configs" / "multitask.yaml"


@dataclass
class MultitaskConfig(RunConfig):
    task: list[str] = field(metadata={"help": "Task files."})
    init: str = field(default="vocabulary", metadata={"help": "auto, vocabulary, text, …"})
    steps: list[int] = field(default_factory=list, metadata={"help": "Of each; else max_steps."})
    shared_steps: int = field(default=0, metadata={"help": "Steps of a prompt for all tasks."})
    mixture: str = field(default="temperature", metadata={"help": "Or proportional, equal."})
    run_generated_code: bool = field(default=False, metadata={"help": "See docs/sandbox.md."})
    hub: str | None = field(default=None, metadata={"help": "Where to push: local, hf, …"})
    namespace: str = field(default="me", metadata={"help": "Whose prompts they are there."})


def main() -> None:
    config, args = parse_config(MultitaskConfig, PromptTrainingArguments, default=DEFAULT)
    tasks, code = [Task.from_file(p) for p in config.task], {"run_code": config.run_generated_code}
    for task in tasks:
        select_metrics(task, **code)  # what cannot be judged is refused before it is trained
    learn, choose = config.max_train_examples, config.max_dev_examples
    parts = [Part(t, t.load("train", limit=learn), t.load("dev", limit=choose)) for t in tasks]
    tests = [task.load("test", limit=config.max_test_examples) for task in tasks]
    base = load_base(config.base_model, name=config.base_name, dtype=config.dtype)

    peft_config = PromptTuningConfig(task_type=base.task_type, **config.prompt_options)
    init = SoftPrompt.from_pretrained(config.init_from) if config.init_from else config.init
    scheme = {key: getattr(config, key) for key in ("steps", "shared_steps", "mixture", "resume")}
    results = fit_tasks(base, parts, peft_config, args=args, init=init, **scheme)
    if not (PartialState().is_main_process or base.is_sharded):
        return

    model, hub = PromptModel(base), Hub(config.hub)
    for part, test, result in zip(parts, tests, results, strict=True):
        task, repo_id = part.task, f"{config.namespace}/{part.task.name}"
        model.load_prompt(result.prompt, name=task.name)
        hard = choose_hard_prompts(model, task, part.dev, **code)
        scores = trivial_baselines(task, part.train, test)
        scores |= evaluate_hard_prompts(model, task, hard, test, **code)
        soft = evaluate(model, task, test, prompt=task.name, **code)
        details = {"config": asdict(config), "hard_prompts": [asdict(prompt) for prompt in hard]}
        adapter = write_run(Path(args.output_dir) / task.name, result, soft, scores, **details)
        if PartialState().is_main_process:
            hub.push(adapter, repo_id)
            model.load_prompt(hub.pull(repo_id), name=task.name)

    print("\nOne batch, each row with the prompt that was pulled for it:")
    rows, names = [test[0].row for test in tests], [task.name for task in tasks]
    for name, answer in zip(names, model.generate(rows, prompt=names), strict=True):
        print(f"{name}: {answer!r}")


if __name__ == "__main__":
    run_recipe(main)
