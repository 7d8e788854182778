"""`max_steps: auto`: a run that ends when its dev loss has stopped falling.

A decay of the learning rate would have to begin before the end is known. So the rate is constant
after warm-up, and the moving average of the steps is evaluated and kept in place of the last one;
see `softhub.training.averaging`.

The end is decided at an evaluation and recorded in the history of the run, which checkpoints
contain. So a resumed run takes the same steps, without any state of its own.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_utils import SaveStrategy

if TYPE_CHECKING:
    from softhub.training.arguments import PromptTrainingArguments

TYPICAL_STEPS = 120
"""Steps that fractions of a run refer to while its length is not known, such as of warm-up."""

SCHEDULE = "constant_with_warmup"
"""transformers' name of the learning rate's schedule in such a run."""

_LEAST_GAIN = 0.01  # relative fall of the dev loss that counts as an improvement
_FEWEST = 5  # evaluations without improvement, however small the data: see docs/training.md


@dataclass(frozen=True)
class Ending:
    """The decision that a run ends.

    Attributes:
        ended_at: The last step.
        reason: Why it ends there, a clause for messages.
        limit: The argument that limits the run, with its value, if that is why it ends.
    """

    ended_at: int
    reason: str
    limit: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def by_limit(cls, ended_at: int, name: str, value: float) -> Ending:
        """Return the decision that a run ends at a limit."""
        return cls(ended_at, f"{name} is {value:g}", {name: value})

    @classmethod
    def recorded(cls, history: Sequence[Mapping[str, Any]]) -> Ending | None:
        """Return the decision in the history of a run; None if there is none yet."""
        found = (logs for logs in history if "ended" in logs)
        return next((cls(x["step"], x["ended"], x.get("limit", {})) for x in found), None)

    def to_record(self) -> dict[str, Any]:
        """Return the entry of the history."""
        return {"step": self.ended_at, "ended": self.reason, "limit": dict(self.limit)}

    def is_lifted_by(self, args: PromptTrainingArguments) -> bool:
        """Return whether a limit ended the run, and a resumed run has a higher one or none."""
        now = {name: getattr(args, name) for name in self.limit}
        return any(now[name] is None or now[name] > value for name, value in self.limit.items())

    def __str__(self) -> str:
        """Say in one line why the run ended."""
        return f"ended after {self.ended_at} steps: {self.reason}"


class AutoSteps(TrainerCallback):
    """Ends a run without a number of steps.

    Args:
        args: The arguments; `auto_max_steps`, `auto_max_minutes` and `auto_patience` apply.
        steps_per_pass: Optimizer steps of one pass over the training data.
    """

    def __init__(self, args: PromptTrainingArguments, steps_per_pass: int) -> None:
        self.most, self.minutes = args.auto_max_steps, args.auto_max_minutes
        self.patience = args.auto_patience * steps_per_pass
        self.steps_per_pass = steps_per_pass
        self._saves = args.save_strategy != SaveStrategy.NO
        self._began, self._first = 0.0, 0

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Start the clock; a run that goes on has not ended."""
        self._began, self._first = time.monotonic(), state.global_step
        state.log_history = [logs for logs in state.log_history if "ended" not in logs]

    def on_evaluate(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Decide whether the run ends."""
        ending = self._ending(state)
        if ending is None:
            return
        state.log_history.append(ending.to_record())
        control.should_training_stop = True
        control.should_save = self._saves
        if state.is_world_process_zero:
            tqdm.write(str(ending), file=sys.stderr)

    def _ending(self, state: TrainerState) -> Ending | None:
        """Return that the run ends now, and why; None if it does not."""
        step, every = state.global_step, max(1, int(state.eval_steps))
        waited = step - _last_improvement(state.log_history)
        if waited >= max(self.patience, _FEWEST * every):
            passes = waited / self.steps_per_pass
            fallen = f"the dev loss has not fallen for {waited} steps ({passes:.2g} passes)"
            return Ending(step, fallen, {"auto_patience": passes})  # a higher one would go on
        if step >= self.most:
            return Ending.by_limit(step, "auto_max_steps", self.most)
        if self.minutes is not None and self._is_late(step, every, self.minutes):
            return Ending.by_limit(step, "auto_max_minutes", self.minutes)
        return None

    def _is_late(self, step: int, every: int, minutes: float) -> bool:
        """Return whether there is no time for the steps until another evaluation."""
        seconds = time.monotonic() - self._began
        needed = every * seconds / max(1, step - self._first)
        late = [seconds + needed > 60 * minutes]
        if PartialState().num_processes > 1:  # each has a clock of its own
            broadcast_object_list(late)
        return late[0]


def _last_improvement(history: Sequence[Mapping[str, Any]]) -> int:
    """Return the step of the last evaluation that was better than all before it."""
    best, last = math.inf, 0
    for logs in history:
        if float(logs.get("eval_loss", math.nan)) < best * (1 - _LEAST_GAIN):
            best, last = float(logs["eval_loss"]), int(logs["step"])
    return last
