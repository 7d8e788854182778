"""Running a trainer to its end: checkpoints, resuming, Ctrl-C, and the result."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import EarlyStoppingCallback
from transformers.utils import SAFE_WEIGHTS_NAME

from softhub.errors import SoftHubWarning, TrainingError, TrainingInterrupted
from softhub.model.prompt import SoftPrompt
from softhub.training.callbacks import InterruptCallback
from softhub.training.checkpoints import check_resumable, last_checkpoint
from softhub.training.provenance import peak_memory
from softhub.training.trainer import AVERAGE, PROMPT, UNIT, CheckpointNotWritten, PromptTrainer


@dataclass(frozen=True)
class FitResult:
    """A trained prompt, with a summary of training.

    Attributes:
        prompt: The soft prompt of the best checkpoint on dev.
        history: Logged losses, learning rates and dev scores, each with its step; with
            `max_steps="auto"` also why the run ended.
        best_score: The best checkpoint's value of the metric that it was chosen by (the dev loss),
            or None.
        best_step: Its step; without `load_best_model_at_end` the last one, whose prompt it is.
        steps: Optimizer steps in total, those of failed attempts included.
        seconds: Wall time of training with dev evaluations and restarts, in this process:
            the time before a resumed run was interrupted is not known.
        examples_per_second: Training examples per second, without dev evaluations.
        peak_memory: Largest resident memory of this process in bytes, or of the GPU.
        warnings: Warnings for the user about the run.
        init: Name of the initialization.
        restarts: Why earlier attempts failed, one line each.
        ended: Why a run with `max_steps="auto"` ended, in one line; None for a number of steps.
    """

    prompt: SoftPrompt
    history: list[dict[str, Any]]
    best_score: float | None
    best_step: int
    steps: int
    seconds: float
    examples_per_second: float
    peak_memory: int
    warnings: list[str] = field(default_factory=list)
    init: str | None = None
    restarts: list[str] = field(default_factory=list)
    ended: str | None = None


def run_trainer(trainer: PromptTrainer, *, resume: bool) -> float:
    """Train to the end.

    Args:
        trainer: The trainer.
        resume: Whether to resume from the last checkpoint.

    Returns:
        Wall time in seconds; 0 for a run that was already complete.

    Raises:
        TrainingError: There is no checkpoint to resume from, or a file cannot be written.
        TrainingInterrupted: Ctrl-C was pressed; a checkpoint was saved.
    """
    args, interrupt = trainer.prompt_arguments, InterruptCallback()
    trainer.add_callback(interrupt)
    if args.early_stopping_patience:
        trainer.add_callback(EarlyStoppingCallback(args.early_stopping_patience))
    if resume:
        check_resumable(args.output_dir)
    checkpoint = last_checkpoint(args.output_dir) if resume else None
    if checkpoint:
        check_is_of_this_prompt(checkpoint, trainer)
    start = time.perf_counter()
    if checkpoint and trainer.restore_complete_run(checkpoint):
        return 0.0
    with interrupt.listening(), explained_failures(trainer):
        trainer.train(resume_from_checkpoint=checkpoint)
    if interrupt.interrupted:
        raise TrainingInterrupted(
            f"Interrupted after step {trainer.state.global_step}. A checkpoint was saved in "
            f"{trainer.args.output_dir}; continue with --resume."
        )
    return time.perf_counter() - start


def check_is_of_this_prompt(checkpoint: str, trainer: PromptTrainer) -> None:
    """Check that a checkpoint has a prompt of the type and size that is trained.

    Raises:
        TrainingError: It has another.
    """
    path = Path(checkpoint) / SAFE_WEIGHTS_NAME
    if not path.is_file():  # FSDP and DeepSpeed write files of their own
        return
    with safe_open(path, framework="pt") as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in [*file.keys()]}
    expected = trainer.checkpoint_shapes()
    if found != expected:
        steps = (AVERAGE in found) != (AVERAGE in expected)
        has, wanted = (_in_words(shapes, steps=steps) for shapes in (found, expected))
        raise TrainingError(
            f"{checkpoint} has {has}; expected {wanted}. Resume with the "
            "base model, the prompt type, the number of virtual tokens and the max_steps (a number "
            "or auto) that the run began with, or start without resume."
        )


def _in_words(shapes: Mapping[str, tuple[int, ...]], *, steps: bool) -> str:
    """Describe what a checkpoint has; with `steps`, also which kind of `max_steps` it is of."""
    kind = "a prefix" if UNIT in shapes else "a prompt"
    described = f"{kind} of shape {list(shapes.get(PROMPT, ()))}"
    if not steps:
        return described
    return f"{described}, trained with max_steps {'auto' if AVERAGE in shapes else 'as a number'}"


@contextmanager
def explained_failures(trainer: PromptTrainer) -> Iterator[None]:
    """Say what can be resumed after a full disk, and name a wrong metric."""
    try:
        yield
    except (ConnectionError, TimeoutError):  # a tracker's network, not the disk
        raise
    except (OSError, CheckpointNotWritten) as error:
        folder = str(trainer.args.output_dir)
        checkpoint = last_checkpoint(folder)
        rest = "There is no complete checkpoint to resume from."
        if checkpoint is not None:
            rest = f"The last complete checkpoint is {checkpoint}: continue with --resume."
        raise TrainingError(
            f"Training stopped at step {trainer.state.global_step}, because a file could not be "
            f"written: {error}. Make room for the files in {folder}. {rest}"
        ) from error
    except KeyError as error:
        if "metric_for_best_model" not in str(error):
            raise
        raise TrainingError(str(error.args[0])) from error


def result_of(
    trainer: PromptTrainer, prompt: SoftPrompt, seconds: float, messages: list[str]
) -> FitResult:
    """Summarize a run, with what it logged before it was resumed, and issue its warnings."""
    for message in messages:
        warnings.warn(message, SoftHubWarning, stacklevel=3)
    chosen = trainer.args.load_best_model_at_end
    best = trainer.state.best_metric if chosen else None
    best_step = trainer.state.best_global_step if chosen else None
    return FitResult(
        prompt=prompt,
        history=trainer.state.log_history,
        best_score=best if best is not None and math.isfinite(best) else None,
        best_step=best_step or trainer.state.global_step,
        steps=trainer.state.global_step,
        seconds=seconds,
        examples_per_second=trainer.training_speed(seconds),
        peak_memory=peak_memory(),
        warnings=messages,
        ended=trainer.ending(),
    )
