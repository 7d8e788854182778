"""Metrics of sets of labels; `accuracy`, the share of sets that are all right, is one too."""

from collections.abc import Sequence

import numpy as np

from softhub.metrics.base import Floats, Metric
from softhub.metrics.label_sets import split_labels


class MultilabelMacroF1(Metric):
    """Unweighted mean of the F1 of each label that is predicted or right somewhere."""

    name = "multilabel_macro_f1"
    description = "Mean over the labels of the F1 of giving that label; sets of labels."
    kinds = ("multilabel",)

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> Floats:
        """Return `[N, 2L]` for L labels: rightly given (L), given plus right (L)."""
        given, right = [
            [set(split_labels(t)) for t in texts] for texts in (predictions, references)
        ]
        labels = sorted(set().union(*given, *right))
        table = [
            [float(label in a and label in b) for label in labels]
            + [float((label in a) + (label in b)) for label in labels]
            for a, b in zip(given, right, strict=True)
        ]
        return np.array(table, dtype=np.float64).reshape(len(given), 2 * len(labels))

    def score(self, totals: Floats) -> Floats:
        """Return the mean of F1 over the labels that occur in the totals; 1 if none does."""
        both, either = np.split(totals, 2, axis=-1)
        occurs = either > 0
        f1 = 2 * both / np.where(occurs, either, 1)
        count = occurs.sum(axis=-1)
        return np.where(count > 0, f1.sum(axis=-1) / np.maximum(count, 1), 1.0)


class MultilabelMicroF1(MultilabelMacroF1):
    """F1 over all decisions of all labels."""

    name = "multilabel_micro_f1"
    description = "F1 over all labels that are given or right; sets of labels."

    def score(self, totals: Floats) -> Floats:
        """Return F1 of the summed decisions; 1 if no label is given and none is right."""
        both, either = (part.sum(axis=-1) for part in np.split(totals, 2, axis=-1))
        return np.where(either > 0, 2 * both / np.where(either > 0, either, 1), 1.0)
