"""Summary of a comparison: a line for each method, with intervals and paired differences.

Intervals are bootstraps over groups of test examples crossed with the runs (seeds) of a method, so
they cover both new texts and new training runs. All methods share the resampled groups.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any, Literal

from softhub.errors import DatasetError, TaskError
from softhub.experiments.comparison.method_names import (
    FINE_TUNING,
    METHODS,
    RATE_SEARCHED,
    SOFT_PROMPT,
    method_family,
)
from softhub.experiments.comparison.store import ComparedRow
from softhub.metrics import find_metric
from softhub.metrics.code import PASSED
from softhub.metrics.intervals import Interval, Resampled, Resamples

DEFAULT_SETTING = "P = 20"
Size = Literal["trainable_parameters", "bytes", "prompt_tokens"]
Cost = Size | Literal["train_seconds", "predict_seconds"]
_SIZES: tuple[Size, ...] = ("trainable_parameters", "bytes", "prompt_tokens")


@dataclass(frozen=True)
class Line:
    """One method with one setting, over all its runs.

    Attributes:
        method: Name in tables.
        setting: What varies within the method, e.g. `"P = 20"`, or empty.
        rows: Its runs, by seed.
        samples: Mean score over the runs by each metric, with its bootstrap samples.
    """

    method: str
    setting: str
    rows: tuple[ComparedRow, ...]
    samples: Mapping[str, Resampled]

    @property
    def name(self) -> str:
        """Method and setting."""
        return f"{self.method}, {self.setting}" if self.setting else self.method

    @cached_property
    def scores(self) -> Mapping[str, Interval]:
        """Mean score over the runs by each metric, with its 95 % interval."""
        return {name: samples.interval() for name, samples in self.samples.items()}

    @property
    def seeds(self) -> int:
        """Number of runs."""
        return len(self.rows)

    def mean(self, cost: Cost) -> float:
        """Return the mean of a cost over the runs."""
        return fmean(getattr(row, cost) for row in self.rows)


@dataclass(frozen=True)
class Summary:
    """The results of a comparison.

    Attributes:
        table: One line for each method and setting, in the order of tables.
        references: Reference answer of each test example.
        groups: Number of groups of test examples; None if they are ungrouped.
    """

    table: tuple[Line, ...]
    references: tuple[str, ...]
    groups: int | None

    @property
    def metric(self) -> str:
        """Name of the main metric."""
        return next(iter(self.table[0].samples))

    @property
    def heading(self) -> str:
        """Name of the main metric with its unit: `accuracy, %`."""
        return find_metric(self.metric).heading_with_unit

    @property
    def scale(self) -> int:
        """Factor from values of the main metric to displayed values: 100 for percentages."""
        return find_metric(self.metric).scale

    @property
    def soft_prompt(self) -> Line | None:
        """The soft prompt to which methods are compared: of the default or else middle length."""
        soft = [line for line in self.table if line.method == SOFT_PROMPT]
        default = [line for line in soft if line.setting == DEFAULT_SETTING]
        return next(iter(default or soft[(len(soft) - 1) // 2 :]), None)

    @property
    def fine_tuning(self) -> Line | None:
        """Full fine-tuning, if it was run; with a searched learning rate, if there is that."""
        found = [line for line in self.table if line.method == FINE_TUNING]
        searched = [line for line in found if RATE_SEARCHED in line.setting]
        return next(iter(searched or found), None)

    def first(self, method: str) -> Line | None:
        """Return the first line of a method, None if it was not run."""
        return next((line for line in self.table if line.method == method), None)

    @property
    def anchors(self) -> list[Line]:
        """The lines to which all others are compared: soft prompt and fine-tuning, if run."""
        return [line for line in (self.soft_prompt, self.fine_tuning) if line is not None]

    def score(self, line: Line) -> Interval:
        """Return a line's score by the main metric."""
        return line.scores[self.metric]

    def difference(self, line: Line, anchor: Line | None) -> Interval | None:
        """Return a line's score minus an anchor's, paired; None without the anchor or for itself.

        Args:
            line: A line of the table.
            anchor: One of `anchors`.
        """
        if anchor is None or line is anchor:
            return None
        return (line.samples[self.metric] - anchor.samples[self.metric]).interval()

    def to_record(self) -> dict[str, Any]:
        """Return every figure as plain JSON values."""
        soft = self.soft_prompt
        return {
            "metric": self.metric,
            "test_examples": len(self.references),
            "test_groups": self.groups,
            "soft_prompt_of_differences": soft.name if soft else None,
            "lines": [self._line_record(line) for line in self.table],
        }

    def _line_record(self, line: Line) -> dict[str, Any]:
        return {
            "method": line.method,
            "setting": line.setting,
            "seeds": [row.seed for row in line.rows],
            "scores": {name: _rounded(score) for name, score in line.scores.items()},
            "score_of_each_seed": [dict(row.metrics) for row in line.rows],
            "minus_soft_prompt": _rounded(self.difference(line, self.soft_prompt)),
            "minus_full_fine_tuning": _rounded(self.difference(line, self.fine_tuning)),
            **{cost: round(line.mean(cost)) for cost in _SIZES},
            "train_seconds": round(line.mean("train_seconds"), 1),
            "milliseconds_per_example": round(1000 * line.mean("predict_seconds"), 2),
            "steps": [row.steps for row in line.rows],
            "best_step": [row.best_step for row in line.rows],
        }


