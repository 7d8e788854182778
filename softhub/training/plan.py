"""What `fit` decides by itself: the learning rate, and how to begin again after a failure.

The decisions are kept beside the checkpoints, so that a resumed run does not take them anew.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from accelerate import PartialState

from softhub.files import replace_file
from softhub.training.arguments import PromptTrainingArguments
from softhub.training.guard import Failure
from softhub.training.learning_rate import LearningRate
from softhub.training.lr_finder import RangeTest

_FILE = "plan.json"
_STEP = 4.0


@dataclass
class Plan:
    """A run's decisions.

    Attributes:
        rate: The learning rate that was given or found.
        test: The range test that found it, if one did.
        failures: Of each attempt that failed and was begun again: what it was, and why.
        gave_up: Why the last attempt failed too, if it did.
        about: Task, base, virtual tokens and seed, for who finds the run before it is at its end.
    """

    rate: float
    test: RangeTest | None = None
    failures: list[dict[str, Any]] = field(default_factory=list)
    gave_up: str | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: str) -> Plan | None:
        """The plan of a run that goes on; None if it had none."""
        path = Path(folder) / _FILE
        if not path.is_file():
            return None
        record = json.loads(path.read_text(encoding="utf-8"))
        test = RangeTest(**record["test"]) if record["test"] else None
        return cls(
            record["rate"], test, record["failures"], record.get("gave_up"), record.get("about", {})
        )

    def write(self, folder: str) -> None:
        """Keep it; only one process does."""
        if PartialState().is_main_process:
            Path(folder).mkdir(parents=True, exist_ok=True)
            text = json.dumps(asdict(self), indent=2) + "\n"
            replace_file(Path(folder) / _FILE, text.encode())

    def arguments(self, args: PromptTrainingArguments, usual: float) -> PromptTrainingArguments:
        """The arguments of the attempt at hand: its own folder, and its rate.

        Args:
            args: The run's arguments.
            usual: The rate that suits most tasks on this base: a rate that failed and is far from
                it is not corrected step by step.
        """
        attempt, rate = len(self.failures), self.rate
        if attempt:
            slow = self.failures[0]["too_slow"]
            rate = max(rate * _STEP, usual) if slow else min(rate / _STEP, usual)
        folder = Path(args.output_dir) / f"restart-{attempt}" if attempt else args.output_dir
        return replace(args, output_dir=str(folder), learning_rate=LearningRate(rate))

    @property
    def wants_another_start(self) -> bool:
        """Whether another rate alone did not help."""
        return len(self.failures) > 1

    def warnings(self) -> list[str]:
        """Say that the run was begun again, and why, and that it failed in the end."""
        reasons = "; ".join(failure["reason"] for failure in self.failures)
        times = {1: "once", 2: "twice"}.get(len(self.failures), f"{len(self.failures)} times")
        found = [f"Training was begun again {times}: {reasons}."] if self.failures else []
        if self.gave_up:
            last = "The last attempt failed too" if self.failures else "Training failed"
            found.append(f"{last}: {self.gave_up}. Do not rely on this prompt.")
        return found

    def note(self, failure: Failure, args: PromptTrainingArguments, start: str) -> None:
        """Note that an attempt failed."""
        self.failures.append(
            {
                "reason": failure.reason,
                "too_slow": failure.too_slow,
                "learning_rate": float(args.learning_rate),
                "init": start,
            }
        )
