"""Output of the command: data on stdout, everything else on stderr, no terminal control codes."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from softhub.experiments.console import one_line, printable

if TYPE_CHECKING:
    from softhub.adapter.manifest import RecordedMetric


def emit(text: str) -> None:
    """Print data to stdout."""
    print(printable(text))


def emit_json(value: Any, *, indent: int | None = 2) -> None:
    """Print data as JSON, in ASCII so that it is safe on any terminal and in any encoding."""
    print(json.dumps(value, indent=indent))


def emit_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows as a table on a terminal, and as tab-separated lines otherwise."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for line in [columns, *cells]:
            print("\t".join(line))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for position, column in enumerate(columns):  # the first is a name, which people copy
        table.add_column(column, no_wrap=position == 0, overflow="fold")
    for line in cells:
        table.add_row(*(Text(cell) for cell in line))
    Console().print(table)


def emit_columns(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Print these columns of rows that have more."""
    emit_table(columns, [[row[column] for column in columns] for row in rows])


def emit_facts(facts: Sequence[tuple[str, Any]]) -> None:
    """Print names and values, one pair per line; pairs without a value are left out."""
    known = [(name, str(value)) for name, value in facts if value not in (None, "")]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        emit(f"{name:<{width}}  {one_line(value)}")


def text_of(value: Any, spec: str = "") -> str:
    """Return a value formatted by `spec`, as a table shows it; None is an empty cell."""
    return "" if value is None else format(value, spec)


def score(metric: "RecordedMetric") -> str:
    """Return a score with its interval, if it has one: `0.926 (0.901 to 0.945)`."""
    if metric.low is None or metric.high is None:
        return f"{metric.value:.3f}"
    return f"{metric.value:.3f} ({metric.low:.3f} to {metric.high:.3f})"


def quiet_libraries() -> None:
    """Turn off the progress bars of libraries not yet imported, unless stderr is a terminal."""
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