def summarize(
    rows: Sequence[ComparedRow],
    references: Sequence[str],
    groups: Sequence[str | None] | None,
    *,
    resamples: int = 2000,
) -> Summary:
    """Summarize a comparison.

    Args:
        rows: The rows, in any order. The first metric of each is the main one.
        references: Reference answer of each test example, N.
        groups: N names of groups, which are resampled as units, or None.
        resamples: Number of bootstrap samples.

    Returns:
        The summary.

    Raises:
        DatasetError: There is no row, or one does not answer the test examples.
        TaskError: A metric is unknown, or the rows lack what all of the metrics evaluate.
    """
    runs = _by_line(rows, len(references))
    draws = Resamples(len(references), groups, resamples)
    metrics = _metrics(rows)
    table = tuple(
        Line(
            *key,
            of_key,
            {
                metric: draws.score(*_judged(of_key, references, metric), metric, ", ".join(key))
                for metric in metrics
            },
        )
        for key, of_key in runs.items()
    )
    known = {group for group in groups or () if group is not None}
    return Summary(table, tuple(references), len(known) or None)


_Key = tuple[str, str]


def _by_line(rows: Sequence[ComparedRow], size: int) -> dict[_Key, tuple[ComparedRow, ...]]:
    if not rows:
        raise DatasetError("There are no rows to compare; run softhub compare first.")
    runs: dict[_Key, list[ComparedRow]] = defaultdict(list)
    for row in rows:
        if len(row.predictions) != size:
            raise DatasetError(
                f"{' '.join(map(str, row.key))} has {len(row.predictions)} predictions for {size} "
                f"test examples; expected one for each. Run it again in another output_dir."
            )
        runs[row.method, row.setting].append(row)
    return {key: tuple(sorted(runs[key], key=_seed)) for key in sorted(runs, key=_rank)}


def _metrics(rows: Sequence[ComparedRow]) -> list[str]:
    """Return the metrics for which every row has what they evaluate."""
    kinds = set.intersection(*({"answers", *row.judged} for row in rows))
    metrics = [name for name in rows[0].metrics if find_metric(name).input_kind in kinds]
    if not metrics:
        raise TaskError(
            f"The metrics are {', '.join(rows[0].metrics)}, and some rows lack what these evaluate "
            "(the generated programs). Run softhub compare again in another output_dir."
        )
    return metrics


def _judged(
    rows: Sequence[ComparedRow], references: Sequence[str], metric: str
) -> tuple[list[list[str]], Sequence[str]]:
    """Return the inputs of a metric in each of the runs, and its references."""
    kind = find_metric(metric).input_kind
    if kind == "answers":
        return [row.predictions for row in rows], references
    expected = [PASSED] * len(references) if kind == "outcomes" else references
    return [row.judged[kind] for row in rows], expected


def _seed(row: ComparedRow) -> int:
    return -1 if row.seed is None else row.seed


def _rank(key: _Key) -> tuple[int, list[int], _Key]:
    """Return the place in a table: by the order of methods, then by the numbers in the name."""
    method, setting = key
    family = method_family(method)
    place = METHODS.index(family) if family in METHODS else len(METHODS)
    return place, [int(digits) for digits in re.findall(r"\d+", method + setting)], key


def _rounded(interval: Interval | None) -> dict[str, float] | None:
    if interval is None:
        return None
    return {name: round(value, 5) for name, value in interval._asdict().items()}
