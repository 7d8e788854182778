"""What a metric is: statistics of single examples, and a score of their totals."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from softhub.errors import DatasetError

Floats = NDArray[np.float64]


class Metric(ABC):
    """A score of predictions against references.

    Attributes:
        name: What task files call it.
        description: One sentence for cards and for `evaluate`.
        kinds: Kinds of task that it can judge.
        judges: What it takes as predictions: `answers` (labels or texts), `code` (the program that
            an answer makes) or `outcomes` (of running that program and its tests).
        title: Its usual name, where that is not `name` in words.
        greater_is_better: Whether a higher score is better.
        unit: `%` if scores are in [0, 1] and shown as percentages, else empty.
    """

    name: str
    description: str
    kinds: tuple[str, ...]
    judges: str = "answers"
    title: str = ""
    greater_is_better: bool = True
    unit: str = "%"

    @property
    def heading(self) -> str:
        """What tables call it."""
        return self.title or self.name.replace("_", " ")

    @abstractmethod
    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> Floats:
        """Return what each example adds to the totals.

        Args:
            predictions: N answers.
            references: N right answers.

        Returns:
            Array `[N, K]`; K depends on the metric and the labels.
        """

    @abstractmethod
    def score(self, totals: Floats) -> Floats:
        """Turn totals into scores.

        Args:
            totals: Sums (or weighted sums) of statistics, `[..., K]`.

        Returns:
            Scores `[...]`, of which more is better.
        """


def check_pairs(predictions: Sequence[str], references: Sequence[str]) -> None:
    """Refuse answers that cannot be scored.

    Args:
        predictions: N answers.
        references: N right answers.

    Raises:
        DatasetError: If there is nothing to score, or the two differ in number.
    """
    if len(predictions) != len(references):
        raise DatasetError(
            f"{len(predictions)} predictions and {len(references)} references; "
            f"expected one prediction for each reference, in the same order"
        )
    if not references:
        raise DatasetError("there is nothing to score; give at least one example")
