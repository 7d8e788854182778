"""Trackers of runs: trackio, TensorBoard and Weights & Biases, through transformers' callbacks."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from transformers import TrainingArguments
from transformers.integrations.integration_utils import (
    get_available_reporting_integrations,
    get_reporting_integration_callbacks,
)

from softhub.errors import TrainingError

_ROOT = "runs"


def check_trackers(report_to: str | Sequence[str] | None) -> None:
    """Refuse trackers that are unknown or not installed, before anything is loaded.

    Args:
        report_to: Their names; transformers has made a list of them.

    Raises:
        TrainingError: Says which, and what installs it.
    """
    for name in [report_to] if isinstance(report_to, str) else report_to or ():
        try:
            get_reporting_integration_callbacks([name])
        except ValueError as error:
            raise TrainingError(f"report_to: {error}") from None
        if name in ("tensorboard", "trackio", "wandb") and not _installed(name):
            raise TrainingError(
                f"report_to asks for {name}, which is not installed: pip install {name}, or leave "
                "report_to out. Losses and scores are in report.json and curve.png all the same."
            )


def _installed(name: str) -> bool:
    return name in get_available_reporting_integrations()


def run_name(output_dir: str) -> str:
    """What trackers call a run: its folder, without the `runs/` that all have in common.

    Of an absolute path only the end is told.
    """
    parts = Path(output_dir).parts
    if Path(output_dir).is_absolute():
        parts = parts[-2:] if parts[-1].startswith("restart-") else parts[-1:]
    elif parts[:1] == (_ROOT,) and len(parts) > 1:
        parts = parts[1:]
    return "/".join(parts)


@contextmanager
def tracked(args: TrainingArguments) -> Iterator[None]:
    """Name a run for its trackers, and end it there; what they print goes to stderr.

    A tracker that is left open would take the next run of this process for the same one.

    Args:
        args: The run's arguments; those without a `run_name` have one meanwhile.
    """
    if not args.report_to:
        yield
        return
    given, args.run_name = args.run_name, args.run_name or run_name(str(args.output_dir))
    with redirect_stdout(sys.stderr):
        try:
            yield
        finally:
            args.run_name = given
            if "wandb" in args.report_to and "wandb" in sys.modules:
                sys.modules["wandb"].finish()
