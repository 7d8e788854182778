"""The results of a comparison's folder: a table for people, JSON for programs, a report for both.

`context.json` keeps what the rows are judged against, and the machine; with it a report can be
written anew from the folder alone, without running or loading anything.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import softhub
from softhub.errors import ConfigError
from softhub.evaluation.evaluate import references_of
from softhub.experiments.comparison import plots
from softhub.experiments.comparison.html import render_html
from softhub.experiments.comparison.store import RowStore
from softhub.experiments.comparison.summary import Summary, summarise
from softhub.experiments.comparison.tables import markdown_table, one_line, print_table
from softhub.files import replace_file
from softhub.plotting import to_png, to_svg
from softhub.tasks import Example, Task

CONTEXT, TABLE, FIGURES = "context.json", "comparison.md", "report.json"
REPORT, OVERVIEW = "report.html", "overview"
_PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "numpy")


def keep_context(folder: str | Path, task: Task, test: Sequence[Example]) -> None:
    """Keep what rows are judged against, and the machine that they are run on.

    Args:
        folder: That of the rows.
        task: The task.
        test: The test split.
    """
    record = {
        "references": references_of(task, test),
        "groups": [example.group for example in test],
        "machine": machine(),
    }
    text = json.dumps(record, ensure_ascii=False) + "\n"
    replace_file(Path(folder) / CONTEXT, text.encode())


def machine() -> dict[str, Any]:
    """Hardware and versions that times, and the last digits of scores, depend on."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerators": gpus or None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "softhub": softhub.__version__,
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


@dataclass(frozen=True)
class Results:
    """What a comparison's folder holds.

    Attributes:
        folder: The folder.
        summary: What was found.
        about: What all rows have in common: task, base, data, training.
        machine: Hardware and versions.
    """

    folder: Path
    summary: Summary
    about: Mapping[str, Any]
    machine: Mapping[str, Any]

    @property
    def title(self) -> str:
        """What was compared, in a line: task, base, number of test examples."""
        task, base = self.about.get("task") or {}, self.about.get("base") or {}
        words = f"{task.get('name') or 'a task'} on {base.get('name') or 'a base model'}"
        return f"{words}: {len(self.summary.references):,} test examples"

    def to_record(self) -> dict[str, Any]:
        """All figures, and under which conditions they were got."""
        return {**self.summary.to_record(), "about": self.about, "machine": self.machine}


def read_results(folder: str | Path) -> Results:
    """Sum up the rows of a folder.

    Args:
        folder: The `output_dir` of a comparison.

    Returns:
        What it holds.

    Raises:
        ConfigError: There is no comparison in the folder, or not all of it.
        DatasetError: A row does not answer the test split.
    """
    store = RowStore(folder)
    about, context = store.about(), _context(store.folder)
    summary = summarise(store.rows(), context["references"], context["groups"], _labels(about))
    return Results(store.folder, summary, about, context["machine"])


def write_results(folder: str | Path) -> Results:
    """Write `comparison.md`, `report.json`, `report.html` and `overview.{svg,png}` into a folder.

    Args:
        folder: The `output_dir` of a comparison.

    Returns:
        What was written.

    Raises:
        ConfigError: There is no comparison in the folder, or not all of it.
        DatasetError: A row does not answer the test split.
    """
    results = read_results(folder)
    folder, summary = results.folder, results.summary
    overview = plots.overview(summary)
    title = one_line(results.title)
    texts = {
        TABLE: f"## {title}\n\n{markdown_table(summary)}",
        FIGURES: json.dumps(results.to_record(), indent=2, ensure_ascii=False) + "\n",
        REPORT: render_html(summary, results.about, results.machine),
        f"{OVERVIEW}.svg": to_svg(overview, OVERVIEW, results.title, standalone=True),
    }
    for name, text in texts.items():
        replace_file(folder / name, text.encode())
    replace_file(folder / f"{OVERVIEW}.png", to_png(overview))
    return results


def print_results(results: Results) -> None:
    """Print the table to stdout, and where the report is."""
    print_table(results.summary, title=results.title)
    print(f"\nReport: {results.folder / REPORT}")


def _labels(about: Mapping[str, Any]) -> list[str]:
    """The task's labels; none where an answer may have several, as for generation."""
    task = about.get("task") or {}
    return [] if task.get("multilabel") else [e["label"] for e in task.get("verbalizer") or []]


def _context(folder: Path) -> dict[str, Any]:
    try:
        context: dict[str, Any] = json.loads((folder / CONTEXT).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{folder} has rows, but not what they are judged against ({CONTEXT}: "
            f"{error.strerror}); run softhub compare with the same config: rows that are there "
            "are not run again."
        ) from error
    return context


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
