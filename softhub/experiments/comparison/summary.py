"""Rows of a comparison summed up: one line for each method, with intervals and paired differences.

Intervals are bootstraps over groups of test examples crossed with the runs (seeds) of a method, so
they speak of new texts and of new trainings. All methods share the resampled groups.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from softhub.errors import DatasetError, TaskError
from softhub.experiments.comparison.store import ComparedRow
from softhub.metrics import find_metric
from softhub.metrics.code import PASSED
from softhub.metrics.intervals import Interval, Resampled, Resamples

SOFT_PROMPT, FINE_TUNING, MAJORITY = "soft prompt", "full fine-tuning", "majority label"
FEW_SHOT = "few-shot"
DEFAULT_SETTING = "P = 20"
_ORDER = (
    MAJORITY,
    "zero-shot",
    "zero-shot, bias-corrected",
    FEW_SHOT,
    SOFT_PROMPT,
    "soft-prompt ensemble",
    "LoRA",
    FINE_TUNING,
)


@dataclass(frozen=True)
class Line:
    """One method with one setting, over all its runs.

    Attributes:
        method: What tables call it.
        setting: What varies within the method, e.g. `"P = 20"`, or empty.
        rows: Its runs, by seed.
        scores: For each metric the mean over the runs, with its 95 % interval.
        to_soft_prompt: Difference to the default soft prompt in the main metric; None for that
            one itself, or if it was left out.
        to_fine_tuning: The same to full fine-tuning.
    """

    method: str
    setting: str
    rows: tuple[ComparedRow, ...]
    scores: Mapping[str, Interval]
    to_soft_prompt: Interval | None
    to_fine_tuning: Interval | None

    @property
    def name(self) -> str:
        """Method and setting."""
        return f"{self.method}, {self.setting}" if self.setting else self.method

    @property
    def seeds(self) -> int:
        """Number of runs."""
        return len(self.rows)

    @property
    def virtual_tokens(self) -> int:
        """P of a soft prompt, else 0."""
        found = re.fullmatch(r"P = (\d+)", self.setting)
        return int(found[1]) if found and self.method == SOFT_PROMPT else 0

    @property
    def is_hard_prompt(self) -> bool:
        """Whether it is the bare base with words before the text."""
        return self.method.startswith("zero-shot") or method_family(self.method) == FEW_SHOT

    @property
    def trainable_parameters(self) -> int:
        """Numbers that training changed."""
        return round(fmean(row.trainable_parameters for row in self.rows))

    @property
    def bytes(self) -> int:
        """What is stored and shipped for the task beside the base; the mean of the runs."""
        return round(fmean(row.bytes for row in self.rows))

    @property
    def prompt_tokens(self) -> int:
        """Tokens that each request carries beside its text; the mean of the runs."""
        return round(fmean(row.prompt_tokens for row in self.rows))

    @property
    def train_seconds(self) -> float:
        """Wall time of training; the mean of the runs."""
        return fmean(row.train_seconds for row in self.rows)

    @property
    def predict_seconds(self) -> float:
        """Wall time per test example; the mean of the runs."""
        return fmean(row.predict_seconds for row in self.rows)

    def to_record(self) -> dict[str, Any]:
        """The line for JSON."""
        return {
            "method": self.method,
            "setting": self.setting,
            "seeds": [row.seed for row in self.rows],
            "scores": {name: _interval(score) for name, score in self.scores.items()},
            "score_of_each_seed": [dict(row.metrics) for row in self.rows],
            "minus_soft_prompt": _interval(self.to_soft_prompt),
            "minus_full_fine_tuning": _interval(self.to_fine_tuning),
            "trainable_parameters": self.trainable_parameters,
            "bytes": self.bytes,
            "prompt_tokens": self.prompt_tokens,
            "train_seconds": round(self.train_seconds, 1),
            "milliseconds_per_example": round(1000 * self.predict_seconds, 2),
            "steps": [row.steps for row in self.rows],
            "best_step": [row.best_step for row in self.rows],
        }


@dataclass(frozen=True)
class Summary:
    """What a comparison found.

    Attributes:
        table: One line for each method and setting, in the order of tables.
        references: Right answer of each test example.
        labels: The task's labels; empty for generation.
        groups: Number of groups of test examples, None if each stands for itself.
    """

    table: tuple[Line, ...]
    references: tuple[str, ...]
    labels: tuple[str, ...]
    groups: int | None

    @property
    def metric(self) -> str:
        """Name of the main metric."""
        return next(iter(self.table[0].scores))

    @property
    def soft_prompt(self) -> Line | None:
        """The soft prompt that differences are taken to."""
        return _anchors(self.table)[0]

    @property
    def fine_tuning(self) -> Line | None:
        """Full fine-tuning, if it was run."""
        return _anchors(self.table)[1]

    @property
    def best_hard_prompt(self) -> Line | None:
        """The hard prompt with the best test score: chosen with hindsight, to be hard to beat."""
        hard = [line for line in self.table if line.is_hard_prompt]
        return max(
            hard,
            key=lambda line: find_metric(self.metric).goodness(self.score(line).value),
            default=None,
        )

    def first(self, method: str) -> Line | None:
        """The first line of a method, None if it was not run."""
        return next((line for line in self.table if line.method == method), None)

    @property
    def anchors(self) -> list[Line]:
        """What differences are taken to, as far as it was run."""
        return [line for line in (self.soft_prompt, self.fine_tuning) if line is not None]

    def differences(self, line: Line) -> list[Interval | None]:
        """A line's differences to the anchors."""
        to = [(self.soft_prompt, line.to_soft_prompt), (self.fine_tuning, line.to_fine_tuning)]
        return [difference for anchor, difference in to if anchor is not None]

    def score(self, line: Line) -> Interval:
        """A line's score by the main metric."""
        return line.scores[self.metric]

    def to_record(self) -> dict[str, Any]:
        """Every figure, for JSON."""
        soft = self.soft_prompt
        return {
            "metric": self.metric,
            "test_examples": len(self.references),
            "test_groups": self.groups,
            "soft_prompt_of_differences": soft.name if soft else None,
            "lines": [line.to_record() for line in self.table],
        }

    def to_json(self) -> str:
        """Every figure, as JSON text."""
        return json.dumps(self.to_record(), indent=2, ensure_ascii=False) + "\n"


