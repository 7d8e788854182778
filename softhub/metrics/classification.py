"""Metrics of predicted labels."""

from collections.abc import Sequence

import numpy as np

from softhub.metrics.base import Floats, Metric


class Accuracy(Metric):
    """Share of predictions that are the reference."""

    name = "accuracy"
    description = "Share of examples whose label is right, or all of whose labels are."
    kinds: tuple[str, ...] = ("classification", "multilabel")

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> Floats:
        """Return `[N, 2]`: right or not, and 1."""
        pairs = zip(predictions, references, strict=True)
        return np.array([[self._right(*pair), 1.0] for pair in pairs], dtype=np.float64)

    def score(self, totals: Floats) -> Floats:
        """Return right answers over all answers."""
        return np.asarray(totals[..., 0] / totals[..., 1])

    def _right(self, prediction: str, reference: str) -> bool:
        return prediction == reference


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
