"""The results of a comparison's folder: a table for people, JSON for programs, a report for both.

`context.json` contains the reference answers and the machine, so that a report can be written from
the folder alone, without running or loading anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softhub.errors import ConfigError
from softhub.evaluation.evaluate import references_of
from softhub.experiments.comparison import plots
from softhub.experiments.comparison.html import render_html
from softhub.experiments.comparison.store import RowStore
from softhub.experiments.comparison.summary import Summary, summarize
from softhub.experiments.comparison.tables import print_table
from softhub.experiments.machine import machine
from softhub.experiments.records import read_record
from softhub.files import replace_file
from softhub.plotting import to_svg
from softhub.tasks import Example, Task

CONTEXT, FIGURES = "context.json", "report.json"
REPORT, OVERVIEW, STORAGE = "report.html", "overview.svg", "storage.svg"


def save_context(folder: str | Path, task: Task, test: Sequence[Example]) -> None:
    """Save the reference answers of the test split, and the machine that computes the rows."""
    record = {
        "references": references_of(task, test),
        "groups": [example.group for example in test],
        "machine": machine(),
    }
    text = json.dumps(record, ensure_ascii=False) + "\n"
    replace_file(Path(folder) / CONTEXT, text.encode())


@dataclass(frozen=True)
class Results:
    """The results of a comparison.

    Attributes:
        folder: The comparison's folder.
        summary: Scores, differences and costs of all methods.
        about: The conditions that all rows share: task, base, data, training.
        machine: Hardware and versions.
    """

    folder: Path
    summary: Summary
    about: Mapping[str, Any]
    machine: Mapping[str, Any]

    @property
    def title(self) -> str:
        """Task, base and number of test examples, in one line."""
        task, base = self.about.get("task") or {}, self.about.get("base") or {}
        name = f"{task.get('name') or 'a task'} on {base.get('name') or 'a base model'}"
        return f"{name}: {len(self.summary.references):,} test examples"

    def to_record(self) -> dict[str, Any]:
        """Return all figures, with the conditions under which they were measured."""
        return {**self.summary.to_record(), "about": self.about, "machine": self.machine}

    def print(self) -> None:
        """Print the table and the path of the report to stdout."""
        print_table(self.summary, title=self.title)
        print(f"\nReport: {self.folder / REPORT}")


def read_results(folder: str | Path) -> Results:
    """Summarize the rows of a folder, the `output_dir` of a comparison.

    Raises:
        ConfigError: There is no comparison in the folder, or it is incomplete.
        DatasetError: A row does not answer the test split.
    """
    store = RowStore(folder)
    about, context = store.about(), _context(store.folder)
    summary = summarize(store.rows(), context["references"], context["groups"])
    return Results(store.folder, summary, about, context["machine"])


def write_results(folder: str | Path) -> Results:
    """Write `report.json`, `report.html` and the plots into a folder.

    Raises:
        ConfigError: As in `read_results`.
        DatasetError: As in `read_results`.
    """
    results = read_results(folder)
    folder, summary = results.folder, results.summary
    texts = {
        FIGURES: json.dumps(results.to_record(), indent=2, ensure_ascii=False) + "\n",
        REPORT: render_html(summary, results.about, results.machine),
        OVERVIEW: to_svg(plots.overview(summary), results.title),
    }
    if (figure := plots.storage(summary)) is not None:
        texts[STORAGE] = to_svg(figure, results.title)
    for name, text in texts.items():
        replace_file(folder / name, text.encode())
    return results


def _context(folder: Path) -> dict[str, Any]:
    fix = (
        "Run softhub compare with the same config, which writes it again: rows that are there are "
        "not computed again."
    )
    path = folder / CONTEXT
    try:
        context = read_record(path, fix)
    except OSError as error:
        raise ConfigError(
            f"{folder} has rows, but not the reference answers to evaluate them against ({CONTEXT}:"
            f" {error.strerror}). {fix}"
        ) from error
    if missing := [key for key in ("references", "groups", "machine") if key not in context]:
        raise ConfigError(f"{path} is damaged: it lacks {', '.join(missing)}. {fix}")
    return context
