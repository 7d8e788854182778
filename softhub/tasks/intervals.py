"""How far a score can be trusted: percentile bootstrap over groups, and over seeds.

Sentences of one review are not independent, so whole groups are drawn (cluster bootstrap; Davison &
Hinkley 1997, section 3.8). A difference between two trained systems is drawn over groups and seeds
at once, so that it speaks of new texts and new trainings.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softhub.errors import DatasetError, SoftHubWarning
from softhub.tasks.metrics import Floats, check_pairs, find_metric

LEVEL = 0.95
FEW_GROUPS = 10
_CELLS = 2**22  # of one block of resamples; bounds the memory to some 32 MB


class Interval(NamedTuple):
    """A value with its 95 % interval.

    Attributes:
        value: The value on all the data.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float


def bootstrap_interval(
    predictions: Sequence[str],
    references: Sequence[str],
    metric: str,
    groups: Sequence[str | None] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return a metric and its 95 % interval.

    Args:
        predictions: N answers.
        references: N right answers.
        metric: Name of the metric.
        groups: N group names, drawn whole; `None` stands for a group of one.
        resamples: Number of bootstrap samples.
        seed: Of the random draws.

    Raises:
        TaskError: If there is no such metric.
        DatasetError: If there is nothing to score, or the lengths differ.
    """
    judge = find_metric(metric)
    check_pairs(predictions, references)
    statistics = judge.statistics(predictions, references)
    totals = _sum_by_group(statistics, _group_indices(groups, len(references)))
    rng = np.random.default_rng(seed)
    scores = [judge.score(draws @ totals) for draws in _draws(len(totals), resamples, rng)]
    return _interval(float(judge.score(totals.sum(axis=0))), np.concatenate(scores))


def paired_difference(
    a_correct: ArrayLike,
    b_correct: ArrayLike,
    groups: Sequence[str | None] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return how much better A is than B on the same examples, with the 95 % interval.

    Groups are drawn once for both (paired); the seeds of A and of B are drawn each for itself,
    because they are different trainings. Few seeds understate their own spread: with S seeds by
    a factor of (S - 1) / S in its variance.

    Args:
        a_correct: Per-example scores of A, as 1 for right and 0 for wrong: `[N]`, or `[S, N]` of
            S seeds.
        b_correct: The same of B, `[N]` or `[S', N]`.
        groups: N group names, drawn whole; `None` stands for a group of one.
        resamples: Number of bootstrap samples.
        seed: Of the random draws.

    Raises:
        DatasetError: If there is nothing to compare, or the lengths differ.
    """
    a, b = _by_seed(a_correct), _by_seed(b_correct)
    size = a.shape[1]
    if size == 0 or b.shape[1] != size:
        raise DatasetError(
            f"A has scores of {size} examples and B of {b.shape[1]}; expected both on the same "
            f"examples, in the same order, and at least one"
        )
    index = _group_indices(groups, size)
    a_totals, b_totals = _sum_by_group(a.T, index), _sum_by_group(b.T, index)
    sizes = np.bincount(index).astype(np.float64)
    rng = np.random.default_rng(seed)
    differences = []
    for draws in _draws(len(sizes), resamples, rng):
        a_sums = (draws @ a_totals * _seed_weights(len(a), len(draws), rng)).sum(axis=1)
        b_sums = (draws @ b_totals * _seed_weights(len(b), len(draws), rng)).sum(axis=1)
        differences.append((a_sums - b_sums) / (draws @ sizes))
    return _interval(float(a.mean() - b.mean()), np.concatenate(differences))


def _by_seed(correct: ArrayLike) -> Floats:
    scores = np.atleast_2d(np.asarray(correct, dtype=np.float64))
    if scores.ndim != 2:
        raise DatasetError(f"scores have the shape {scores.shape}; expected [N], or [seeds, N]")
    return scores


def _group_indices(groups: Sequence[str | None] | None, size: int) -> NDArray[np.int64]:
    """Number the groups: `[N]` integers from 0 without gaps."""
    if groups is None:
        groups = [None] * size
    if len(groups) != size:
        raise DatasetError(f"{len(groups)} groups for {size} examples; expected one for each")
    keys = [index if group is None else group for index, group in enumerate(groups)]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    if len(numbers) < FEW_GROUPS:
        warnings.warn(
            f"an interval over {len(numbers)} independent groups is too narrow to be trusted; "
            f"expected at least {FEW_GROUPS}, so evaluate on more examples",
            SoftHubWarning,
            stacklevel=3,
        )
    return np.array([numbers[key] for key in keys], dtype=np.int64)


def _sum_by_group(statistics: Floats, index: NDArray[np.int64]) -> Floats:
    """Add rows `[N, K]` up to groups `[G, K]`."""
    totals = np.zeros((int(index.max()) + 1, statistics.shape[1]))
    np.add.at(totals, index, statistics)
    return totals


def _draws(groups: int, resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Yield blocks `[R, G]`: how often each group is in each resample."""
    block = max(1, _CELLS // groups)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(0, groups, size=(rows, groups))
        flat = (drawn + groups * np.arange(rows)[:, None]).ravel()
        counts = np.bincount(flat, minlength=rows * groups).reshape(rows, groups)
        yield counts.astype(np.float64)


def _seed_weights(seeds: int, rows: int, rng: np.random.Generator) -> Floats:
    """Return the share of each seed in each of the resamples, `[R, S]`."""
    return rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=rows) / seeds


def _interval(value: float, scores: Floats) -> Interval:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(scores, [tail, 1 - tail])
    return Interval(value, float(low), float(high))
