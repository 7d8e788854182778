"""Metrics as sums of per-example statistics.

Every metric here adds up statistics of single examples and turns the totals into a score. So the
score of any resample is a weighted sum, and a bootstrap is one matrix product (`intervals.py`).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from softhub.errors import DatasetError, TaskError, did_you_mean

Floats = NDArray[np.float64]


class Metric(ABC):
    """A score of predictions against references.

    Attributes:
        name: What task files call it.
        description: One sentence for cards and for `evaluate`.
        kinds: Kinds of task that it can judge.
    """

    name: str
    description: str
    kinds: tuple[str, ...]

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


class Accuracy(Metric):
    """Share of predictions that are the reference."""

    name = "accuracy"
    description = "Share of examples whose predicted label is right."
    kinds = ("classification",)

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> Floats:
        """Return `[N, 2]`: right or not, and 1."""
        pairs = zip(predictions, references, strict=True)
        return np.array([[self._right(*pair), 1.0] for pair in pairs], dtype=np.float64)

    def score(self, totals: Floats) -> Floats:
        """Return right answers over all answers."""
        return np.asarray(totals[..., 0] / totals[..., 1])

    def _right(self, prediction: str, reference: str) -> bool:
        return prediction == reference


class ExactMatch(Accuracy):
    """Share of generated texts that are the reference text, but for white space around them."""

    name = "exact_match"
    description = "Share of generated texts equal to the reference, white space around aside."
    kinds = ("generation",)

    def _right(self, prediction: str, reference: str) -> bool:
        return prediction.strip() == reference.strip()


class MacroF1(Metric):
    """Unweighted mean of the F1 of each label that is predicted or right somewhere."""

    name = "macro_f1"
    description = "Mean over the labels of the harmonic mean of precision and recall."
    kinds = ("classification",)

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> Floats:
        """Return `[N, 2L]` for L labels: rightly predicted (L), predicted plus right (L)."""
        labels = sorted({*predictions, *references})
        predicted = np.array([[item == label for label in labels] for item in predictions])
        right = np.array([[item == label for label in labels] for item in references])
        return np.hstack([predicted & right, predicted.astype(np.float64) + right])

    def score(self, totals: Floats) -> Floats:
        """Return the mean of F1 over the labels that occur in the totals."""
        both, either = np.split(totals, 2, axis=-1)
        occurs = either > 0
        f1 = 2 * both / np.where(occurs, either, 1)
        return np.asarray(f1.sum(axis=-1) / occurs.sum(axis=-1))


METRICS: Mapping[str, Metric] = MappingProxyType(
    {metric.name: metric for metric in (Accuracy(), MacroF1(), ExactMatch())}
)


def find_metric(name: str) -> Metric:
    """Return the metric of that name.

    Args:
        name: A key of `METRICS`.

    Raises:
        TaskError: If there is no such metric.
    """
    if name not in METRICS:
        raise TaskError(f"unknown metric {name!r}{did_you_mean(name, METRICS)}")
    return METRICS[name]


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


def compute(name: str, predictions: Sequence[str], references: Sequence[str]) -> float:
    """Score predictions with a metric, through `evaluate` and without a download.

    Args:
        name: A key of `METRICS`.
        predictions: N answers.
        references: N right answers.

    Raises:
        TaskError: If there is no such metric.
        DatasetError: If there is nothing to score, or the two differ in number.
    """
    metric = find_metric(name)
    check_pairs(predictions, references)
    # `evaluate` imports torch, which reading a task must not.
    from softhub.tasks.evaluate_metric import EvaluateMetric

    scores = EvaluateMetric(metric).compute(predictions=predictions, references=references)
    return float(scores[name])
