"""Metrics of predicted labels."""

from collections.abc import Sequence

import numpy as np

from softhub.metrics.base import Floats, Metric


class Accuracy(Metric):
    """Share of predictions that equal the reference."""

    name = "accuracy"
    description = "Share of examples with the right label, or with exactly the right set of labels."
    kinds: tuple[str, ...] = ("classification", "multilabel")

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> Floats:
        """Return `[N, 2]`: 1 if right, else 0; and 1."""
        pairs = zip(predictions, references, strict=True)
        return np.array([[self._right(*pair), 1.0] for pair in pairs], dtype=np.float64)

    def score(self, totals: Floats) -> Floats:
        """Return the share of right answers."""
        return np.asarray(totals[..., 0] / totals[..., 1])

    def _right(self, prediction: str, reference: str) -> bool:
        return prediction == reference


class MacroF1(Metric):
    """Unweighted mean of the F1 scores of all labels that occur in predictions or references."""

    name = "macro_f1"
    description = "Unweighted mean of the F1 scores of the labels."
    kinds = ("classification",)

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> Floats:
        """Return `[N, 2L]` for L labels: true positives (L), predicted plus actual (L)."""
        labels = sorted({*predictions, *references})
        predicted = np.array([[item == label for label in labels] for item in predictions])
        right = np.array([[item == label for label in labels] for item in references])
        return np.hstack([predicted & right, predicted.astype(np.float64) + right])

    def score(self, totals: Floats) -> Floats:
        """Return the mean F1 of the labels that occur in the totals."""
        both, either = np.split(totals, 2, axis=-1)  # [..., L] each
        occurs = either > 0  # [..., L]
        f1 = 2 * both / np.where(occurs, either, 1)  # [..., L]
        return np.asarray(f1.sum(axis=-1) / occurs.sum(axis=-1))
