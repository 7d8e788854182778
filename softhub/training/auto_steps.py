"""`max_steps: auto`: a run that ends when it is done, by a warmup-stable-decay schedule.

A linear decay has to know its last step in advance. Here the learning rate stays at its peak after
warm-up until the dev loss stops falling, and then decays, which gives most of what a schedule of
the right length gives (Hu et al. 2024, arXiv 2404.06395; Hägele et al. 2024, arXiv 2405.18392).

When the decay begins is decided once, at an evaluation, and recorded in the history of the run,
which checkpoints contain. So a resumed run takes the same steps, without any state of its own.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerState

if TYPE_CHECKING:
    from softhub.training.arguments import PromptTrainingArguments

TYPICAL_STEPS = 120
"""Steps that fractions of a run refer to while its length is not known, such as of warm-up."""

_LEAST_GAIN = 0.01  # relative fall of the dev loss that counts as an improvement
_FEWEST = 5  # evaluations without improvement, however small the data: see docs/training.md
_DECAY = 0.25  # of the steps before it, so a fifth of all: between the papers' 10 and 20 %


@dataclass(frozen=True)
class Ending:
    """The decision when a run ends.

    Attributes:
        decay_from: The step at which the learning rate begins to decay.
        last_step: The step at which it is 0, and the run ends.
        reason: Why the decay began, a clause for messages.
    """

    decay_from: int
    last_step: int
    reason: str

    @classmethod
    def recorded(cls, history: Sequence[Mapping[str, Any]]) -> Ending | None:
        """Return the decision in the history of a run; None if there is none yet."""
        found = (logs for logs in history if "decay_from" in logs)
        return next(
            (cls(logs["decay_from"], logs["last_step"], logs["reason"]) for logs in found), None
        )

    def to_record(self) -> dict[str, Any]:
        """Return the entry of the history."""
        record = {"decay_from": self.decay_from, "last_step": self.last_step}
        return {"step": self.decay_from, **record, "reason": self.reason}

    def __str__(self) -> str:
        """Say in one line why the run ended."""
        decay = self.last_step - self.decay_from
        return f"ended after {self.last_step} steps, {decay} of decay: {self.reason}"


class AutoSteps(TrainerCallback):
    """The learning rate of a run without a number of steps, and its end.

    Args:
        args: The arguments; `auto_max_steps`, `auto_max_minutes` and `auto_patience` apply.
        steps_per_pass: Optimizer steps of one pass over the training data.
    """

    def __init__(self, args: PromptTrainingArguments, steps_per_pass: int) -> None:
        self.warmup = int(args.get_warmup_steps(TYPICAL_STEPS))
        self.most, self.minutes = args.auto_max_steps, args.auto_max_minutes
        self.patience = args.auto_patience * steps_per_pass
        self.steps_per_pass = steps_per_pass
        self.ending: Ending | None = None
        self._began, self._first = 0.0, 0

    def rate(self, step: int) -> float:
        """Return the factor of the peak learning rate after `step` steps."""
        if step < self.warmup:
            return step / self.warmup
        if self.ending is None or step <= self.ending.decay_from:
            return 1.0
        left, decay = self.ending.last_step - step, self.ending.last_step - self.ending.decay_from
        return max(0.0, left / decay)

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Continue with the decision of a run that is resumed."""
        self._began, self._first = time.monotonic(), state.global_step
        if found := Ending.recorded(state.log_history):
            self._end(state, found)

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Decide whether the decay begins."""
        if self.ending is not None:
            return
        reason, step = self._reason(state), state.global_step
        if reason is None:
            return
        last = min(step + _decay_after(step), self.most)
        ending = Ending(step, max(last, step), reason)
        state.log_history.append(ending.to_record())
        self._end(state, ending)
        if state.is_world_process_zero:
            decay = f"the learning rate decays until step {ending.last_step}"
            tqdm.write(f"step {step}: {reason}; {decay}", file=sys.stderr)

    def _end(self, state: TrainerState, ending: Ending) -> None:
        self.ending = ending
        state.max_steps = ending.last_step  # at which transformers evaluates, saves and stops

    def _reason(self, state: TrainerState) -> str | None:
        """Return why the decay begins now; None if it does not."""
        step, every = state.global_step, max(1, int(state.eval_steps))
        waited = step - _last_improvement(state.log_history)
        if waited >= max(self.patience, _FEWEST * every):
            passes = waited / self.steps_per_pass
            return f"the dev loss has not fallen for {waited} steps ({passes:.2g} passes)"
        # A decay that begins at the next evaluation would be too late.
        following = step + every
        if following + _decay_after(following) > self.most:
            return f"auto_max_steps is {self.most}"
        if self.minutes is not None and self._is_late(step, following):
            return f"auto_max_minutes is {self.minutes:g}"
        return None

    def _is_late(self, step: int, following: int) -> bool:
        """Return whether there is no time for another evaluation before the decay."""
        seconds = time.monotonic() - self._began
        per_step = seconds / max(1, step - self._first)
        needed = (following + _decay_after(following) - step) * per_step
        late = [seconds + needed > 60 * (self.minutes or math.inf)]
        if PartialState().num_processes > 1:  # each has a clock of its own
            broadcast_object_list(late)
        return late[0]


def _decay_after(step: int) -> int:
    """Return the steps of a decay that begins after `step` steps."""
    return max(1, round(_DECAY * step))


def _last_improvement(history: Sequence[Mapping[str, Any]]) -> int:
    """Return the step of the last evaluation that was better than all before it."""
    best, last = math.inf, 0
    for logs in history:
        if float(logs.get("eval_loss", math.nan)) < best * (1 - _LEAST_GAIN):
            best, last = float(logs["eval_loss"]), int(logs["step"])
    return last
