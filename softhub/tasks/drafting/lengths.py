"""How long the rendered texts are: in words, or in a base model's tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from softhub.tasks.drafting.columns import Roles
from softhub.tasks.drafting.sources import Table
from softhub.tasks.task import Task
from softhub.tasks.template import Template

_SAMPLED = 1000
_COUNTED = 5000


class Ruler(Protocol):
    """Measures rendered texts.

    Attributes:
        unit: What it counts, in the plural.
        limit: Most that fit into the base model beside a prompt and an answer; None if unknown.
    """

    @property
    def unit(self) -> str:
        """What it counts, in the plural."""

    @property
    def limit(self) -> int | None:
        """Most that fit into the base model beside a prompt and an answer; None if unknown."""

    def length(self, template: Template, row: Mapping[str, Any]) -> int:
        """Return how long a row is when it is rendered."""

    def problem(self, task: Task) -> str | None:
        """Return why the base cannot do the task as it is written; None if it can."""


@dataclass(frozen=True)
class WordRuler:
    """Counts words, where no base model is given."""

    unit: str = "words"
    limit: int | None = None

    def length(self, template: Template, row: Mapping[str, Any]) -> int:
        """Return the number of words of the rendered row."""
        return len(template.render(row).split())

    def problem(self, task: Task) -> str | None:
        """Return None: without a tokenizer there is nothing to find."""
        return None


@dataclass(frozen=True)
class Lengths:
    """Lengths of the training texts as the model reads them.

    Attributes:
        unit: `words` or `tokens`.
        median: Half of the texts are no longer.
        most: 95 of 100 are no longer.
        longest: The longest that was seen.
        limit: Where texts are cut; None if unknown.
        cut: Texts that are longer than the limit.
        texts: Texts there are.
        estimated: Whether `cut` is estimated from a sample, because too many could be too long.
    """

    unit: str
    median: int
    most: int
    longest: int
    limit: int | None
    cut: int
    texts: int
    estimated: bool = False


def measure(
    table: Table, roles: Roles, template: Template, ruler: Ruler, *, max_length: int | None
) -> Lengths:
    """Measure a sample of the texts, and all that could be too long.

    Args:
        table: The training rows.
        roles: What the columns are.
        template: Renders them.
        ruler: Measures them.
        max_length: The task's own limit in tokens.
    """
    rows = table.whole
    sampled = rows[:: max(1, len(rows) // _SAMPLED)]
    lengths = {row: ruler.length(template, _shown(table, roles, row)) for row in sampled}
    limits = [limit for limit in (ruler.limit, max_length) if limit is not None]
    limit = min(limits) if limits and ruler.unit == "tokens" else None
    doubtful = _doubtful(table, roles, rows, template, limit)
    for row in doubtful[:_COUNTED]:
        lengths[row] = ruler.length(template, _shown(table, roles, row))
    estimated = len(doubtful) > _COUNTED
    looked_at = sampled if estimated else [*lengths]
    cut = sum(limit is not None and lengths[row] > limit for row in looked_at)
    ordered = sorted(lengths[row] for row in sampled)
    return Lengths(
        unit=ruler.unit,
        median=_quantile(ordered, 0.5),
        most=_quantile(ordered, 0.95),
        longest=max(lengths.values(), default=0),
        limit=limit,
        cut=round(cut * len(rows) / len(sampled)) if estimated else cut,
        texts=len(rows),
        estimated=estimated,
    )


def _doubtful(
    table: Table, roles: Roles, rows: Sequence[int], template: Template, limit: int | None
) -> list[int]:
    """Rows that could be longer than the limit, longest first; without a limit the longest row."""
    size = {
        row: sum(len(str(table.columns[column][row]).encode()) for column in roles.texts)
        for row in rows
    }
    longest_first = sorted(rows, key=lambda row: -size[row])
    if limit is None:
        return longest_first[:1]
    room = limit - len(template.text.encode())  # no token has less than a byte
    return [row for row in longest_first if size[row] > room]


def _shown(table: Table, roles: Roles, row: int) -> dict[str, Any]:
    return {column: table.columns[column][row] for column in roles.texts}


def _quantile(ordered: Sequence[int], share: float) -> int:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0
