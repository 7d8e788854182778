"""How tables, plots and sentences write a figure."""

from __future__ import annotations

from softhub.metrics.intervals import Interval

_SIZES = ("B", "kB", "MB", "GB", "TB")
_COUNTS = ("", "k", "M", "G", "T")
DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


def percent(interval: Interval) -> str:
    """A score with its interval, in per cent: `92.5 (90.8-94.1)`."""
    return f"{100 * interval.value:.1f} ({100 * interval.low:.1f}{DASH}{100 * interval.high:.1f})"


def in_words(interval: Interval) -> str:
    """The same for a sentence: `92.5 % (90.8-94.1)`."""
    return percent(interval).replace(" (", " % (")


def points(interval: Interval) -> str:
    """A difference with its interval, in points: `+1.0 (-0.2 to +2.4)`."""
    return f"{_signed(interval.value)} ({_signed(interval.low)} to {_signed(interval.high)})"


def _signed(share: float) -> str:
    rounded = round(100 * share, 1)
    return f"{rounded:+.1f}".replace("-", MINUS) if rounded else "0.0"


def plain(text: str) -> str:
    """The same in ASCII, for terminals."""
    return text.replace(DASH, "-").replace(MINUS, "-")


def count(number: float) -> str:
    """A number in few characters: `9,216`, `134.5 M`."""
    return f"{number:,.0f}" if number < 1e6 else _scaled(number, _COUNTS)


def size(amount: float) -> str:
    """Bytes as people say them: `45.8 kB`."""
    return _scaled(amount, _SIZES)


def short_count(number: float) -> str:
    """A number for the tick of an axis: `10 k`."""
    return _scaled(number, _COUNTS, digits=0)


def short_size(amount: float) -> str:
    """Bytes for the tick of an axis: `10 kB`."""
    return _scaled(amount, _SIZES, digits=0)


def duration(seconds: float) -> str:
    """Seconds, or minutes where there are many: `7.4 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def milliseconds(seconds: float) -> str:
    """Milliseconds, with a digit behind the point where there are few."""
    return f"{1000 * seconds:.1f}" if seconds < 0.01 else f"{1000 * seconds:.0f}"


def metric_name(name: str) -> str:
    """`macro_f1` as people read it."""
    return name.replace("_", " ")


def _scaled(amount: float, units: tuple[str, ...], digits: int = 1) -> str:
    unit = 0
    while amount >= 999.5 and unit < len(units) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.{digits if unit else 0}f} {units[unit]}".rstrip()
