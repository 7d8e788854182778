"""Metrics of predicted labels, and of sets of labels in multi-label classification."""

from collections.abc import Sequence

import numpy as np

from softhub.metrics.base import Floats, Metric
from softhub.metrics.label_sets import split_labels


class Accuracy(Metric):
    """Share of predictions that equal the reference."""

    name = "accuracy"
    description = "Share of examples with the correct label, or exactly the correct set of labels."
    kinds: tuple[str, ...] = ("classification", "multilabel")

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> Floats:
        """Return `[N, 2]`: 1 if correct, else 0; and 1."""
        pairs = zip(predictions, references, strict=True)
        return np.array([[self._right(*pair), 1.0] for pair in pairs], dtype=np.float64)

    def score(self, totals: Floats) -> Floats:
        """Return the share of correct answers."""
        return np.asarray(totals[..., 0] / totals[..., 1])

    def _right(self, prediction: str, reference: str) -> bool:
        return prediction == reference


class MacroF1(Metric):
    """Unweighted mean of the F1 scores of all labels that occur in predictions or references."""

    name = "macro_f1"
    description = "Unweighted mean of the F1 scores of the labels."
    kinds: tuple[str, ...] = ("classification",)

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> Floats:
        """Return `[N, 2L]` for L labels: true positives (L), predicted plus actual (L)."""
        predicted = [self._labels(text) for text in predictions]
        right = [self._labels(text) for text in references]
        labels = sorted(set().union(*predicted, *right))
        table = [
            [float(label in a and label in b) for label in labels]
            + [float((label in a) + (label in b)) for label in labels]
            for a, b in zip(predicted, right, strict=True)
        ]
        return np.array(table, dtype=np.float64).reshape(len(predicted), 2 * len(labels))

    def score(self, totals: Floats) -> Floats:
        """Return the mean F1 of the labels that occur in the totals; 1 if none does."""
        both, either = np.split(totals, 2, axis=-1)  # [..., L] each
        f1 = 2 * both / np.where(either > 0, either, 1)  # [..., L]
        count = (either > 0).sum(axis=-1)  # [...]
        return np.where(count > 0, f1.sum(axis=-1) / np.maximum(count, 1), 1.0)

    def _labels(self, text: str) -> set[str]:
        return {text}


class MultilabelMacroF1(MacroF1):
    """Macro F1 of sets of labels."""

    name = "multilabel_macro_f1"
    description = "Unweighted mean of the F1 scores of the labels, for sets of labels."
    kinds = ("multilabel",)

    def _labels(self, text: str) -> set[str]:
        return set(split_labels(text))


class MultilabelMicroF1(MultilabelMacroF1):
    """F1 over all decisions about all labels."""

    name = "multilabel_micro_f1"
    description = "F1 over all labels of all examples, for sets of labels."

    def score(self, totals: Floats) -> Floats:
        """Return the F1 of the summed decisions; 1 if there is no label at all."""
        both, either = (part.sum(axis=-1) for part in np.split(totals, 2, axis=-1))  # [...]
        return np.where(either > 0, 2 * both / np.where(either > 0, either, 1), 1.0)
