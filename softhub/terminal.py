"""What a terminal shows: phases of long work with what is left of them, and tables that fit.

Where stderr is no terminal, as in a log, a phase is a line, and libraries show no bars.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from softhub.errors import SoftHubWarning

if TYPE_CHECKING:
    from rich.table import Table

QUIET = "SOFTHUB_QUIET"
"""Environment variable of `--quiet`, which the processes of a recipe inherit."""

# Modules with progress bars, and the function that turns them off.
_BARS = {
    "huggingface_hub.utils.tqdm": "disable_progress_bars",
    "transformers.utils.logging": "disable_progress_bar",
    "datasets.utils.tqdm": "disable_progress_bars",
}
_WIDEST = 10_000  # characters of a cell that is measured


@dataclass(frozen=True)
class _Phase:
    path: str  # its name after those of the phases around it
    warned: set[str]  # what was said in the outermost phase


_current: ContextVar[_Phase | None] = ContextVar("the current phase", default=None)


def is_quiet() -> bool:
    """Return whether only data, warnings and errors are wanted."""
    return os.environ.get(QUIET, "") not in ("", "0")


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: `1 row`, `2 rows`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


@contextmanager
def phase(
    what: str | None, total: int | None = None, unit: str = "step"
) -> Iterator[Callable[[int], None]]:
    """Say on stderr what is being done, unless quiet; only the first process of several does.

    On a terminal, a phase with a total is a bar with the time that is left. Elsewhere, as in a log,
    a phase is one line, and those within it are none.

    Args:
        what: The work, as `Comparing initializations`; None says nothing.
        total: Number of steps, if it is known.
        unit: What is counted, in the singular.

    Yields:
        A function that takes the number of further steps that are done.
    """
    outer = _current.get()
    path = ": ".join(name for name in (outer and outer.path, what) if name)
    token = _current.set(_Phase(path, outer.warned if outer else set()) if path else None)
    try:
        if what is None or is_quiet() or os.environ.get("RANK", "0") != "0":
            yield lambda _: None
        elif total is not None and sys.stderr.isatty():
            from tqdm.auto import tqdm

            with tqdm(total=total, desc=what, unit=unit, leave=outer is None) as bar:
                yield bar.update
        else:
            if outer is None:
                count = "" if total is None else f": {counted(total, unit)}"
                print(f"{what}{count} …", file=sys.stderr, flush=True)
            yield lambda _: None
    finally:
        _current.reset(token)


def warn_in_phase(message: str, stacklevel: int) -> None:
    """Issue a `SoftHubWarning` that names the current phase, once while the outermost one lasts.

    Args:
        message: The warning.
        stacklevel: As in `warnings.warn`, from the caller's point of view.
    """
    current = _current.get()
    if current is not None:
        if current.path in current.warned:
            return
        current.warned.add(current.path)
        message = f"{current.path}: {message}"
    warnings.warn(message, SoftHubWarning, stacklevel=stacklevel + 1)


def quiet_libraries() -> None:
    """Turn off the progress bars of libraries, unless stderr is a terminal and not quiet."""
    if sys.stderr.isatty() and not is_quiet():
        return
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")  # for those that are not imported yet
    for name, function in _BARS.items():
        if name in sys.modules:
            getattr(sys.modules[name], function)()


def print_whole(table: Table, width: int | None = None) -> None:
    """Print a table without a box to stdout; where its figures do not fit, it is wider.

    Args:
        table: The table; columns that must not be cut have `no_wrap`.
        width: Characters of a line; None for those of the terminal.
    """
    from rich.console import Console
    from rich.measure import Measurement

    console = Console(highlight=False, width=width)
    unlimited = console.options.update(width=_WIDEST)
    pads = len(table.columns) - (not table.pad_edge)
    needed = pads * (table.padding[1] + table.padding[3])
    for column in table.columns:
        sizes = [Measurement.get(console, unlimited, cell) for cell in column.cells]
        whole = max((s.maximum if column.no_wrap else s.minimum for s in sizes), default=0)
        needed += min(whole, column.max_width or whole)
    Console(highlight=False, width=max(console.width, needed)).print(table)
