"""What the command prints: data on stdout, all else on stderr, nothing that steers a terminal."""

import json
import logging
import os
import sys
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, TextIO, TypeVar

from softhub.errors import SoftHubWarning

Item = TypeVar("Item")


def printable(text: str) -> str:
    """Return `text` without anything that a terminal would obey; line breaks and tabs stay.

    Control characters (escape sequences begin with one), marks that reverse the reading direction
    and other invisible format characters vanish: names and texts come from strangers.
    """
    return "".join(
        character
        for character in text
        if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs")
    )


def one_line(text: str) -> str:
    """Return `text` printable and on one line."""
    return " ".join(printable(text).split())


def emit(text: str) -> None:
    """Print data to stdout."""
    print(printable(text))


def emit_json(value: Any, *, indent: int | None = 2) -> None:
    """Print data as JSON: ASCII only, so that it is safe on any terminal and in any encoding."""
    print(json.dumps(value, indent=indent))


def emit_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows as a table on a terminal, and as tab-separated lines anywhere else."""
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


def emit_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair a line."""
    width = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        emit(f"{name:<{width}}  {one_line(value)}")


def say(text: str) -> None:
    """Tell the person at the terminal something, on one line of stderr."""
    print(one_line(text), file=sys.stderr)


def progress(items: Sequence[Item], what: str) -> Iterator[Item]:
    """Pass `items` on, with a bar on stderr if that is a terminal and there is more than one."""
    from tqdm.auto import tqdm

    # None: only on a terminal.
    yield from tqdm(items, desc=what, leave=False, disable=None if len(items) > 1 else True)


def route_warnings() -> None:
    """Make softhub's warnings and log records plain lines on stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger("softhub").handlers = [handler]
    other = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, SoftHubWarning):
            say(f"warning: {message}")
        else:
            other(message, category, filename, lineno, file, line)

    warnings.showwarning = show


def quiet_libraries() -> None:
    """Keep the progress bars of libraries yet to be imported off a stderr that is no terminal."""
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def size(count: int) -> str:
    """Return a number of bytes as people say it, e.g. `46.2 kB`."""
    amount = float(count)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"
