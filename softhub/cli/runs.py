"""`softhub runs`: the index of training runs, and the provenance of a run's prompt."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softhub.cli.options import JsonOption, option
from softhub.cli.output import emit_columns, emit_facts, emit_json, score, text_of
from softhub.errors import ConfigError
from softhub.experiments.console import say

if TYPE_CHECKING:
    from softhub.experiments.runs import Run, Seeds

_MAIN_COLUMNS = ("run", "state", "score", "note", "task", "seed", "steps", "date")


def runs(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder to search, with its subfolders.")
    ] = Path("runs"),
    task: Annotated[str | None, option("Only runs of this task.", "NAME")] = None,
    sort: Annotated[str, option("date, score, loss, steps, minutes or path.", "KEY")] = "date",
    seeds: Annotated[
        bool, typer.Option("--by-seed", help="Summarize runs that differ only in their seed.")
    ] = False,
    trace: Annotated[
        bool, typer.Option("--trace", help="Show the provenance of the run in FOLDER.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the training runs in a folder, newest first.

    The score is the main metric on the test split, with its 95 % interval. A run in progress looks
    like an interrupted one. A terminal shows the main columns; pipes and --json get all of them.
    """
    if trace:
        if task or seeds:
            raise typer.BadParameter("--trace cannot be combined with --task or --by-seed")
        _trace(folder, as_json=as_json)
        return
    from softhub.experiments.runs import find_runs, sort_runs

    found = sort_runs([run for run in find_runs(folder) if task in (None, run.task)], sort)
    if seeds:
        _show_seeds(found, as_json=as_json)
    elif as_json:
        emit_json([run.to_record() for run in found])
    elif found:
        rows = [_cells(run) for run in found]
        emit_columns(_MAIN_COLUMNS if sys.stdout.isatty() else [*rows[0]], rows)
    else:
        of_task = f" of task {task}" if task else ""
        say(f"there is no run{of_task} in {folder}; start one: softhub train --config FILE")


def _cells(run: "Run") -> dict[str, str]:
    return {
        "run": run.path,
        "task": run.task or "",
        "base model": _last_part(run.base_model),
        "tokens": text_of(run.num_virtual_tokens),
        "score": f"{run.score.name} {score(run.score)}" if run.score else "",
        "dev loss": text_of(run.dev_loss, ".4g"),
        "best step": text_of(run.best_step),
        "steps": text_of(run.steps),
        "minutes": f"{run.seconds / 60:.1f}" if run.seconds else "",
        "seed": text_of(run.seed),
        "date": (run.date or "")[:16].replace("T", " "),
        "state": run.state,
        "note": run.note,
    }


def _show_seeds(found: "list[Run]", *, as_json: bool) -> None:
    from dataclasses import asdict

    from softhub.experiments.runs import by_seed

    groups = by_seed(found)
    if as_json:
        emit_json([asdict(group) for group in groups])
    elif groups:
        rows = [_seed_cells(group) for group in groups]
        emit_columns([*rows[0]], rows)
    else:
        say("none of these runs has a score on the test split")


def _seed_cells(group: "Seeds") -> dict[str, str]:
    return {
        "task": group.task or "",
        "base model": _last_part(group.base_model),
        "tokens": text_of(group.num_virtual_tokens),
        "metric": group.metric,
        "runs": str(len(group.paths)),
        "mean": f"{group.mean:.3f}",
        "deviation": text_of(group.deviation, ".3f"),
        "range": f"{group.lowest:.3f} to {group.highest:.3f}",
        "seeds": ", ".join(map(text_of, group.seeds)),
    }


def _last_part(name: str | None) -> str:
    return (name or "").rpartition("/")[2]


def _trace(folder: Path, *, as_json: bool) -> None:
    """Show the provenance of a run's prompt."""
    from softhub.experiments.runs import is_run, read_run

    if not is_run(folder):
        raise ConfigError(
            f"{folder} is not a run: it contains no report.json, adapter or checkpoint. Run "
            "softhub runs to list the runs."
        )
    run = read_run(folder, folder)
    if as_json:
        emit_json({**run.to_record(), "path": str(folder)})
        return
    facts = [
        ("run", str(folder)),
        ("state", f"{run.state} ({run.note})" if run.note else run.state),
        ("task", run.task),
        ("base model", run.base_model),
        ("virtual tokens", run.num_virtual_tokens),
        ("score", f"{run.score.name} {score(run.score)}" if run.score else None),
        ("date", run.date),
        ("weights sha256", run.weights_sha256),
        ("softhub", run.softhub_version),
    ]
    emit_facts([*facts, *_flat(run.provenance), *_flat({"config": run.config})])


def _flat(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested names and values, such as `dataset train sha256`."""
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", value
