"""Run a recipe as a script: read its settings, call its `main`, turn errors into exit codes."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from softhub.config import parse_config
from softhub.errors import ConfigError
from softhub.experiments.config import RunConfig
from softhub.experiments.console import exit_code_of, route_warnings, silence_stdout

if TYPE_CHECKING:
    from softhub.model.base import BaseModel
    from softhub.tasks import Task


def refuse_finished_run(folder: Path) -> None:
    """Raise if a folder holds a finished run, which another one would replace.

    Raises:
        ConfigError: It does.
    """
    if (folder / "report.json").is_file():
        raise ConfigError(
            f"{folder} already holds a finished run. Choose another --output-dir, replace it with "
            "--overwrite, or add --resume to evaluate it again."
        )


def run_recipe(
    main: Callable[[Any, Any], object], config_class: type, *, default_config: str | None = None
) -> None:
    """Read a recipe's settings from the command line, call its `main`, and exit with its code.

    `--config FILE` names a YAML file; every key of the settings and of transformers'
    `TrainingArguments` is also a flag, which overrides the file. A known error is one line on
    stderr and exit code 1, Ctrl-C is exit code 130. If there are several processes, only the first
    one prints to stdout.

    Args:
        main: The recipe: a function of its settings and its `PromptTrainingArguments`.
        config_class: Dataclass of the recipe's settings.
        default_config: File in the folder `configs` next to the recipe that is read if `--config`
            is not given.
    """
    route_warnings()
    if os.environ.get("RANK", "0") != "0":
        silence_stdout()
    code = exit_code_of(lambda: _run(main, config_class, default_config))
    if code:
        sys.exit(code)


def _run(main: Callable[[Any, Any], object], config_class: type, default: str | None) -> None:
    script = Path(inspect.getfile(main)).resolve()
    if default is None and len(sys.argv) == 1:
        raise ConfigError(
            "No settings were given: pass --config FILE, or the keys of one as flags "
            f"(softhub train --recipe {script.stem} -- --help lists them)."
        )
    from softhub.training import PromptTrainingArguments
    from softhub.training.checkpoints import check_resumable

    configs = script.parent / "configs"
    config, args = parse_config(
        config_class, PromptTrainingArguments, default=configs / default if default else None
    )
    tasks = _check_tasks(config, Path(args.output_dir))
    if getattr(config, "resume", False):
        check_resumable(args.output_dir)
    if isinstance(config, RunConfig):
        _check_evaluations(config, tasks)
    main(config, args)


def _check_tasks(config: Any, output: Path) -> list[tuple[Task, Sequence[str]]]:
    """Reject tasks that cannot be evaluated, or have a finished run, before hours of training.

    Returns:
        The tasks, each with the metrics that can be computed.
    """
    from softhub.evaluation.evaluate import select_metrics
    from softhub.tasks import Task

    several = not isinstance(config.task, str)
    found: list[tuple[Task, Sequence[str]]] = []
    for path in config.task if several else [config.task]:
        task = Task.from_file(path)
        found.append((task, select_metrics(task, run_code=config.run_generated_code)))
        if isinstance(config, RunConfig) and not (config.resume or config.overwrite):
            refuse_finished_run(output / task.name if several else output)
    return found


def _check_evaluations(config: RunConfig, tasks: Sequence[tuple[Task, Sequence[str]]]) -> None:
    """Reject rows, templates and options that the evaluation after training would reject."""
    from softhub.evaluation.preflight import check_evaluation
    from softhub.tasks import Splits

    splits = [
        Splits([], *(task.load(split, limit=config.limits[split]) for split in ("dev", "test")))
        for task, _ in tasks
    ]
    base = _without_weights(config.base_model, config.base_name)
    for (task, metrics), data in zip(tasks, splits, strict=True):
        check_evaluation(
            base, task, data, metrics, virtual_tokens=max(0, config.num_virtual_tokens)
        )


def _without_weights(ref: str, name: str | None) -> BaseModel:
    """Return a base model that encodes texts and knows its context, but cannot run."""
    from transformers import GenerationConfig

    from softhub.model.base import BaseModel
    from softhub.model.loading import load_tokenizer

    tokenizer, config = load_tokenizer(ref, name=name)
    model: Any = SimpleNamespace(config=config, generation_config=GenerationConfig())
    return BaseModel(model, tokenizer, name=ref)
