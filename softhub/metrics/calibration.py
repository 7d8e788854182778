"""Calibration of probabilities and abstention: fitted on dev, evaluated on test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softhub.errors import DatasetError
from softhub.metrics import Floats

BINS = 15
_LOWEST, _HIGHEST = 0.05, 20.0  # of a temperature
_BISECTIONS = 60


def fit_temperature(scores: ArrayLike, right: ArrayLike) -> float:
    """Return the temperature that maximizes the likelihood (Guo et al. 2017, arXiv 1706.04599).

    The log-likelihood is concave in 1 / temperature, so bisection of its slope finds the maximum.

    Args:
        scores: Log-probabilities or logits, `[N, L]`.
        right: Index of the correct label of each row, `[N]`.

    Returns:
        A temperature between 0.05 and 20; 1 if every row is predicted correctly, because then the
        likelihood has no maximum.

    Raises:
        DatasetError: There are no rows.
    """
    logits, answers = np.asarray(scores, np.float64), np.asarray(right, np.int64)  # [N, L], [N]
    if not len(answers):
        raise DatasetError("there is nothing to calibrate on; give at least one dev example")
    if np.array_equal(logits.argmax(axis=1), answers):
        return 1.0
    # At the maximum, the expected logit equals that of the correct label, summed over the rows.
    wanted = np.take_along_axis(logits, answers[:, None], axis=1).sum()
    low, high = np.log(1 / _HIGHEST), np.log(1 / _LOWEST)  # of the logarithm of 1 / temperature
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        expected = (_softmax(logits * np.exp(middle)) * logits).sum()
        low, high = (middle, high) if expected < wanted else (low, middle)
    return float(np.exp(-(low + high) / 2))


def expected_calibration_error(
    confidences: ArrayLike, correct: ArrayLike, bins: int = BINS
) -> float:
    """Return the mean gap between confidence and accuracy (Naeini et al. 2015).

    Args:
        confidences: Probability of each answer, `[N]`.
        correct: Whether it was correct, `[N]`.
        bins: Number of equally wide bins of confidence; a bin includes its upper edge.

    Returns:
        Mean over the bins, weighted by their size, of |accuracy - mean confidence|.

    Raises:
        DatasetError: There are no answers.
    """
    sure, right = np.asarray(confidences, np.float64), np.asarray(correct, np.float64)  # [N]
    if not len(sure):
        raise DatasetError("there is nothing to measure calibration on; give at least one example")
    which = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)  # [N], bin of each
    # The size of a bin times its gap is the sum of its differences, so sizes cancel.
    gaps = np.bincount(which, weights=right - sure, minlength=bins)  # [bins]
    return float(np.abs(gaps).sum() / len(sure))


@dataclass(frozen=True)
class OperatingPoint:
    """Coverage and accuracy with abstention below one confidence.

    Attributes:
        abstain_below: The confidence.
        coverage: Share of the texts that are answered.
        accuracy: Share of correct answers among them; None if none is answered.
    """

    abstain_below: float
    coverage: float
    accuracy: float | None

    def sentence(self) -> str:
        """Return a line for the terminal."""
        right = self.accuracy
        correctly = "" if right is None else f", {100 * right:.1f} % of them correctly"
        return (
            f"Abstention below a probability of {self.abstain_below:.3f}: "
            f"{100 * self.coverage:.1f} % of the texts are answered{correctly}."
        )

    def to_record(self) -> dict[str, float | None]:
        """Return plain JSON values."""
        return asdict(self)


def operating_point(
    confidences: ArrayLike, correct: ArrayLike, abstain_below: float
) -> OperatingPoint:
    """Return coverage and selective accuracy at one threshold (El-Yaniv & Wiener 2010).

    Args:
        confidences: Probability of each answer, `[N]`.
        correct: Whether it was correct, `[N]`.
        abstain_below: The threshold.

    Raises:
        DatasetError: There are no answers.
    """
    answered = np.asarray(confidences, np.float64) >= abstain_below  # [N]
    if not len(answered):
        raise DatasetError("there is nothing to measure; give at least one example")
    right = np.asarray(correct, bool)[answered]  # [answered]
    accuracy = float(right.mean()) if len(right) else None
    return OperatingPoint(abstain_below, float(answered.mean()), accuracy)


def operating_points(
    confidences: ArrayLike,
    correct: ArrayLike,
    thresholds: Sequence[float] = (0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99),
) -> tuple[OperatingPoint, ...]:
    """Return coverage and selective accuracy at several thresholds."""
    return tuple(operating_point(confidences, correct, each) for each in thresholds)


def threshold_for_accuracy(
    confidences: ArrayLike, correct: ArrayLike, accuracy: float
) -> OperatingPoint | None:
    """Return the threshold of greatest coverage that reaches an accuracy.

    Args:
        confidences: Probability of each answer, `[N]`.
        correct: Whether it was correct, `[N]`.
        accuracy: The least share of answered texts that must be correct.

    Returns:
        The operating point, or None if no threshold reaches that accuracy.
    """
    sure = np.asarray(confidences, np.float64)  # [N]
    order = np.argsort(-sure, kind="stable")
    right = np.asarray(correct, np.float64)[order]  # [N], most confident first
    # Accuracy if the first 1, 2, …, N answers are given.
    share = right.cumsum() / np.arange(1, len(right) + 1)  # [N]
    # A threshold cannot separate equal confidences: only the last of them is a candidate.
    last = np.append(sure[order][1:] < sure[order][:-1], True)  # [N]
    reached: NDArray[np.int64] = np.flatnonzero(last & (share >= accuracy))
    if not len(reached):
        return None
    everything = reached[-1] == len(right) - 1
    return operating_point(sure, correct, 0.0 if everything else float(sure[order][reached[-1]]))


def _softmax(logits: Floats) -> Floats:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))  # [N, L]
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))
