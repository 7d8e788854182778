"""Convert scores of labels to probabilities, and probabilities to an answer or an abstention.

All values are fitted or chosen on dev (`softhub.metrics.calibration`) and stored in the manifest,
so that predictions are made as they were evaluated.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from softhub.errors import TaskError, did_you_mean


@dataclass(frozen=True)
class Decision:
    """The rule from scores to answers.

    Attributes:
        temperature: Scores are divided by it before they become probabilities (temperature
            scaling; Guo et al. 2017, arXiv 1706.04599). It does not change single-label answers.
        threshold: Multi-label only: a label applies if its probability is at least this.
        abstain_below: Abstain below this confidence; 0 always answers.
    """

    temperature: float = 1.0
    threshold: float = 0.5
    abstain_below: float = 0.0

    def __post_init__(self) -> None:
        """Check all numbers.

        Raises:
            TaskError: Naming the key, what was found, and what is allowed.
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
            raise TaskError(f"abstain_below is {self.abstain_below}; expected a number from 0 to 1")

    def abstaining_below(self, confidence: float | None) -> "Decision":
        """Return it with another confidence below which it abstains; None changes nothing.

        Raises:
            TaskError: The confidence is not from 0 to 1.
        """
        return self if confidence is None else replace(self, abstain_below=float(confidence))

    def to_record(self) -> dict[str, float]:
        """Return the numbers as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Decision":
        """Build a decision from the output of `to_record`, or a task file's keys.

        Raises:
            TaskError: A key is unknown, or a number is out of its range.
        """
        known = [field.name for field in fields(cls)]
        for key in record:
            if key not in known:
                raise TaskError(f"unknown key {str(key)!r}{did_you_mean(str(key), known)}")
        return cls(**record)


ALWAYS_ANSWER = Decision()
"""Unchanged probabilities, and always an answer."""
