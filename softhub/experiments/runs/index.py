"""All runs below a folder: found, sorted, and summed up over their seeds."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softhub.errors import ConfigError
from softhub.experiments.runs.reading import is_part, is_run, read_run
from softhub.experiments.runs.run import Run


@dataclass(frozen=True)
class Seeds:
    """Runs that differ by their seed alone.

    Attributes:
        task: The task's name.
        base_model: The base's name.
        num_virtual_tokens: Rows of the prompts.
        metric: What they are judged by, on the same test examples.
        seeds: Their seeds.
        mean: Mean of their scores.
        deviation: Standard deviation of the scores, as of a sample; None for a single run.
        lowest: The lowest score.
        highest: The highest score.
        paths: Their folders.
    """

    task: str | None
    base_model: str | None
    num_virtual_tokens: int | None
    metric: str
    seeds: tuple[int | None, ...]
    mean: float
    deviation: float | None
    lowest: float
    highest: float
    paths: tuple[str, ...]


def find_runs(folder: str | Path) -> list[Run]:
    """Return the runs in and below a folder, the newest first.

    Args:
        folder: Where to look; links to other folders are not followed.

    Raises:
        ConfigError: There is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ConfigError(
            f"There is no folder {str(folder)!r}: recipes keep their runs in output_dir, by "
            "default below runs/. Give the folder that yours are in: softhub runs FOLDER."
        )
    return sort_runs([read_run(path, root) for path in _run_folders(root)], "date")


def _run_folders(root: Path) -> Iterator[Path]:
    for folder, names, _ in os.walk(root):
        if is_run(Path(folder)):
            yield Path(folder)
        names[:] = sorted(name for name in names if not is_part(name))


_KEYS: Mapping[str, Callable[[Run], Any]] = {
    "date": lambda run: run.date,
    "score": lambda run: _goodness(run),
    "loss": lambda run: run.dev_loss,
    "steps": lambda run: run.steps,
    "minutes": lambda run: run.seconds,
    "path": lambda run: run.path,
}
_GREATEST_FIRST = ("date", "score")
ORDERS = tuple(_KEYS)
"""What runs can be sorted by: the newest, the best and the least come first."""


def sort_runs(runs: Sequence[Run], by: str) -> list[Run]:
    """Return runs in order, those that lack the value last.

    Args:
        runs: The runs.
        by: One of `ORDERS`.

    Raises:
        ConfigError: It is none of these.
    """
    if by not in _KEYS:
        raise ConfigError(f"Cannot sort runs by {by!r}; expected one of {', '.join(ORDERS)}.")
    key = _KEYS[by]
    named = sorted(runs, key=lambda run: run.path)
    known = [run for run in named if key(run) is not None]
    unknown = [run for run in named if key(run) is None]
    return sorted(known, key=key, reverse=by in _GREATEST_FIRST) + unknown


def _goodness(run: Run) -> float | None:
    from softhub.hub.query import goodness

    return goodness(run.score.name, run.score.value) if run.score else None


def by_seed(runs: Sequence[Run]) -> list[Seeds]:
    """Sum up the judged runs that differ by their seed alone, in the order of each one's first.

    They are of the same task, base, data, settings and versions, and judged on as many examples.
    """
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        if run.score and run.settings:
            key = (run.settings, run.score.name, run.score.examples)
            groups.setdefault(key, []).append(run)
    return [_sum_up(group) for group in groups.values()]


def _sum_up(runs: Sequence[Run]) -> Seeds:
    first, scores = runs[0], [run.score for run in runs if run.score]
    values = [score.value for score in scores]
    return Seeds(
        first.task,
        first.base_model,
        first.num_virtual_tokens,
        scores[0].name,
        tuple(run.seed for run in runs),
        statistics.fmean(values),
        statistics.stdev(values) if len(values) > 1 else None,
        min(values),
        max(values),
        tuple(run.path for run in runs),
    )
