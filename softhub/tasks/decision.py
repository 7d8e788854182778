"""How scores of labels become probabilities, and probabilities an answer or none.

All of it is fitted or chosen on dev (`softhub.metrics.calibration`) and travels in the manifest, so
that predicting does what was measured.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from softhub.errors import TaskError, did_you_mean


@dataclass(frozen=True)
class Decision:
    """The rule from scores to answers.

    Attributes:
        temperature: Scores are divided by it before they become probabilities (temperature
            scaling; Guo et al. 2017, arXiv 1706.04599). It changes no single-label answer.
        threshold: Multi-label only: a label applies if its probability is at least this.
        abstain_below: No answer is given below this confidence; 0 always answers.
    """

    temperature: float = 1.0
    threshold: float = 0.5
    abstain_below: float = 0.0

    def __post_init__(self) -> None:
        """Check every number.

        Raises:
            TaskError: Naming the key, what was found, and what is possible.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TaskError(f"{field.name} is {value!r:.80}; expected a number")
        if not 0 < self.temperature < float("inf"):
            raise TaskError(f"temperature is {self.temperature}; expected a positive number")
        if not 0 < self.threshold < 1:
            raise TaskError(f"threshold is {self.threshold}; expected a number between 0 and 1")
        if not 0 <= self.abstain_below <= 1:
            raise TaskError(f"abstain_below is {self.abstain_below}; expected a number in 0 to 1")

    def to_record(self) -> dict[str, float]:
        """Return the numbers as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Decision":
        """Read what `to_record` wrote, or a task file's keys; what is missing has its default.

        Raises:
            TaskError: A key is unknown, or a number is out of its range.
        """
        known = [field.name for field in fields(cls)]
        for key in record:
            if key not in known:
                raise TaskError(f"unknown key {str(key)!r}{did_you_mean(str(key), known)}")
        return cls(**record)


ALWAYS_ANSWER = Decision()
"""Probabilities as they are, and always an answer."""
