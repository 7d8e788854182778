"""`softhub runs`: the index of training runs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softhub.cli.options import JsonOption, option
from softhub.cli.output import emit_columns, emit_json, score, text_of
from softhub.experiments.console import note

if TYPE_CHECKING:
    from softhub.experiments.runs import Run

_MAIN_COLUMNS = ("run", "state", "score", "note", "task", "seed", "steps", "date")


def runs(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder to search, with its subfolders.")
    ] = Path("runs"),
    task: Annotated[str | None, option("Only runs of this task.", "NAME")] = None,
    sort: Annotated[str, option("date, score, loss, steps, minutes or path.", "KEY")] = "date",
    as_json: JsonOption = False,
) -> None:
    """List the training runs in a folder, newest first.

    The score is the main metric on the test split, with its 95 % interval. A run in progress looks
    like an interrupted one. A terminal shows the main columns, pipes get all of them, and --json
    adds the provenance.
    """
    from softhub.experiments.runs import find_runs, sort_runs

    found = sort_runs([run for run in find_runs(folder) if task in (None, run.task)], sort)
    if as_json:
        emit_json([run.to_record() for run in found])
    elif found:
        rows = [_cells(run) for run in found]
        emit_columns(_MAIN_COLUMNS if sys.stdout.isatty() else [*rows[0]], rows)
    else:
        of_task = f" of task {task}" if task else ""
        note(f"there is no run{of_task} in {folder}; start one: softhub train --config FILE")


def _cells(run: "Run") -> dict[str, str]:
    return {
        "run": run.path,
        "task": run.task or "",
        "base model": (run.base_model or "").rpartition("/")[2],
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
