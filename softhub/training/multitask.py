"""`fit_tasks`: a prompt for each of several tasks, optionally from one that all of them share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import PartialState

from softhub.errors import TrainingError
from softhub.model.base import BaseModel
from softhub.model.prompt import SoftPrompt
from softhub.tasks import SplitsLike, Task
from softhub.training.arguments import AUTO_ONLY, PromptTrainingArguments, defaults_of
from softhub.training.checkpoints import check_writable, is_resumable, set_aside_checkpoints
from softhub.training.curve import write_curve
from softhub.training.fit import fit
from softhub.training.initialization import load_init
from softhub.training.mixture import fit_mixture, to_all_splits
from softhub.training.peft_config import PromptConfig, check_config
from softhub.training.running import FitResult

_SHARED = "shared"  # folder of the shared prompt's run, beside those of the tasks


def fit_tasks(
    base: BaseModel,
    tasks: Sequence[Task],
    config: PromptConfig,
    data: Sequence[SplitsLike],
    *,
    args: PromptTrainingArguments | None = None,
    steps: Sequence[int] = (),
    shared_steps: int = 0,
    mixture: str = "temperature",
    init: str | Path | SoftPrompt | None = "vocabulary",
    resume: bool = False,
) -> list[FitResult]:
    """Train a prompt for each task; each run has a folder of the task's name.

    Args:
        base: A frozen base from `load_base`.
        tasks: The tasks, of different names.
        config: As in `fit`.
        data: The data of each task, in the same order; each as in `fit`.
        args: Training arguments; each run has its own folder below `output_dir`.
        steps: Optimizer steps of each task, in order; `args.max_steps` for all if empty.
        shared_steps: Steps of one prompt for all tasks, which each task's prompt then starts from;
            0 for none. It is saved to `<output_dir>/shared/adapter`, for other tasks to start from.
        mixture: As in `fit_mixture`.
        init: As in `fit`; the initialization of the shared prompt, if there is one.
        resume: Resume the runs; those without a checkpoint start from the beginning.

    Returns:
        One result for each task, in order.

    Raises:
        TrainingError: As in `fit`; two tasks have the same name, or there are not as many steps or
            data as tasks.
        TrainingInterrupted: Ctrl-C was pressed; a checkpoint was saved.
    """
    args = args or PromptTrainingArguments()
    _check(tasks, steps, args)
    numbers: Sequence[int | str | None] = steps or [args.max_steps] * len(tasks)
    for number in {*numbers, *([shared_steps] if shared_steps else [])}:  # before any renaming
        check_config(base, config, _with_steps(args, number))
    splits, init = to_all_splits(tasks, data), load_init(init)
    folder = Path(args.output_dir)
    check_writable(folder)
    if not resume:
        for name in (_SHARED, *(task.name for task in tasks)):
            set_aside_checkpoints(folder / name)
    if shared_steps:
        options = _options(args, folder / _SHARED, shared_steps, resume)
        shared = fit_mixture(base, tasks, config, splits, init=init, mixture=mixture, **options)
        _save(shared, folder / _SHARED)
        init = shared.prompt
    results: list[FitResult] = []
    for task, part, number in zip(tasks, splits, numbers, strict=True):
        _refuse_sharded(base, again=bool(results or shared_steps))
        options = _options(args, folder / task.name, number, resume)
        results.append(fit(base, task, config, part, init=init, **options))
    return results


def _check(tasks: Sequence[Task], steps: Sequence[int], args: PromptTrainingArguments) -> None:
    names = [_SHARED, *(task.name for task in tasks)]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise TrainingError(
            f"More than one run would be called {', '.join(double)}; rename a task in its file."
        )
    if steps and len(steps) != len(tasks):
        raise TrainingError(
            f"Found steps for {len(steps)} tasks; expected one number for each of the {len(tasks)}."
        )
    if steps and args.num_train_epochs:
        raise TrainingError("Found both steps and num_train_epochs; expected one of them.")


def _refuse_sharded(base: BaseModel, *, again: bool) -> None:
    if again and base.is_sharded:
        raise TrainingError(
            "FSDP has sharded the base for the first run and cannot do so again in the same "
            "process. Train the tasks one by one (recipes/generation.py), or on one GPU."
        )


def _options(
    args: PromptTrainingArguments, folder: Path, steps: int | str | None, resume: bool
) -> dict[str, Any]:
    """Return what differs between runs: folder, steps, and whether there is a checkpoint."""
    own = replace(_with_steps(args, steps), output_dir=str(folder))
    return {"args": own, "resume": resume and is_resumable(folder)}


def _with_steps(args: PromptTrainingArguments, steps: int | str | None) -> PromptTrainingArguments:
    """Return the arguments of a run of some steps, to which the limits of auto do not apply."""
    if steps == args.max_steps:
        return args
    limits = defaults_of(AUTO_ONLY) if args.is_auto else {}
    return replace(args, max_steps=steps, num_train_epochs=0.0, **limits)


def _save(shared: FitResult, folder: Path) -> None:
    """Save the shared prompt and its learning curve; other processes have the same vectors."""
    if PartialState().is_main_process:
        write_curve(folder, shared)
        shared.prompt.save_pretrained(folder / "adapter")
