"""Telling that a run has failed, so that it can be begun again in another way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_TOLERANCE = 1.02  # of the floor: two dev sets of one size differ by more than nothing
_FLAT = 0.02
_PATIENCE = 1 / 3  # of the steps, before which one label for every text is no verdict


@dataclass(frozen=True)
class Failure:
    """Why a run failed.

    Attributes:
        reason: In plain words, with the step.
        too_slow: Whether nothing moved: a higher rate is worth a try, not a lower one.
        fatal: Whether the vectors are of no use at all.
    """

    reason: str
    too_slow: bool = False
    fatal: bool = False


class GuardCallback(TrainerCallback):
    """Stops a run that gives every text one label, and tells one that learned nothing.

    Args:
        floor: The dev loss of an answer that learned nothing; None where it is not known.
        stops: Whether a failed run is cut short, because another can take its place.
    """

    def __init__(self, floor: float | None, *, stops: bool) -> None:
        self.floor = floor
        self.stops = stops
        self.failure: Failure | None = None

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> TrainerControl:
        """Stop a run that gives all dev texts one label, and does no better than chance."""
        found = metrics or {}
        loss = float(found.get("eval_loss", math.nan))
        one_label = found.get("eval_labels_predicted") == 1 < found.get("eval_labels_present", 0)
        late = state.global_step >= _PATIENCE * state.max_steps
        if self.stops and one_label and late and self._no_better(loss):
            reason = f"it gave every text one label at step {state.global_step}"
            self.failure = Failure(reason, too_slow=_flat(_dev_losses(state)))
            control.should_training_stop = True
        return control

    def judge(self, state: TrainerState) -> None:
        """Call a run failed whose best dev loss is no better than nothing learned.

        Args:
            state: The run's at its end, with what was logged before it was stopped and resumed.
        """
        losses = _dev_losses(state)
        if self.failure or not losses or not self._no_better(min(losses)):
            return
        self.failure = Failure(
            f"its best dev loss {min(losses):.3f} is no better than without learning "
            f"({self.floor:.3f})",
            too_slow=_flat(losses),
        )

    def _no_better(self, loss: float) -> bool:
        return self.floor is not None and not loss * _TOLERANCE < self.floor


def _dev_losses(state: TrainerState) -> list[float]:
    losses = [float(logs["eval_loss"]) for logs in state.log_history if "eval_loss" in logs]
    return [loss for loss in losses if math.isfinite(loss)]


def _flat(losses: Sequence[float]) -> bool:
    """Whether the dev loss hardly moved from one evaluation to another."""
    return len(losses) > 1 and max(losses) - min(losses) < _FLAT * min(losses)
