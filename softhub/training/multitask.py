"""`fit_tasks`: a prompt for each of several tasks, perhaps from one that all of them share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from peft import PromptTuningConfig

from softhub.errors import TrainingError
from softhub.model.base import BaseModel
from softhub.model.prompt import SoftPrompt
from softhub.training.arguments import PromptTrainingArguments
from softhub.training.curve import write_curve
from softhub.training.fit import fit
from softhub.training.mixture import Part, fit_mixture
from softhub.training.running import FitResult, last_checkpoint, set_aside_checkpoints

SHARED = "shared"
"""Folder of the shared prompt's run beside those of the tasks."""


def fit_tasks(
    base: BaseModel,
    parts: Sequence[Part],
    config: PromptTuningConfig,
    *,
    args: PromptTrainingArguments | None = None,
    steps: Sequence[int] = (),
    shared_steps: int = 0,
    mixture: str = "temperature",
    init: str | SoftPrompt | None = "vocabulary",
    resume: bool = False,
) -> list[FitResult]:
    """Train a prompt for each task; runs are kept in folders of the tasks' names.

    Args:
        base: A frozen base from `load_base`.
        parts: The tasks, of different names, with their examples.
        config: PEFT's configuration.
        args: Training arguments; each run has its own folder below `output_dir`.
        steps: Optimizer steps of each task, in order; `args.max_steps` for all if empty.
        shared_steps: Steps of one prompt for all tasks, from which each task's prompt then starts;
            0 for none. It is saved to `<output_dir>/shared/adapter`, for other tasks to start from.
        mixture: As in `fit_mixture`.
        init: As in `fit`; where the shared prompt starts, if there is one.
        resume: Go on where the runs were stopped; those without a checkpoint start anew.

    Returns:
        One result a task, in order.

    Raises:
        TrainingError: As in `fit`; two tasks have one name, or there are not as many steps as
            tasks.
        TrainingInterrupted: Ctrl-C; a checkpoint was saved.
    """
    args = args or PromptTrainingArguments()
    _check(parts, steps)
    folder = Path(args.output_dir)
    if not resume:
        for name in (SHARED, *(part.task.name for part in parts)):
            set_aside_checkpoints(folder / name)
    if shared_steps:
        options = _options(args, folder / SHARED, shared_steps, resume)
        shared = fit_mixture(base, parts, config, init=init, mixture=mixture, **options)
        init = _saved(shared, folder / SHARED)
    results: list[FitResult] = []
    for part, number in zip(parts, steps or [args.max_steps] * len(parts), strict=True):
        _refuse_sharded(base, again=bool(results or shared_steps))
        options = _options(args, folder / part.task.name, number, resume)
        results.append(
            fit(base, part.task, config, train=part.train, dev=part.dev, init=init, **options)
        )
    return results


def _check(parts: Sequence[Part], steps: Sequence[int]) -> None:
    names = [SHARED, *(part.task.name for part in parts)]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise TrainingError(
            f"More than one run would be called {', '.join(double)}; rename a task in its file."
        )
    if steps and len(steps) != len(parts):
        raise TrainingError(
            f"Found steps for {len(steps)} tasks; expected one number for each of the {len(parts)}."
        )


def _refuse_sharded(base: BaseModel, *, again: bool) -> None:
    if again and base.is_sharded:
        raise TrainingError(
            "FSDP has cut the base up for the first run, and cannot do it again in this process: "
            "train the tasks one by one (recipes/generation.py), or on one GPU."
        )


def _options(
    args: PromptTrainingArguments, folder: Path, steps: int, resume: bool
) -> dict[str, Any]:
    """What is a run's own: its folder, its steps, and whether it has a checkpoint to go on from."""
    begun = last_checkpoint(folder) is not None
    own = replace(args, output_dir=str(folder), max_steps=steps)
    return {"args": own, "resume": resume and begun}


def _saved(shared: FitResult, folder: Path) -> SoftPrompt:
    """The prompt as it was saved, whose hashes name it as the parent of those that start from it.

    Its learning curve is drawn beside it. Other processes have the same vectors, and write nothing.
    """
    if not PartialState().is_main_process:
        return shared.prompt
    write_curve(folder, shared)
    return SoftPrompt.from_pretrained(shared.prompt.save_pretrained(folder / "adapter"))
