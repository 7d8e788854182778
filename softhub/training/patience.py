"""Early stopping of each task of a mixture, and the progress of each.

Both follow from the dev losses that were logged, which a checkpoint contains: a resumed run stops a
task where the run would have stopped it without the interruption.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from softhub.metrics import METRICS

logger = logging.getLogger("softhub")


@dataclass(frozen=True)
class TaskProgress:
    """The progress of one task of a mixture.

    Attributes:
        best_step: Step of its lowest dev loss, which need not be that of the best checkpoint.
        best_loss: The lowest dev loss.
        metrics: Its metrics on dev at that step; empty for generation.
        stopped_step: Step of the evaluation that stopped the task; None if none did.
    """

    best_step: int
    best_loss: float
    metrics: Mapping[str, float]
    stopped_step: int | None = None


def progress_of(
    task: str, history: Sequence[Mapping[str, float]], patience: int = 0
) -> TaskProgress | None:
    """Compute one task's progress from what was logged.

    Args:
        task: The task's name.
        history: What was logged, each mapping with its `step`.
        patience: Evaluations in a row without a lower dev loss that stop the task; 0: never.

    Returns:
        Its progress; None before the first evaluation.
    """
    prefix = f"eval_{task}_"
    best: Mapping[str, float] = {}
    waited, stopped = 0, None
    for logs in history:
        if f"{prefix}loss" not in logs:
            continue
        if not best or logs[f"{prefix}loss"] < best[f"{prefix}loss"]:
            best, waited = logs, 0
        else:
            waited += 1
        if stopped is None and 0 < patience <= waited:
            stopped = int(logs["step"])
    if not best:
        return None
    found = {key.removeprefix(prefix): value for key, value in best.items()}
    metrics = {name: found[name] for name in METRICS if name in found}
    return TaskProgress(int(best["step"]), float(found["loss"]), metrics, stopped)


class TaskEarlyStopping(TrainerCallback):
    """Early stopping for each task: no more batches are drawn of one that stopped improving.

    Training ends when all tasks have stopped.

    Args:
        tasks: Their names, in the mixture's order.
        patience: As in `progress_of`.
        ahead: Optimizer steps whose batches may be drawn before an evaluation has ended: a task
            stops after these, so that it does not matter which of them were.
    """

    def __init__(self, tasks: Sequence[str], patience: int, *, ahead: int = 1) -> None:
        self.tasks = tuple(tasks)
        self.patience = patience
        self.ahead = ahead
        self.stopped: dict[str, int] = {}

    def may_draw(self, task: int, step: int) -> bool:
        """Return whether the batch of a step, counted from 0, may be of a task."""
        stopped = self.stopped.get(self.tasks[task])
        return stopped is None or step < stopped + self.ahead

    def all_stopped(self, state: TrainerState) -> bool:
        """Return whether no task is left, according to the state of a run."""
        self._read(state)
        return len(self.stopped) == len(self.tasks)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Restore which tasks of a resumed run have stopped."""
        self._read(state)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Stop tasks that no longer improve, and end training after the last of them."""
        before = set(self.stopped)
        if self.all_stopped(state):
            control.should_training_stop = True
        for task in self.stopped.keys() - before:
            if state.is_world_process_zero:
                logger.warning(
                    "Task %s stopped early at step %d: no better dev loss in %d evaluations.",
                    task,
                    self.stopped[task],
                    self.patience,
                )
        return control

    def _read(self, state: TrainerState) -> None:
        found = {task: progress_of(task, state.log_history, self.patience) for task in self.tasks}
        self.stopped = {
            task: progress.stopped_step
            for task, progress in found.items()
            if progress is not None and progress.stopped_step is not None
        }
