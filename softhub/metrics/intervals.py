"""Confidence intervals of scores: percentile bootstrap over groups and over seeds.

Sentences of one review are not independent, so whole groups are resampled (cluster bootstrap;
Davison & Hinkley 1997, section 3.8). The difference of two trained systems is resampled over groups
and seeds together, so that it generalizes to new texts and new training runs.

A bootstrap only draws what it was given: 20 of 20 right would be 1 in every resample. So where
fewer than ten groups differ from the others, an interval also reaches at least as far as a kind of
group that was not seen could move the score. If none of G groups is of that kind, its share of all
groups may still be z² / (G + z²): the upper end of the score interval of Wilson (1927, JASA 22:209)
for 0 of G, and of that of Tango (1998, Statistics in Medicine 17:891) for two systems that agree on
all G.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softhub.errors import DatasetError, SoftHubWarning
from softhub.metrics import Floats, check_pairs, find_metric

LEVEL = 0.95
FEW_GROUPS = 10
_TAIL = (1 - LEVEL) / 2
_Z = NormalDist().inv_cdf(1 - _TAIL)
_CELLS = 2**22  # of one block of resamples; limits its memory to about 32 MB


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


@dataclass(frozen=True, eq=False)
class Resampled:
    """A score on all the data and in each resample.

    Attributes:
        value: The score on all the data; the mean of the runs, if there are several.
        samples: The score in each resample, `[R]`.
        by_group: The score of each group alone, `[G]`; NaN if it is undefined.
        least: The score if the groups that may not have been seen scored as low as possible;
            the value itself for a metric without bounds.
        greatest: The same if they scored as high as possible.
    """

    value: float
    samples: Floats
    by_group: Floats
    least: float
    greatest: float

    def interval(self) -> Interval:
        """Return the value with its 95 % interval; undefined resamples do not count."""
        low, high = np.quantile(self.samples[~np.isnan(self.samples)], [_TAIL, 1 - _TAIL])
        defined = self.by_group[np.isfinite(self.by_group)].round(9)
        alike = np.unique(defined, return_counts=True)[1]
        if len(defined) - max(alike, default=0) < FEW_GROUPS:
            low, high = min(low, self.least), max(high, self.greatest)
        return Interval(self.value, float(low), float(high))

    def __sub__(self, other: Resampled) -> Resampled:
        """Return the difference, which is paired if both come from the same `Resamples`."""
        return Resampled(
            self.value - other.value,
            self.samples - other.samples,
            self.by_group - other.by_group,
            self.least - other.greatest,
            self.greatest - other.least,
        )


class Resamples:
    """Scores of several systems on the same resamples of the same examples.

    Groups are drawn once for all systems, so that differences are paired. The runs (seeds) of each
    system are drawn independently, because they are different training runs. A few runs
    underestimate their spread: S runs by a factor of (S - 1) / S in its variance.

    Args:
        size: Number of examples, N.
        groups: N group names; a group is drawn as a unit, and `None` is a group of one.
        resamples: Number of bootstrap samples, R.
        seed: Seed of the random draws.

    Raises:
        DatasetError: There is nothing to score, or the lengths differ.
    """

    def __init__(
        self,
        size: int,
        groups: Sequence[str | None] | None = None,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        if size < 1:
            raise DatasetError("there is nothing to score; give at least one example")
        self._index = _group_indices(groups, size)
        self._groups = int(self._index.max()) + 1
        self._resamples, self._seed, self._systems = resamples, seed, 0

    def score(
        self,
        runs: Sequence[Sequence[Any]],
        references: Sequence[str],
        metric: str,
        system: str | None = None,
    ) -> Resampled:
        """Score a system's predictions.

        Args:
            runs: The N predictions of each of its runs, of the metric's `input_kind`.
            references: N correct answers.
            metric: Name of the metric.
            system: Name of the system, see `resample`.

        Raises:
            TaskError: There is no such metric.
            DatasetError: There is nothing to score, or the lengths differ.
        """
        found = find_metric(metric)
        for predictions in runs:
            check_pairs(predictions, references)
        statistics = [found.statistics(run, references) for run in runs]
        return self.resample(statistics, found.score, bounds=found.bounds, system=system)

    def mean(self, values: ArrayLike) -> Resampled:
        """Resample the mean of per-example values from 0 to 1, `[N]` or `[S, N]` of S runs."""
        runs = [np.stack([run, np.ones(len(run))], axis=1) for run in _by_run(values)]  # [N, 2]
        return self.resample(
            runs, lambda totals: np.asarray(totals[..., 0] / totals[..., 1]), bounds=(0, 1)
        )

    def resample(
        self,
        runs: Sequence[Floats],
        score: Callable[[Floats], Floats],
        *,
        bounds: tuple[float, float] | None,
        system: str | None = None,
    ) -> Resampled:
        """Score a system by sums of per-example statistics.

        Args:
            runs: Statistics `[N, K]` of each of its S runs; K may differ between runs.
            score: Turns totals `[..., K]` into scores `[...]`; NaN where a score is undefined.
            bounds: The lowest and the highest score that there can be; None if there is none.
            system: Name of the system. The draws of its runs follow from the name, so that its
                interval stays the same whichever other systems are scored; without a name they
                follow from its place among the systems.
        """
        totals = [_sum_by_group(statistics, self._index) for statistics in runs]  # [G, K] each
        draws_of_groups = np.random.default_rng(self._seed)
        key = self._systems if system is None else zlib.crc32(system.encode())
        draws_of_runs = np.random.default_rng([self._seed, key])
        self._systems += 1
        samples = []
        for draws in _draws(self._groups, self._resamples, draws_of_groups):
            # [R, G] @ [G, K] gives the totals of R resamples, and these one score for each run.
            scores = np.stack([score(draws @ of_run) for of_run in totals], axis=1)  # [R, S]
            weights = _run_weights(len(runs), len(draws), draws_of_runs)  # [R, S]
            samples.append((scores * weights).sum(axis=1))  # [R]
        value = float(np.mean([score(of_run.sum(axis=0)) for of_run in totals]))
        with np.errstate(divide="ignore", invalid="ignore"):
            by_group = np.mean([score(of_run) for of_run in totals], axis=0)  # [G]
        unseen = _Z**2 / (np.isfinite(by_group).sum() + _Z**2)  # share of a kind not seen
        bounds = bounds or (value, value)
        least, greatest = ((1 - unseen) * value + unseen * bound for bound in bounds)
        return Resampled(value, np.concatenate(samples), by_group, least, greatest)


def bootstrap_interval(
    predictions: Sequence[Any],
    references: Sequence[str],
    metric: str,
    groups: Sequence[str | None] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return a metric and its 95 % interval.

    Args:
        predictions: N predictions of the metric's `input_kind`.
        references: N correct answers.
        metric: Name of the metric.
        groups: N group names; a group is drawn as a unit, and `None` is a group of one.
        resamples: Number of bootstrap samples.
        seed: Seed of the random draws.

    Raises:
        TaskError: There is no such metric.
        DatasetError: There is nothing to score, or the lengths differ.
    """
    find_metric(metric)
    check_pairs(predictions, references)
    draws = Resamples(len(references), groups, resamples, seed)
    return draws.score([predictions], references, metric).interval()


