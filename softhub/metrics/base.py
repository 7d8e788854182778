"""The base class of metrics: statistics of single examples, and a score of their totals."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softhub.errors import DatasetError

Floats = NDArray[np.float64]


class Metric(ABC):
    """A score of predictions against references.

    Attributes:
        name: Its name in task files.
        description: One sentence for cards and for `evaluate`.
        kinds: Kinds of task that it can score.
        input_kind: What it takes as predictions: `answers` (labels or texts), `code` (the program
            that an answer makes), `outcomes` (of running that program with its tests) or
            `log_probabilities` (of each token of the reference text).
        title: Its usual name, if that is not `name` with spaces.
        greater_is_better: Whether a greater score is a better one.
        unit: `%` if scores are shares of 1, which are written as percentages; else empty.
    """

    name: str
    description: str
    kinds: tuple[str, ...]
    input_kind: str = "answers"
    title: str = ""
    greater_is_better: bool = True
    unit: str = "%"

    @property
    def heading(self) -> str:
        """The metric's name in tables and sentences."""
        return self.title or self.name.replace("_", " ")

    @property
    def heading_with_unit(self) -> str:
        """The heading of a column: `accuracy, %`."""
        return f"{self.heading}, {self.unit}" if self.unit else self.heading

    @property
    def scale(self) -> int:
        """The factor between a score and the number that is written in the metric's unit."""
        return 100 if self.unit == "%" else 1

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The lowest and the highest score that there can be; None if there is none."""
        return (0.0, 1.0) if self.unit == "%" else None

    def format(self, value: float, low: float | None = None, high: float | None = None) -> str:
        """Write a score, and its interval if it has one, without the unit: `92.5 (90.8-94.1)`."""
        text = f"{self.scale * value:.1f}"
        if low is None or high is None:
            return text
        return f"{text} ({self.scale * low:.1f}-{self.scale * high:.1f})"

    def goodness(self, value: float) -> float:
        """Return a number that is greater for a better score, to sort and choose by."""
        return value if self.greater_is_better else -value

    @abstractmethod
    def statistics(self, predictions: Sequence[Any], references: Sequence[str]) -> Floats:
        """Return what each example adds to the totals.

        Args:
            predictions: N predictions of the metric's `input_kind`.
            references: N correct answers.

        Returns:
            Array `[N, K]`; K depends on the metric and the labels.
        """

    @abstractmethod
    def score(self, totals: Floats) -> Floats:
        """Compute scores from totals.

        Args:
            totals: Sums (or weighted sums) of statistics, `[..., K]`.

        Returns:
            Scores `[...]`.
        """


def check_pairs(predictions: Sequence[Any], references: Sequence[str]) -> None:
    """Check that predictions can be scored.

    Args:
        predictions: N predictions.
        references: N correct answers.

    Raises:
        DatasetError: There is nothing to score, or the numbers differ.
    """
    if len(predictions) != len(references):
        raise DatasetError(
            f"{len(predictions)} predictions and {len(references)} references; "
            f"expected one prediction for each reference, in the same order"
        )
    if not references:
        raise DatasetError("there is nothing to score; give at least one example")
