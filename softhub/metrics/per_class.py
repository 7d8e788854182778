"""Per-class metrics: precision, recall and F1 with intervals, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from softhub.metrics import Floats, check_pairs
from softhub.metrics.intervals import Interval, Resamples
from softhub.metrics.label_sets import split_labels


@dataclass(frozen=True)
class ClassScores:
    """Scores of one label.

    Attributes:
        label: The label.
        precision: Share of correct predictions among all predictions of the label; 0 without any.
        recall: Share of the label's examples for which it was predicted; 0 without any.
        f1: Harmonic mean of the two.
        support: Number of examples with the label.
        predicted: Number of predictions of the label.
    """

    label: str
    precision: Interval
    recall: Interval
    f1: Interval
    support: int
    predicted: int


@dataclass(frozen=True)
class ClassReport:
    """Scores of every label.

    Attributes:
        classes: The labels, in the verbalizer's order.
        confusion: Number of examples by true label (row) and predicted label (column); None for
            multi-label tasks, in which labels do not exclude one another.
    """

    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...] | None

    def to_record(self) -> dict[str, Any]:
        """Return plain JSON values."""
        scores = ("precision", "recall", "f1")
        classes = [
            asdict(each) | {name: getattr(each, name)._asdict() for name in scores}
            for each in self.classes
        ]
        return {"classes": classes, "confusion": self.confusion}


def class_report(
    predictions: Sequence[str],
    references: Sequence[str],
    labels: Sequence[str],
    *,
    multilabel: bool = False,
    groups: Sequence[str | None] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> ClassReport:
    """Score every label.

    Args:
        predictions: N labels, or sets of labels.
        references: N correct labels, or sets of labels.
        labels: All labels, in order.
        multilabel: Whether predictions and references are sets of labels joined by `;`.
        groups: N group names; a group is drawn as a unit, and `None` is a group of one.
        resamples: Number of bootstrap samples. Those in which a score is undefined, because no
            example of a label was drawn, do not count for its interval.
        seed: Seed of the random draws.

    Raises:
        DatasetError: There is nothing to score, or the lengths differ.
    """
    check_pairs(predictions, references)
    given = _table(predictions, labels, multilabel)  # [N, L]
    right = _table(references, labels, multilabel)  # [N, L]
    draws = Resamples(len(references), groups, resamples, seed)
    classes = []
    for column, label in enumerate(labels):
        g, r = given[:, column], right[:, column]  # [N]
        both = g * r
        ratios = ((both, g), (both, r), (2 * both, g + r))
        precision, recall, f1 = (_interval(draws, parts, whole) for parts, whole in ratios)
        classes.append(ClassScores(label, precision, recall, f1, int(r.sum()), int(g.sum())))
    counts = (right.T @ given).astype(int)  # [L, L]
    confusion = None if multilabel else tuple(map(tuple, counts.tolist()))
    return ClassReport(tuple(classes), confusion)


def _table(answers: Sequence[str], labels: Sequence[str], multilabel: bool) -> Floats:
    """Return which labels each answer has, `[N, L]`, 0 or 1."""
    sets = [set(split_labels(answer)) if multilabel else {answer} for answer in answers]
    return np.array([[float(label in each) for label in labels] for each in sets])


def _interval(draws: Resamples, parts: Floats, whole: Floats) -> Interval:
    """Return the ratio of two sums over the texts, `[N]` each; 0 (0 to 1) if it is undefined."""
    found = draws.resample([np.stack([parts, whole], axis=1)], _ratio, bounds=(0, 1))
    return found.interval() if np.isfinite(found.value) else Interval(0.0, 0.0, 1.0)


def _ratio(totals: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(totals[..., 0] / totals[..., 1])
