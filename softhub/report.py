"""The result of a run: a small table for people, `report.json` for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from softhub.artefact.manifest import Metric
from softhub.pipeline import Evaluation
from softhub.prompt import SoftPrompt


@dataclass(frozen=True)
class Row:
    """One way of doing the task.

    Attributes:
        name: What the table calls it.
        evaluation: Its scores on the test split.
        trainable_parameters: Numbers that training changed.
        bytes_on_disk: What has to be stored and shipped for the task beside the base.
        train_seconds: Wall time of training, 0 without any.
    """

    name: str
    evaluation: Evaluation
    trainable_parameters: int = 0
    bytes_on_disk: int = 0
    train_seconds: float = 0.0


def print_table(rows: Sequence[Row], *, title: str) -> None:
    """Print the rows to stdout; scores in per cent with their 95 % interval. Fits 80 columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("", width=14)
    metrics = list(rows[0].evaluation.metrics)
    for metric in metrics:
        table.add_column(f"{metric.replace('_', ' ')}, %", justify="right", no_wrap=True)
    for heading in ("trained\nnumbers", "bytes", "time to\ntrain", "texts\n/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        intervals = [row.evaluation.metrics[metric] for metric in metrics]
        table.add_row(
            row.name,
            *(f"{100 * i.value:.1f} ({100 * i.low:.1f}-{100 * i.high:.1f})" for i in intervals),
            f"{row.trainable_parameters:,}" if row.trainable_parameters else "-",
            f"{row.bytes_on_disk:,}" if row.bytes_on_disk else "-",
            f"{row.train_seconds:.0f} s" if row.train_seconds else "-",
            f"{row.evaluation.examples_per_second:.1f}" if row.evaluation.seconds else "-",
        )
    console = Console(highlight=False)
    console.print(f"\n{title}\n", markup=False, soft_wrap=True)
    console.print(table)
    console.print(
        "\nIn brackets: 95 % interval. Bytes: what is stored and shipped beside the base."
    )


def write_report(path: str | Path, rows: Sequence[Row], **details: Any) -> Path:
    """Write the rows and details as JSON, whole or not at all.

    Args:
        path: The file.
        rows: What was compared, on the same examples.
        **details: Anything else that JSON can hold: configuration, history, choices made.

    Returns:
        The path.
    """
    record = {
        "rows": [_row_record(row) for row in rows],
        **details,
        "machine": {
            "platform": platform.platform(),
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
        },
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(record, indent=2, default=str) + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def with_scores(
    prompt: SoftPrompt,
    evaluation: Evaluation,
    *,
    split: str,
    baselines: Mapping[str, Evaluation],
) -> SoftPrompt:
    """The prompt with its scores, and those it has to be held against, in its manifest."""
    metrics = tuple(
        Metric(
            name=name,
            value=interval.value,
            low=interval.low,
            high=interval.high,
            split=split,
            examples=len(evaluation.predictions),
            baselines={key: other.metrics[name].value for key, other in baselines.items()},
        )
        for name, interval in evaluation.metrics.items()
    )
    return replace(prompt, manifest=replace(prompt.manifest, metrics=metrics))


def folder_bytes(folder: str | Path) -> int:
    """Size of all files in an adapter folder."""
    return sum(file.stat().st_size for file in Path(folder).iterdir() if file.is_file())


def _row_record(row: Row) -> dict[str, Any]:
    record = {key: value for key, value in asdict(row).items() if key != "evaluation"}
    evaluation = row.evaluation
    return {
        **record,
        "examples": len(evaluation.predictions),
        "metrics": {
            name: {"value": i.value, "low": i.low, "high": i.high}
            for name, i in evaluation.metrics.items()
        },
        "predict_seconds": evaluation.seconds,
        "examples_per_second": evaluation.examples_per_second if evaluation.seconds else None,
    }
