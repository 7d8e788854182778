"""The result of a run: a table for the terminal, and `report.json` for programs."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from softhub.adapter.manifest import RecordedMetric
from softhub.evaluation.evaluate import Evaluation
from softhub.experiments.machine import machine
from softhub.files import replace_file
from softhub.metrics import find_metric
from softhub.model.prompt import SoftPrompt
from softhub.terminal import print_whole
from softhub.training.curve import CURVE

if TYPE_CHECKING:
    from softhub.training.running import FitResult

_SCORES_BESIDE_COSTS, _SCORES_ALONE = 2, 3  # columns that fit a terminal of 80 characters
_COSTS = ("trained\nnumbers", "bytes", "time to\ntrain", "texts\n/s")
_CURVE = f"{CURVE}.png"


@dataclass(frozen=True)
class Row:
    """One method in the table of a run.

    Attributes:
        name: Name in the table.
        evaluation: Its scores on the test split.
        trainable_parameters: Number of trained parameters.
        bytes_on_disk: Size of what is stored and shipped for the task in addition to the base.
        train_seconds: Wall time of training; 0 without training.
    """

    name: str
    evaluation: Evaluation
    trainable_parameters: int = 0
    bytes_on_disk: int = 0
    train_seconds: float = 0.0

    def to_record(self) -> dict[str, Any]:
        """Return the row as plain JSON values."""
        evaluation = self.evaluation
        rate = evaluation.examples_per_second if evaluation.seconds else None
        return {
            "name": self.name,
            "trainable_parameters": self.trainable_parameters,
            "bytes_on_disk": self.bytes_on_disk,
            "train_seconds": self.train_seconds,
            "examples": len(evaluation.references),
            "metrics": {name: each._asdict() for name, each in evaluation.metrics.items()},
            "outcomes": dict(Counter(outcome.kind for outcome in evaluation.outcomes)) or None,
            "predict_seconds": evaluation.seconds,
            "examples_per_second": rate,
        }


def print_table(rows: Sequence[Row], *, title: str) -> None:
    """Print scores with their 95 % intervals, and costs, to stdout.

    The output fits 80 columns: if there are many metrics, several tables are printed.
    """
    console = Console(highlight=False)
    console.print(f"\n{title}\n", markup=False, soft_wrap=True)
    metrics = list(rows[0].evaluation.metrics)
    if len(metrics) <= _SCORES_BESIDE_COSTS:
        print_whole(_table(rows, metrics, costs=True))
    else:
        for start in range(0, len(metrics), _SCORES_ALONE):
            print_whole(_table(rows, metrics[start : start + _SCORES_ALONE], costs=False))
            console.print()
        print_whole(_table(rows, [], costs=True))
    console.print(
        "\nIn parentheses: 95 % interval. Bytes: stored and shipped in addition to the base."
    )


def _table(rows: Sequence[Row], metrics: Sequence[str], *, costs: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("", width=14)
    headings = [find_metric(metric).heading_with_unit for metric in metrics]
    for heading in (*headings, *(_COSTS if costs else ())):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        scores = [find_metric(name).format(*row.evaluation.metrics[name]) for name in metrics]
        table.add_row(row.name, *scores, *(_costs(row) if costs else ()))
    return table


def _costs(row: Row) -> tuple[str, ...]:
    return (
        f"{row.trainable_parameters:,}" if row.trainable_parameters else "-",
        f"{row.bytes_on_disk:,}" if row.bytes_on_disk else "-",
        f"{row.train_seconds:.0f} s" if row.train_seconds else "-",
        f"{row.evaluation.examples_per_second:.1f}" if row.evaluation.seconds else "-",
    )


def print_files(result: FitResult, adapter: Path | None) -> None:
    """Print a summary of training, and the files of the run if its adapter was saved."""
    best = f"best at step {result.best_step}"
    peak = f"peak memory {result.peak_memory / 1e6:,.0f} MB"
    print(f"Trained: {result.steps} steps, {best}, {peak}")
    if adapter is None:
        return
    for title, name in (("Adapter", adapter.name), ("Report", "report.json"), ("Curve", _CURVE)):
        if (adapter.parent / name).exists():
            print(f"{title + ':':<9}{adapter.parent}/{name}")


def training_record(result: FitResult) -> dict[str, Any]:
    """Return a report's entries on training: date, provenance, settings found and history."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "provenance": dict(result.prompt.manifest.provenance),
        "training": {
            "steps": result.steps,
            "best_step": result.best_step,
            "best_score": result.best_score,
            "seconds": result.seconds,
            "examples_per_second": result.examples_per_second,
            "peak_memory_bytes": result.peak_memory,
            "init": result.init,
            "ended": result.ended,
            "restarts": result.restarts,
        },
        "history": result.history,
        "warnings": result.warnings,
    }


def write_report(path: str | Path, rows: Sequence[Row], **details: Any) -> Path:
    """Write rows and details as JSON, atomically.

    Args:
        path: The file.
        rows: The methods that were evaluated, on the same examples.
        **details: Further entries of any JSON type: configuration, history, choices.

    Returns:
        The path.
    """
    record = {"rows": [row.to_record() for row in rows], **details, "machine": machine()}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_finite(record), indent=2, default=str, allow_nan=False)
    replace_file(path, (text + "\n").encode())
    return path


def _finite(value: Any) -> Any:
    """Return a value with None in place of numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def with_scores(
    prompt: SoftPrompt,
    evaluation: Evaluation,
    *,
    split: str,
    baselines: Mapping[str, Evaluation],
) -> SoftPrompt:
    """Return the prompt with its scores and those of its baselines in the manifest."""
    metrics = tuple(
        RecordedMetric(
            name=name,
            **interval._asdict(),
            split=split,
            examples=len(evaluation.references),
            baselines={
                key: other.metrics[name].value
                for key, other in baselines.items()
                if name in other.metrics
            },
        )
        for name, interval in evaluation.metrics.items()
    )
    return replace(prompt, manifest=replace(prompt.manifest, metrics=metrics))


def folder_bytes(folder: str | Path) -> int:
    """Return the total size of the files in an adapter folder."""
    return sum(file.stat().st_size for file in Path(folder).iterdir() if file.is_file())
