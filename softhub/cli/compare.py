"""`softhub compare`: soft prompts compared with other methods on one task."""

from pathlib import Path
from typing import Annotated

import typer

from softhub.cli.options import EXISTING_FILE, JsonOption, option
from softhub.cli.output import emit_json
from softhub.cli.recipes import find_recipe
from softhub.cli.train import launch

ConfigOption = Annotated[Path | None, option("Configuration (YAML).", "FILE", **EXISTING_FILE)]
ReportOption = Annotated[
    Path | None,
    option(
        "Only rewrite the table and report in this output_dir.", "DIR", exists=True, file_okay=False
    ),
]


def compare(
    context: typer.Context,
    config: ConfigOption = None,
    report: ReportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare soft prompts with hard prompts, LoRA and fine-tuning.

    All methods use the same task, base model and data. Each result is saved as soon as it is
    available: a stopped comparison resumes, and finished rows are not repeated.

    Any other --key VALUE sets a key of the configuration and overrides the file; "-- --help" lists
    all keys. --json requires --report; a run writes the same figures to report.json.
    """
    if report is not None:
        if config is not None or context.args:
            raise typer.BadParameter("--report runs nothing; it can only be combined with --json")
        from softhub.experiments.comparison.results import write_results

        results = write_results(report)
        emit_json(results.to_record()) if as_json else results.print()
        return
    if as_json:
        raise typer.BadParameter("--json requires --report DIR")
    arguments = [*(["--config", str(config)] if config else []), *context.args]
    if not arguments:
        raise typer.BadParameter("give --config FILE to run a comparison, or --report DIR")
    raise typer.Exit(launch(find_recipe("compare"), arguments))
