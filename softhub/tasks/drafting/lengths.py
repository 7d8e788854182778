"""The lengths of the rendered texts: in words, or in a base model's tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from softhub.tasks.drafting.rows import RowSet
from softhub.tasks.drafting.words import count_words, word_unit
from softhub.tasks.task import Task
from softhub.tasks.template import Template

_SAMPLED = 1000  # texts that tell in which script they are


@dataclass(frozen=True)
class LengthCounter:
    """Counts the words of rendered texts; a subclass counts a base model's tokens.

    Attributes:
        unit: The unit, in the plural.
        limit: The maximum that fits into the base model with a prompt and an answer, if known.
    """

    unit: str = "words"
    limit: int | None = None

    def length(self, template: Template, row: Mapping[str, Any]) -> int:
        """Return the length of a rendered row."""
        return count_words(template.render(row))

    def problem(self, task: Task) -> str | None:
        """Return why the base model cannot do the task as it is written; None if it can."""
        return None


@dataclass(frozen=True)
class Lengths:
    """Lengths of the training texts as the model reads them.

    Attributes:
        unit: `words`, `characters` (of a script without spaces) or `tokens`.
        median: Half of the texts are no longer.
        most: 95 of 100 are no longer.
        longest: The length of the longest text.
        limit: Length at which texts are truncated; None if unknown.
        truncated: Number of texts that are longer than the limit.
        texts: Number of texts.
    """

    unit: str
    median: int
    most: int
    longest: int
    limit: int | None
    truncated: int
    texts: int


def measure(
    train: RowSet, template: Template, counter: LengthCounter, max_length: int | None
) -> Lengths:
    """Measure the training texts."""
    lengths = sorted(counter.length(template, row.values) for row in train.rows) or [0]
    limits = [limit for limit in (counter.limit, max_length) if limit is not None]
    unit = counter.unit
    if unit == "words":
        unit = word_unit(template.render(row.values) for row in train.rows[:_SAMPLED])
    limit = min(limits) if limits and unit == "tokens" else None
    return Lengths(
        unit=unit,
        median=lengths[len(lengths) // 2],
        most=lengths[int(0.95 * len(lengths))],
        longest=lengths[-1],
        limit=limit,
        truncated=sum(limit is not None and length > limit for length in lengths),
        texts=len(train.rows),
    )
