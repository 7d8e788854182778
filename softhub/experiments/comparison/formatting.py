"""Scores, differences, numbers and times as tables and plots show them."""

from __future__ import annotations

from rich.filesize import decimal

from softhub.metrics import find_metric
from softhub.metrics.intervals import Interval

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


def score(interval: Interval, metric: str) -> str:
    """Return a score with its interval: `92.5 (90.8-94.1)`, with an en dash."""
    return find_metric(metric).format(*interval).replace("-", DASH)


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


def count(number: int) -> str:
    """Return a number in few characters: `9,216`, `134.5 M`."""
    return f"{number:,}" if number < 1e6 else decimal(number).removesuffix("B")


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
