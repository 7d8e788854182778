"""Running a trainer to its end: Ctrl-C saves, a stopped run goes on, the result is summed up."""

from __future__ import annotations

import json
import logging
import re
import shutil
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import PartialState
from peft import PeftType, PromptTuningConfig
from transformers.trainer import TRAINER_STATE_NAME

from softhub.errors import SoftHubError, SoftHubWarning, TrainingError
from softhub.model.base import BaseModel
from softhub.model.prompt import SoftPrompt
from softhub.training.arguments import PromptTrainingArguments
from softhub.training.callbacks import InterruptCallback
from softhub.training.lr_finder import RangeTest
from softhub.training.provenance import peak_memory
from softhub.training.trainer import PromptTrainer


class TrainingInterrupted(SoftHubError):
    """Ctrl-C during training; a checkpoint was saved and the run can go on from it."""


@dataclass(frozen=True)
class FitResult:
    """What training gave.

    Attributes:
        prompt: The soft prompt of the best checkpoint on dev.
        history: Logged losses, learning rates and dev scores, each with its step.
        best_score: The best checkpoint's value of what chose it (the dev loss), or None.
        best_step: Its step.
        steps: Optimizer steps made in all, those of attempts that failed included.
        seconds: Wall time of training with its dev evaluations, range test and attempts, in this
            process: what a resumed run took before it was stopped is not known.
        examples_per_second: Training examples per second, dev evaluations not counted.
        peak_memory: Largest resident memory of this process in bytes (CPU), or of the GPU.
        warnings: What a person should know about the run, in plain words.
        init: Where training started.
        range_test: How the learning rate was found, if by a range test.
        restarts: Why earlier attempts failed, one line each.
    """

    prompt: SoftPrompt
    history: list[dict[str, float]]
    best_score: float | None
    best_step: int
    steps: int
    seconds: float
    examples_per_second: float
    peak_memory: int
    warnings: list[str] = field(default_factory=list)
    init: str | None = None
    range_test: RangeTest | None = None
    restarts: list[str] = field(default_factory=list)


def check_config(base: BaseModel, config: PromptTuningConfig) -> None:
    """Refuse a PEFT configuration that this base cannot be trained with.

    Raises:
        TrainingError: Naming what was found and what was expected.
    """
    if config.peft_type != PeftType.PROMPT_TUNING:
        raise TrainingError(
            f"Found a PEFT configuration of type {config.peft_type}; expected PromptTuningConfig."
        )
    if config.task_type is not None and str(config.task_type) != base.task_type:
        raise TrainingError(
            f"The PEFT configuration says task_type={config.task_type}, but {base.name} is "
            f"{base.task_type}: use task_type=base.task_type."
        )
    if int(config.num_virtual_tokens or 0) < 1:
        raise TrainingError(
            f"num_virtual_tokens is {config.num_virtual_tokens}; expected 1 or more, e.g. 20."
        )


def run_trainer(trainer: PromptTrainer, *, resume: bool) -> float:
    """Train to the end.

    Args:
        trainer: The trainer.
        resume: Whether to go on from the last checkpoint.

    Returns:
        Wall seconds; 0 for a run that has made all its steps before.

    Raises:
        TrainingError: There is no checkpoint to go on from.
        TrainingInterrupted: Ctrl-C; a checkpoint was saved.
    """
    args, interrupt = trainer.prompt_arguments, InterruptCallback()
    trainer.add_callback(interrupt)
    if args.early_stopping_patience:
        trainer.add_callback(trainer.early_stopping())
    checkpoint = _checkpoint_to_go_on_from(args) if resume else None
    start = time.perf_counter()
    if checkpoint and trainer.take_over(checkpoint):
        return 0.0
    with interrupt.listening():
        trainer.train(resume_from_checkpoint=checkpoint)
    if interrupt.interrupted:
        raise TrainingInterrupted(
            f"Stopped after step {trainer.state.global_step}; the run can go on from "
            f"{trainer.args.output_dir} with --resume true."
        )
    return time.perf_counter() - start


def result_of(
    trainer: PromptTrainer, prompt: SoftPrompt, seconds: float, found: list[str]
) -> FitResult:
    """Sum a run up, with what it logged before it was stopped, and warn of what was found."""
    for message in found:
        warnings.warn(message, SoftHubWarning, stacklevel=3)
    return FitResult(
        prompt=prompt,
        history=trainer.state.log_history,
        best_score=trainer.state.best_metric,
        best_step=trainer.state.best_global_step or trainer.state.global_step,
        steps=trainer.state.global_step,
        seconds=seconds,
        examples_per_second=trainer.training_speed(seconds),
        peak_memory=peak_memory(),
        warnings=found,
    )


def _checkpoint_to_go_on_from(args: PromptTrainingArguments) -> str:
    checkpoint = last_checkpoint(args.output_dir)
    if checkpoint is None:
        raise TrainingError(
            f"Nothing to resume in {args.output_dir!r}: no checkpoint there. Check output_dir, or "
            "start without resume."
        )
    return checkpoint


logger = logging.getLogger("softhub")

_NAME = re.compile(r"checkpoint-(\d+)")


def last_checkpoint(folder: str | Path) -> str | None:
    """The newest checkpoint of a run's folder that was written to its end; None if there is none.

    transformers writes the trainer's state last, so a checkpoint without one was cut short.
    """
    whole = [path for path in _checkpoints(Path(folder)) if _is_whole(path)]
    return str(max(whole, key=_step)) if whole else None


def set_aside_checkpoints(folder: str | Path) -> None:
    """Give the checkpoints of an earlier run in this folder another name, and say so.

    A run that begins anew would else be resumed from them, with its own seed and rate in the card.
    """
    state = PartialState()
    if state.is_main_process:
        below = [Path(folder), *sorted(Path(folder).glob("restart-*"))]
        old = [path for part in below for path in _checkpoints(part)]
        for path in old:
            _replace(path, path.with_name(f"earlier-{path.name}"))
        if old:
            logger.warning(
                "Beginning anew in %s; the checkpoints of the run that was there are now called "
                "earlier-checkpoint-….",
                folder,
            )
    state.wait_for_everyone()


def _replace(path: Path, name: Path) -> None:
    if name.exists():
        shutil.rmtree(name)
    path.rename(name)


def _checkpoints(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]


def _step(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
