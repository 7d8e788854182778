"""Whether probabilities mean what they say, and how to make them: fitted on dev, judged on test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softhub.errors import DatasetError
from softhub.metrics import Floats

BINS = 15
_LOWEST, _HIGHEST = 0.05, 20.0  # of a temperature
_HALVINGS = 60


def fit_temperature(scores: ArrayLike, right: ArrayLike) -> float:
    """The temperature that makes the right labels most probable (Guo et al. 2017, 1706.04599).

    The likelihood is concave in 1 / temperature, so halving finds its maximum.

    Args:
        scores: Log-probabilities or logits, `[N, labels]`.
        right: Index of the right label of each row, `[N]`.

    Returns:
        A temperature between 0.05 and 20; 1 if every row is answered right, which says nothing
        about how sure to be.

    Raises:
        DatasetError: There are no rows.
    """
    logits, answers = np.asarray(scores, np.float64), np.asarray(right, np.int64)
    if not len(answers):
        raise DatasetError("there is nothing to calibrate on; give at least one dev example")
    if np.array_equal(logits.argmax(axis=1), answers):
        return 1.0
    wanted = np.take_along_axis(logits, answers[:, None], axis=1).sum()
    low, high = np.log(1 / _HIGHEST), np.log(1 / _LOWEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        expected = (_softmax(logits * np.exp(middle)) * logits).sum()
        low, high = (middle, high) if expected < wanted else (low, middle)
    return float(np.exp(-(low + high) / 2))


def expected_calibration_error(
    confidences: ArrayLike, correct: ArrayLike, bins: int = BINS
) -> float:
    """How far confidence is from accuracy, on average (Naeini et al. 2015).

    Args:
        confidences: Probability of each answer, `[N]`.
        correct: Whether it was right, `[N]`.
        bins: Number of equally wide bins of confidence; a bin takes its upper edge.

    Returns:
        Mean over the bins, by their size, of |accuracy - mean confidence|.

    Raises:
        DatasetError: There are no answers.
    """
    sure, right = np.asarray(confidences, np.float64), np.asarray(correct, np.float64)
    if not len(sure):
        raise DatasetError("there is nothing to measure calibration on; give at least one example")
    which = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(which, weights=right - sure, minlength=bins)
    return float(np.abs(gaps).sum() / len(sure))


@dataclass(frozen=True)
class Operating:
    """What abstaining below a confidence gives.

    Attributes:
        abstain_below: The confidence.
        coverage: Share of the texts that are answered.
        accuracy: Share of those that are answered right; None if none is answered.
    """

    abstain_below: float
    coverage: float
    accuracy: float | None

    def to_record(self) -> dict[str, float | None]:
        """Return plain JSON values."""
        return asdict(self)


def operating_point(confidences: ArrayLike, correct: ArrayLike, abstain_below: float) -> Operating:
    """Coverage and selective accuracy at one threshold (El-Yaniv & Wiener 2010).

    Args:
        confidences: Probability of each answer, `[N]`.
        correct: Whether it was right, `[N]`.
        abstain_below: The threshold.

    Raises:
        DatasetError: There are no answers.
    """
    answered = np.asarray(confidences, np.float64) >= abstain_below
    if not len(answered):
        raise DatasetError("there is nothing to measure; give at least one example")
    right = np.asarray(correct, bool)[answered]
    accuracy = float(right.mean()) if len(right) else None
    return Operating(abstain_below, float(answered.mean()), accuracy)


def operating_points(
    confidences: ArrayLike,
    correct: ArrayLike,
    thresholds: Sequence[float] = (0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99),
) -> tuple[Operating, ...]:
    """Coverage and selective accuracy at several thresholds."""
    return tuple(operating_point(confidences, correct, each) for each in thresholds)


def abstain_for(confidences: ArrayLike, correct: ArrayLike, accuracy: float) -> Operating | None:
    """The threshold that answers most texts at a wanted accuracy.

    Args:
        confidences: Probability of each answer, `[N]`.
        correct: Whether it was right, `[N]`.
        accuracy: The least share of answered texts that must be right.

    Returns:
        The point, or None if no threshold reaches that accuracy.
    """
    sure = np.asarray(confidences, np.float64)
    order = np.argsort(-sure, kind="stable")
    right = np.asarray(correct, np.float64)[order]
    share = right.cumsum() / np.arange(1, len(right) + 1)
    last = np.append(sure[order][1:] < sure[order][:-1], True)  # equals are answered together
    fine: NDArray[np.int64] = np.flatnonzero(last & (share >= accuracy))
    if not len(fine):
        return None
    everything = fine[-1] == len(right) - 1
    return operating_point(sure, correct, 0.0 if everything else float(sure[order][fine[-1]]))


def _softmax(logits: Floats) -> Floats:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))
