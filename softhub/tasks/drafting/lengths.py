"""The lengths of texts: in words, or characters in an unspaced script, or a base's tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from softhub.tasks.task import Task
from softhub.tasks.template import Template

_SAMPLED = 1000  # texts that tell in which script they are
# Thai, Lao, Burmese, Khmer, kana, and Chinese characters.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)


def count_words(text: str) -> int:
    """Return the number of words; each character of an unspaced script counts as one."""
    return len(_UNSPACED.sub(" x ", text).split())


def word_unit(texts: Iterable[str]) -> str:
    """Return what `count_words` mostly counts: `characters` in an unspaced script, or `words`."""
    joined = "".join("".join(text.split()) for text in texts)
    return "characters" if len(_UNSPACED.findall(joined)) > len(joined) / 2 else "words"


@dataclass(frozen=True)
class LengthCounter:
    """Counts the words of rendered texts; a subclass counts a base model's tokens."""

    unit: str = "words"
    limit: int | None = None  # that fits into the base with a prompt and an answer, if known

    def length(self, template: Template, row: Mapping[str, Any]) -> int:
        """Return the length of a rendered row."""
        return count_words(template.render(row))

    def problem(self, task: Task) -> str | None:
        """Return why the base model cannot do the task as it is written; None if it can."""
        return None


@dataclass(frozen=True)
class Lengths:
    """Lengths of the training texts as the model reads them."""

    unit: str  # words, characters or tokens
    median: int
    most: int  # 95 of 100 texts are no longer
    longest: int
    limit: int | None  # at which texts are truncated, if known
    truncated: int  # number of texts that are longer
    texts: int


def measure(
    rows: Sequence[Mapping[str, Any]], template: Template, counter: LengthCounter
) -> Lengths:
    """Measure the training texts."""
    lengths = sorted(counter.length(template, row) for row in rows) or [0]
    unit, limit = counter.unit, counter.limit
    if unit == "words":
        unit = word_unit(template.render(row) for row in rows[:_SAMPLED])
    return Lengths(
        unit=unit,
        median=lengths[len(lengths) // 2],
        most=lengths[int(0.95 * len(lengths))],
        longest=lengths[-1],
        limit=limit,
        truncated=sum(limit is not None and length > limit for length in lengths),
        texts=len(rows),
    )