def summarise(
    rows: Sequence[ComparedRow],
    references: Sequence[str],
    groups: Sequence[str | None] | None,
    labels: Sequence[str],
    *,
    resamples: int = 2000,
) -> Summary:
    """Sum up a comparison.

    Args:
        rows: What was run, in any order. The first metric of each is the main one.
        references: Right answer of each test example, N.
        groups: N group names, drawn whole, or None.
        labels: The task's labels, in order; empty for generation.
        resamples: Number of bootstrap samples.

    Returns:
        The summary.

    Raises:
        DatasetError: There is no row, or one does not answer the test examples.
        TaskError: A metric is unknown, or the rows hold what none of them judges.
    """
    runs = _by_line(rows, len(references))
    draws = Resamples(len(references), groups, resamples)
    metrics = _metrics(rows)
    scores = {
        key: {m: draws.score(*_judged(of_key, references, m), m) for m in metrics}
        for key, of_key in runs.items()
    }
    bare = [_line(key, of_key, scores, metrics[0], (None, None)) for key, of_key in runs.items()]
    anchors = _anchors(bare)
    table = tuple(_line(key, runs[key], scores, metrics[0], anchors) for key in runs)
    known = {group for group in groups or () if group is not None}
    return Summary(table, tuple(references), tuple(labels), len(known) or None)


def method_family(method: str) -> str:
    """Return what a method is listed, drawn and explained as: `8-shot` is one of `few-shot`."""
    return FEW_SHOT if re.fullmatch(r"\d+-shot", method) else method


_Key = tuple[str, str]


def _by_line(rows: Sequence[ComparedRow], size: int) -> dict[_Key, tuple[ComparedRow, ...]]:
    """The runs of each line, in the order of tables."""
    if not rows:
        raise DatasetError("there is no row to compare; run softhub compare first")
    runs: dict[_Key, list[ComparedRow]] = defaultdict(list)
    for row in rows:
        if len(row.predictions) != size:
            raise DatasetError(
                f"{' '.join(map(str, row.key))} has {len(row.predictions)} predictions for {size} "
                f"test examples; expected one for each, so run it anew"
            )
        runs[row.method, row.setting].append(row)
    return {key: tuple(sorted(runs[key], key=_seed)) for key in sorted(runs, key=_rank)}


def _metrics(rows: Sequence[ComparedRow]) -> list[str]:
    """Metrics of which every row holds what they judge."""
    kinds = set.intersection(*({"answers", *row.judged} for row in rows))
    metrics = [name for name in rows[0].metrics if find_metric(name).input_kind in kinds]
    if not metrics:
        raise TaskError(
            f"the rows are scored by {', '.join(rows[0].metrics)}, and do not all hold what these "
            "judge; run softhub compare anew in another output_dir"
        )
    return metrics


def _judged(
    rows: Sequence[ComparedRow], references: Sequence[str], metric: str
) -> tuple[list[list[str]], Sequence[str]]:
    """What a metric judges in each of the runs, and what it should be."""
    kind = find_metric(metric).input_kind
    if kind == "answers":
        return [row.predictions for row in rows], references
    right = [PASSED] * len(references) if kind == "outcomes" else references
    return [row.judged[kind] for row in rows], right


def _seed(row: ComparedRow) -> int:
    return -1 if row.seed is None else row.seed


def _rank(key: _Key) -> tuple[int, list[int], str]:
    """Place in a table: by the order of methods, then by the numbers in the name."""
    method, setting = key
    family = method_family(method)
    place = _ORDER.index(family) if family in _ORDER else len(_ORDER)
    return place, [int(digits) for digits in re.findall(r"\d+", method + setting)], method


def _line(
    key: _Key,
    rows: tuple[ComparedRow, ...],
    scores: Mapping[_Key, Mapping[str, Resampled]],
    metric: str,
    anchors: tuple[Line | None, Line | None],
) -> Line:
    def to(anchor: Line | None) -> Interval | None:
        if anchor is None or (anchor.method, anchor.setting) == key:
            return None
        other = scores[anchor.method, anchor.setting][metric]
        return (scores[key][metric] - other).interval()

    intervals = {name: resampled.interval() for name, resampled in scores[key].items()}
    return Line(*key, rows, intervals, to(anchors[0]), to(anchors[1]))


def _anchors(lines: Sequence[Line]) -> tuple[Line | None, Line | None]:
    """The soft prompt of the default length, or else of the middle one, and full fine-tuning."""
    soft = [line for line in lines if line.method == SOFT_PROMPT]
    default = [line for line in soft if line.setting == DEFAULT_SETTING]
    chosen = next(iter(default or soft[(len(soft) - 1) // 2 :]), None)
    return chosen, next((line for line in lines if line.method == FINE_TUNING), None)


def _interval(interval: Interval | None) -> dict[str, float] | None:
    if interval is None:
        return None
    return {name: round(value, 5) for name, value in interval._asdict().items()}
