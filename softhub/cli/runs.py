"""`softhub runs`: the index of training runs, and what a prompt can be traced by."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softhub.cli.options import JsonOption
from softhub.cli.output import emit_facts, emit_json, emit_table, say

if TYPE_CHECKING:
    from softhub.adapter.manifest import RecordedMetric
    from softhub.experiments.runs import Run, Seeds

_COLUMNS = (
    "run",
    "task",
    "base model",
    "tokens",
    "score",
    "dev loss",
    "best step",
    "steps",
    "minutes",
    "seed",
    "date",
    "state",
    "note",
)
_BY_IMPORTANCE = (
    *("run", "state", "score", "note", "task", "seed", "dev loss", "steps", "tokens", "date"),
    *("minutes", "best step", "base model"),
)
_FOLDED = 20  # letters of a line of any cell but the first, which is not broken
_OF_SEEDS = (
    "task",
    "base model",
    "tokens",
    "metric",
    "runs",
    "mean",
    "deviation",
    "range",
    "seeds",
)


def runs(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where to look, all the way down.")
    ] = Path("runs"),
    task: Annotated[str | None, typer.Option(help="Only runs of this task.")] = None,
    sort: Annotated[str, typer.Option(help="date, score, loss, steps, minutes or path.")] = "date",
    seeds: Annotated[
        bool,
        typer.Option("--by-seed", help="Sum up runs that differ by their seed alone."),
    ] = False,
    trace: Annotated[
        bool,
        typer.Option("--trace", help="What the prompt of the one run in FOLDER came from."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the training runs below a folder, the newest first.

    Score: the main metric on test, with its 95 % interval. Runs at work are listed as interrupted
    or started, for nothing in their folders says otherwise. A terminal shows the columns that fit
    it; piped, and with --json, they are all there.
    """
    if trace:
        if task or seeds:
            raise typer.BadParameter("--trace is about one run: give it without filters")
        _trace(folder, as_json=as_json)
        return
    from softhub.experiments.runs import find_runs, sort_runs

    found = [run for run in find_runs(folder) if task in (None, run.task)]
    found = sort_runs(found, sort)
    if seeds:
        _show_seeds(found, as_json=as_json)
    elif as_json:
        emit_json([run.to_record() for run in found])
    elif found:
        _show([_row(run) for run in found])
    else:
        of_task = f" of task {task}" if task else ""
        say(f"no run{of_task} below {folder}; softhub train --config FILE makes one")


def _show(rows: Sequence[tuple[str, ...]]) -> None:
    """Print the columns that fit a terminal, the most important first; all of them elsewhere."""
    kept, room = set(_COLUMNS), shutil.get_terminal_size().columns
    if sys.stdout.isatty():
        kept = set()
        for name in _BY_IMPORTANCE:
            cells = [row[_COLUMNS.index(name)] for row in rows]
            longest = max(map(len, cells))
            width = 2 + max(len(name), longest if name == "run" else min(longest, _FOLDED))
            if longest and (width <= room or name == "run"):
                kept.add(name)
                room -= width
    places = [place for place, name in enumerate(_COLUMNS) if name in kept]
    columns = [_COLUMNS[place] for place in places]
    emit_table(columns, [[row[place] for place in places] for row in rows])


def _row(run: "Run") -> tuple[str, ...]:
    return (
        run.path,
        run.task or "",
        (run.base_model or "").rpartition("/")[2],
        _whole(run.num_virtual_tokens),
        score(run.score),
        f"{run.dev_loss:.4g}" if run.dev_loss is not None else "",
        _whole(run.best_step),
        _whole(run.steps),
        f"{run.seconds / 60:.1f}" if run.seconds else "",
        _whole(run.seed),
        (run.date or "")[:16].replace("T", " "),
        run.state,
        run.note,
    )


def _whole(number: int | None) -> str:
    return "" if number is None else str(number)


def score(metric: "RecordedMetric | None") -> str:
    """Return a score as the table shows it: `accuracy 0.926 (0.901 to 0.945)`."""
    if metric is None:
        return ""
    value = f"{metric.name} {metric.value:.4g}"
    if metric.low is None or metric.high is None:
        return value
    return f"{value} ({metric.low:.4g} to {metric.high:.4g})"


def _show_seeds(found: "list[Run]", *, as_json: bool) -> None:
    from dataclasses import asdict

    from softhub.experiments.runs import by_seed

    groups = by_seed(found)
    if as_json:
        emit_json([asdict(group) for group in groups])
    elif groups:
        emit_table(_OF_SEEDS, [_seeds_row(group) for group in groups])
    else:
        say("no run here has a score on test")


def _seeds_row(group: "Seeds") -> tuple[str, ...]:
    return (
        group.task or "",
        (group.base_model or "").rpartition("/")[2],
        _whole(group.num_virtual_tokens),
        group.metric,
        str(len(group.paths)),
        f"{group.mean:.4g}",
        "" if group.deviation is None else f"{group.deviation:.2g}",
        f"{group.lowest:.4g} to {group.highest:.4g}",
        ", ".join(map(_whole, group.seeds)),
    )


def _trace(folder: Path, *, as_json: bool) -> None:
    """Show where the prompt of a run comes from."""
    from softhub.errors import ConfigError
    from softhub.experiments.runs import is_run, read_run

    if not is_run(folder):
        raise ConfigError(
            f"{folder} is no run: it holds no report.json, adapter or checkpoint of its own. "
            "softhub runs lists those that there are."
        )
    run = read_run(folder, folder)
    if as_json:
        emit_json({**run.to_record(), "path": str(folder)})
        return
    facts = {
        "run": str(folder),
        "state": f"{run.state} ({run.note})" if run.note else run.state,
        "task": run.task,
        "base model": run.base_model,
        "virtual tokens": run.num_virtual_tokens,
        "score": score(run.score),
        "date": run.date,
        "weights sha256": run.weights_sha256,
        "softhub": run.softhub_version,
        **_flat(run.provenance),
        **_flat({"config": run.config}),
    }
    emit_facts([(name, str(value)) for name, value in facts.items() if value not in (None, "")])


def _flat(record: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested names and values as lines: `dataset train sha256`."""
    lines: dict[str, Any] = {}
    for key, value in record.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            lines |= _flat(value, f"{name} ")
        else:
            lines[name] = value
    return lines
