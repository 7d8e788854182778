"""Scores, differences, sizes and times as tables, plots and sentences show them."""

from __future__ import annotations

from softhub.metrics import find_metric
from softhub.metrics.intervals import Interval

_SIZES = ("B", "kB", "MB", "GB", "TB")
_COUNTS = ("", "k", "M", "G", "T")
DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


def score(interval: Interval, metric: str) -> str:
    """Return a score with its interval: `92.5 (90.8-94.1)`, with an en dash."""
    return find_metric(metric).format(*interval).replace("-", DASH)


def score_in_sentence(interval: Interval, metric: str) -> str:
    """Return a score with its unit and interval: `92.5 % (90.8-94.1)`."""
    unit = find_metric(metric).unit
    return score(interval, metric).replace(" (", f" {unit} (" if unit else " (")


def difference(interval: Interval | None, metric: str) -> str:
    """Return a difference with its interval: `+1.0 (-0.2 to +2.4)`; a dash for None."""
    if interval is None:
        return DASH
    value, low, high = (_signed(find_metric(metric).scale * number) for number in interval)
    return f"{value} ({low} to {high})"


def _signed(number: float) -> str:
    rounded = round(number, 1)
    return f"{rounded:+.1f}".replace("-", MINUS) if rounded else "0.0"


def plain(text: str) -> str:
    """Return a text with ASCII dashes and minus signs, for terminals."""
    return text.replace(DASH, "-").replace(MINUS, "-")


def count(number: float) -> str:
    """Return a number in few characters: `9,216`, `134.5 M`."""
    return f"{number:,.0f}" if number < 1e6 else _abbreviated(number, _COUNTS)


def short_count(number: float) -> str:
    """Return a number for the tick of an axis: `10 k`."""
    return _abbreviated(number, _COUNTS, digits=0)


def size(number: float, *, digits: int = 1) -> str:
    """Return a number of bytes in decimal units: `45.8 kB`."""
    return _abbreviated(number, _SIZES, digits)


def duration(seconds: float) -> str:
    """Return a time in seconds, minutes or hours, whichever suits it: `7.4 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def milliseconds(seconds: float) -> str:
    """Return a time in milliseconds, with one decimal if it is below ten."""
    return f"{1000 * seconds:.1f}" if seconds < 0.01 else f"{1000 * seconds:.0f}"


def capitalized(text: str) -> str:
    """Return a text with its first letter in upper case, and the rest as it is."""
    return text[:1].upper() + text[1:]


def _abbreviated(number: float, units: tuple[str, ...], digits: int = 1) -> str:
    power = 0
    while number >= 999.5 and power < len(units) - 1:
        number, power = number / 1000, power + 1
    return f"{number:.{digits if power else 0}f} {units[power]}".rstrip()
