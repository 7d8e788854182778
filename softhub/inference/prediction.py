"""The prediction for one text: probabilities of labels, and an answer or an abstention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from softhub.metrics.label_sets import join_labels
from softhub.model.encoding import Candidates
from softhub.tasks.decision import Decision


@dataclass(frozen=True, repr=False)
class Prediction:
    """Prediction for one text.

    Attributes:
        best: The most probable label; for a multi-label task all that apply, joined by `;`.
        probabilities: Probability of each label, in the verbalizer's order. They sum to 1; for a
            multi-label task each is that of a separate decision.
        scores: Log-probability of each label's words given the text, or the log-odds for a
            multi-label task, before probability calibration.
        abstained: Whether the confidence is too low for an answer.
        labels: The labels that apply, for a multi-label task; otherwise None.
    """

    best: str
    probabilities: Mapping[str, float]
    scores: Mapping[str, float]
    abstained: bool = False
    labels: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        """Return the answer with its confidence, then the probabilities of all labels."""
        shown = {label: round(value, 4) for label, value in self.probabilities.items()}
        return (
            f"Prediction(label={self.label!r}, confidence={self.confidence:.4f}, "
            f"probabilities={shown})"
        )

    @property
    def label(self) -> str | None:
        """The answer: `best`, or None if the prompt abstains."""
        return None if self.abstained else self.best

    @property
    def confidence(self) -> float:
        """Probability of the answer; of its least certain decision for a multi-label task."""
        if self.labels is None:
            return self.probabilities[self.best]
        return min(p if label in self.labels else 1 - p for label, p in self.probabilities.items())


def decide(candidates: Candidates, scores: Sequence[float], decision: Decision) -> Prediction:
    """Convert the scores of a text's labels to a prediction.

    Args:
        candidates: The labels.
        scores: One for each label, from `label_scores`.
        decision: Temperature, threshold, and when to abstain.
    """
    scaled = torch.tensor(scores, dtype=torch.float64) / decision.temperature  # [labels]
    chances = scaled.sigmoid() if candidates.yes_no else scaled.softmax(dim=0)
    names = candidates.labels
    probabilities = dict(zip(names, chances.tolist(), strict=True))
    own = dict(zip(names, scores, strict=True))
    return answered(probabilities, own, decision, multilabel=candidates.yes_no)


def answered(
    probabilities: Mapping[str, float],
    scores: Mapping[str, float],
    decision: Decision,
    *,
    multilabel: bool,
) -> Prediction:
    """Convert probabilities of labels to a prediction.

    Args:
        probabilities: Probability of each label.
        scores: Score of each label; it decides between labels of equal probability.
        decision: Threshold, and when to abstain; its temperature is not used.
        multilabel: Whether each label is a separate decision.
    """
    names, labels = tuple(probabilities), None
    if multilabel:
        labels = tuple(name for name in names if probabilities[name] >= decision.threshold)
        best = join_labels(labels, names)
    else:
        best = max(names, key=lambda name: (probabilities[name], scores[name]))
    prediction = Prediction(best, probabilities, scores, labels=labels)
    return replace(prediction, abstained=prediction.confidence < decision.abstain_below)
