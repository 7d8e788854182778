"""`softhub compare`: every way of doing a task side by side, and the report of it."""

from pathlib import Path
from typing import Annotated

import typer

from softhub.cli.options import JsonOption
from softhub.cli.output import emit_json, quiet_libraries
from softhub.cli.recipes import find_recipe
from softhub.cli.train import launch


def compare(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, metavar="FILE", help="The comparison's settings, as YAML."
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            metavar="DIR",
            help="Run nothing: write the table and the report of this output_dir anew.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare soft prompts with hard ones, LoRA, fine-tuning.

    One task, one base, the same data for all. Rows are kept as they come, so a comparison that was
    stopped goes on, and rows that are there are not run again. Any other --key VALUE overrides the
    config's key, or stands for it; "-- --help" shows all keys. --json is for --report: the same
    figures are in the report.json that a run writes.
    """
    if report is not None:
        if config is not None or context.args:
            raise typer.BadParameter("--report runs nothing: give it alone, or with --json")
        _write_report(report, as_json=as_json)
        return
    if as_json:
        raise typer.BadParameter("--json is for --report DIR")
    arguments = [*(["--config", str(config)] if config else []), *context.args]
    if not arguments:
        raise typer.BadParameter("give --config FILE to compare, or --report DIR to show")
    raise typer.Exit(launch(find_recipe("compare"), arguments))


def _write_report(folder: Path, *, as_json: bool) -> None:
    quiet_libraries()
    from softhub.experiments.comparison.results import write_results

    results = write_results(folder)
    if as_json:
        emit_json(results.to_record())
    else:
        results.print()
