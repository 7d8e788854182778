"""Output of the command: data on stdout, everything else on stderr, no terminal control codes."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from softhub.config import expand_user
from softhub.errors import ConfigError
from softhub.experiments.console import note, one_line, printable
from softhub.files import replace_file
from softhub.terminal import counted

if TYPE_CHECKING:
    from pandas import Series

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
    name = max((len(line[0]) for line in cells), default=0)  # which people copy
    console = Console()
    whole = name <= console.width / 2
    for position, column in enumerate(columns):
        table.add_column(column, no_wrap=whole and position == 0, overflow="fold")
    for line in cells:
        table.add_row(*(Text(cell) for cell in line))
    console.print(table)


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


def check_output(path: Path | None) -> Path | None:
    """Check that results can be written to a file, before anything is computed.

    Raises:
        typer.BadParameter: The name has another ending, or is that of a folder.
    """
    from softhub.tasks.table_writing import ENDINGS  # which loads numpy

    if path is not None:
        path = expand_user(path)
        if path.suffix.lower() not in ENDINGS:
            raise typer.BadParameter(f"{path} must end in {', '.join(ENDINGS)}")
        if path.is_dir():
            raise typer.BadParameter(f"{path} is a folder; expected the name of a file")
    return path


def check_one_format(output: Path | None, as_json: bool) -> None:
    """Refuse `--output` together with `--json`, which prints."""
    if output is not None and as_json:
        raise typer.BadParameter("--json prints the results, and --output writes them; give one")


def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write records to a .csv, .jsonl or .parquet file, in whose columns mappings are flattened.

    Raises:
        ConfigError: The file cannot be written.
    """
    import io

    import pandas as pd

    from softhub.tasks.table_writing import csv_cell

    buffer = io.BytesIO()
    table = pd.json_normalize([*records])
    if path.suffix.lower() == ".jsonl":
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        buffer.write("".join(lines).encode())
    elif path.suffix.lower() == ".csv":
        table.map(csv_cell).to_csv(buffer, index=False)
    else:
        table.apply(_storable).to_parquet(buffer, index=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, buffer.getvalue())
    except OSError as error:
        raise ConfigError(f"Cannot write {str(path)!r}: {error.strerror}.") from error
    note(f"Wrote {counted(len(records), 'row')} to {path}")


def _storable(column: "Series[Any]") -> "Series[Any]":
    """Return a column as it is, or as text if it has values of several types."""
    import pyarrow as pa

    from softhub.tasks.table_writing import csv_cell

    try:
        pa.array(column, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return column.map(csv_cell).map(str, na_action="ignore")
    return column
