"""Find all runs in a folder, and sort them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from softhub.errors import ConfigError
from softhub.experiments.runs.reading import COMPARISON, is_part, is_run, read_run
from softhub.experiments.runs.run import Run
from softhub.metrics import METRICS


def find_runs(folder: str | Path) -> list[Run]:
    """Return the runs in a folder and its subfolders, the newest first.

    Args:
        folder: The folder; links to other folders are not followed, and comparisons are left out.

    Raises:
        ConfigError: There is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ConfigError(
            f"There is no folder {str(folder)!r}. Runs are written to runs/ by default; if yours "
            "are elsewhere, pass their folder: softhub runs FOLDER."
        )
    return sort_runs([read_run(path, root) for path in _run_folders(root)], "date")


def _run_folders(root: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(root):
        if COMPARISON in files:  # its report lists its runs
            names.clear()
        elif is_run(Path(folder)):
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
"""Sort orders of runs: the newest, best or smallest first."""


def sort_runs(runs: Sequence[Run], by: str) -> list[Run]:
    """Return runs in order, with those that lack the value at the end.

    Args:
        runs: The runs.
        by: One of `ORDERS`.

    Raises:
        ConfigError: It is none of these.
    """
    if by not in _KEYS:
        raise ConfigError(f"Cannot sort runs by {by!r}; expected one of {', '.join(ORDERS)}.")
    key = _KEYS[by]
    by_path = sorted(runs, key=lambda run: run.path)
    known = [run for run in by_path if key(run) is not None]
    unknown = [run for run in by_path if key(run) is None]
    return sorted(known, key=key, reverse=by in _GREATEST_FIRST) + unknown


def _goodness(run: Run) -> float | None:
    """Return the score, negative for metrics of which less is better."""
    if run.score is None:
        return None
    metric = METRICS.get(run.score.name)
    return metric.goodness(run.score.value) if metric else run.score.value