def paired_difference(
    a_correct: ArrayLike,
    b_correct: ArrayLike,
    groups: Sequence[str | None] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return the score of A minus that of B on the same examples, with the 95 % interval.

    Groups are drawn once for both (paired), the seeds of A and B independently; see `Resamples`.

    Args:
        a_correct: Per-example scores of A from 0 to 1, such as 1 if correct and 0 if wrong: `[N]`,
            or `[S, N]` of S seeds.
        b_correct: The same of B, `[N]` or `[S', N]`.
        groups: N group names; a group is drawn as a unit, and `None` is a group of one.
        resamples: Number of bootstrap samples.
        seed: Seed of the random draws.

    Raises:
        DatasetError: There is nothing to compare, or the lengths differ.
    """
    a, b = _by_run(a_correct), _by_run(b_correct)  # [S, N], [S', N]
    size = a.shape[1]
    if size == 0 or b.shape[1] != size:
        raise DatasetError(
            f"A has scores of {size} examples and B of {b.shape[1]}; expected scores of the same "
            f"examples in the same order, and at least one"
        )
    draws = Resamples(size, groups, resamples, seed)
    return (draws.mean(a) - draws.mean(b)).interval()


def _by_run(correct: ArrayLike) -> Floats:
    """Return scores `[S, N]`."""
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
            f"an interval over {len(numbers)} independent groups is only a rough estimate; "
            f"evaluate on at least {FEW_GROUPS} groups",
            SoftHubWarning,
            stacklevel=4,
        )
    return np.array([numbers[key] for key in keys], dtype=np.int64)


def _sum_by_group(statistics: Floats, index: NDArray[np.int64]) -> Floats:
    """Sum rows `[N, K]` by group, `[G, K]`."""
    totals = np.zeros((int(index.max()) + 1, statistics.shape[1]))
    np.add.at(totals, index, statistics)
    return totals


def _draws(groups: int, resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Yield blocks `[R, G]` of the number of times that each resample contains each group."""
    block = max(1, _CELLS // groups)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(0, groups, size=(rows, groups))  # [R, G], a group in each place
        # Count all rows in one call: row r has the numbers from G r on.
        flat = (drawn + groups * np.arange(rows)[:, None]).ravel()  # [R * G]
        counts = np.bincount(flat, minlength=rows * groups).reshape(rows, groups)
        yield counts.astype(np.float64)


def _run_weights(runs: int, rows: int, rng: np.random.Generator) -> Floats:
    """Return the weight of each run in each resample, `[R, S]`."""
    return rng.multinomial(runs, np.full(runs, 1 / runs), size=rows) / runs
