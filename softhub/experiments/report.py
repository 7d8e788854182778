"""The result of a run: a small table for people, `report.json` for programs."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState
from rich.console import Console
from rich.table import Table

from softhub.adapter.manifest import RecordedMetric
from softhub.evaluation.evaluate import Evaluation
from softhub.files import replace_file
from softhub.metrics import find_metric
from softhub.metrics.intervals import Interval
from softhub.model.prompt import SoftPrompt
from softhub.training.curve import write_curve

if TYPE_CHECKING:
    from softhub.training.running import FitResult

_SCORES_BESIDE_COSTS, _SCORES_ALONE = 2, 3  # that fit 80 columns


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
    """Print the rows to stdout; scores with their 95 % interval.

    Fits 80 columns: what is too much for one table is printed as several, one below the other.
    """
    console = Console(highlight=False)
    console.print(f"\n{title}\n", markup=False, soft_wrap=True)
    metrics = list(rows[0].evaluation.metrics)
    if len(metrics) <= _SCORES_BESIDE_COSTS:
        console.print(_table(rows, metrics, costs=True))
    else:
        for start in range(0, len(metrics), _SCORES_ALONE):
            console.print(_table(rows, metrics[start : start + _SCORES_ALONE], costs=False))
            console.print()
        console.print(_table(rows, [], costs=True))
    console.print(
        "\nIn brackets: 95 % interval. Bytes: what is stored and shipped beside the base."
    )


def _table(rows: Sequence[Row], metrics: Sequence[str], *, costs: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("", width=14)
    headings = [find_metric(metric).heading_with_unit for metric in metrics]
    if costs:
        headings += ["trained\nnumbers", "bytes", "time to\ntrain", "texts\n/s"]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        scores = [_score(metric, row.evaluation.metrics.get(metric)) for metric in metrics]
        table.add_row(row.name, *scores, *(_costs(row) if costs else ()))
    return table


def _costs(row: Row) -> tuple[str, ...]:
    return (
        f"{row.trainable_parameters:,}" if row.trainable_parameters else "-",
        f"{row.bytes_on_disk:,}" if row.bytes_on_disk else "-",
        f"{row.train_seconds:.0f} s" if row.train_seconds else "-",
        f"{row.evaluation.examples_per_second:.1f}" if row.evaluation.seconds else "-",
    )


def _score(metric: str, interval: Interval | None) -> str:
    return "-" if interval is None else find_metric(metric).format(*interval)


def write_run(
    folder: str | Path,
    result: FitResult,
    soft: Evaluation | None,
    baselines: Mapping[str, Evaluation],
    **details: Any,
) -> Path:
    """Save a trained prompt with its scores, print the table, write `report.json` and the curve.

    The report says what the prompt can be traced by: its provenance, the configuration that the
    caller gives, the date, and how training went. `curve.png` and `curve.svg` draw that.

    Args:
        folder: Where to: the adapter goes to `adapter` in it.
        result: What training gave.
        soft: The prompt's scores on the test split; None where there is none to judge it.
        baselines: What it is held against, on the same examples.
        **details: As in `write_report`; what is known of training is added.

    Returns:
        The adapter's folder. Of several processes only the main one writes it.
    """
    if not PartialState().is_main_process:
        return Path(folder) / "adapter"
    prompt, rows = result.prompt, [Row(name, each) for name, each in baselines.items()]
    if soft is not None:
        prompt = with_scores(prompt, soft, split="test", baselines=baselines)
    adapter = prompt.save_pretrained(Path(folder) / "adapter")
    if soft is not None:
        numbers, stored = prompt.vectors.numel(), folder_bytes(adapter)
        rows.append(Row("soft prompt", soft, numbers, stored, result.seconds))
        task = (prompt.manifest.task or {}).get("name", "soft prompt")
        where = f"{task} on {prompt.manifest.base_model}"
        print_table(rows, title=f"{where}: {len(soft.references)} test examples")
    write_report(Path(folder) / "report.json", rows, **details, **_of_training(result))
    _say_where(folder, result, drawn=write_curve(folder, result) is not None)
    return adapter


def _say_where(folder: str | Path, result: FitResult, *, drawn: bool) -> None:
    """Name the files, in the folder as it was asked for, not resolved: people paste it."""
    files = [("Adapter", "adapter"), ("Report", "report.json")]
    if drawn:
        files.append(("Curve", "curve.png"))
    best = f"best at step {result.best_step}"
    peak = f"peak memory {result.peak_memory / 1e6:,.0f} MB"
    print(f"Trained: {result.steps} steps, {best}, {peak}")
    for what, name in files:
        print(f"{what + ':':<9}{folder}/{name}")


def _of_training(result: FitResult) -> dict[str, Any]:
    """What a report says about training: by what it can be traced, and how it went."""
    test = result.range_test
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
            "range_test": asdict(test) if test else None,
            "restarts": result.restarts,
        },
        "history": result.history,
        "warnings": result.warnings,
    }


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
    replace_file(path, (json.dumps(record, indent=2, default=str) + "\n").encode())
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
        RecordedMetric(
            name=name,
            value=interval.value,
            low=interval.low,
            high=interval.high,
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
    """Size of all files in an adapter folder."""
    return sum(file.stat().st_size for file in Path(folder).iterdir() if file.is_file())


def _row_record(row: Row) -> dict[str, Any]:
    record = {key: value for key, value in asdict(row).items() if key != "evaluation"}
    evaluation = row.evaluation
    return {
        **record,
        "examples": len(evaluation.references),
        "metrics": {
            name: {"value": i.value, "low": i.low, "high": i.high}
            for name, i in evaluation.metrics.items()
        },
        "outcomes": dict(Counter(outcome.kind for outcome in evaluation.outcomes)) or None,
        "predict_seconds": evaluation.seconds,
        "examples_per_second": evaluation.examples_per_second if evaluation.seconds else None,
    }
