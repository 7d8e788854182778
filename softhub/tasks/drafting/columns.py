"""Which column is what: guessed from names and values, each guess with its reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from softhub.errors import DatasetError, did_you_mean
from softhub.metrics.label_sets import SEPARATOR, split_labels
from softhub.tasks.drafting.sources import read_column
from softhub.tasks.task import KINDS
from softhub.tasks.template import Template

if TYPE_CHECKING:
    from datasets import Dataset

# Names as people give them, the surest first. Only the order is used, and the name is never enough.
_TEXTS = (
    *("text", "sentence", "review", "content", "body", "message", "comment", "tweet", "post"),
    *("utterance", "input", "document", "article", "passage", "context", "question", "query"),
    *("prompt", "instruction", "abstract", "description", "source", "title", "headline"),
)
_LABELS = (
    *("label", "class", "sentiment", "category", "intent", "topic", "emotion", "polarity", "gold"),
    *("target", "rating", "stars", "y", "answer", "tag", "type", "grade", "verdict", "score"),
)
_TARGETS = (
    *("target", "summary", "highlights", "translation", "output", "response", "answer", "reply"),
    *("completion", "reference", "answers", "solution", "code", "headline", "title"),
)
_GROUPS = (
    *("group", "user", "author", "patient", "subject", "customer", "document", "doc", "review"),
    *("conversation", "thread", "session", "product", "speaker", "source", "url", "article"),
)
# Texts that belong together in one template.
_PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("context", "question"),
    ("passage", "question"),
    ("instruction", "input"),
)
_LOOKED_AT = 10_000
_FEW = 20
_LONG_LABEL = 100
_ID_GROUPS = 5
_SETS_SHARE = 0.02


@dataclass(frozen=True)
class Column:
    """What a column looks like.

    Attributes:
        name: Its name.
        kind: `text`, `number`, `classes` (with names), `sets` (several labels in a cell), or
            `other` (lists and records).
        rows: Rows that were looked at.
        filled: Those of them that have a value.
        distinct: Different values among them; of `sets` different labels.
        words: Words in a value, on average.
        longest: Characters of the longest value.
    """

    name: str
    kind: str
    rows: int
    filled: int
    distinct: int
    words: float
    longest: int

    @property
    def complete(self) -> bool:
        """Whether every row has a value."""
        return self.filled == self.rows

    @property
    def placeable(self) -> bool:
        """Whether a template can read it."""
        return Template(f"{{{self.name}}}").columns == (self.name,)

    def rank(self, names: Sequence[str]) -> int:
        """How near the column's name is to the front of a list: 0 if it is not in it."""
        words = [word for word in re.split(r"[^a-z]+", self.name.lower()) if word]
        words += [word[:-1] for word in words if word.endswith("s")]
        found = [len(names) - names.index(word) for word in words if word in names]
        return max(found, default=0)


@dataclass(frozen=True)
class Choices:
    """What a person has said about the columns; the rest is guessed.

    Attributes:
        texts: Columns that the template reads.
        label: The column of labels.
        target: The column of reference texts.
        group: The column that says which rows belong together.
        kind: `classification`, `multilabel` (a classification, too) or `generation`.
    """

    texts: tuple[str, ...] = ()
    label: str | None = None
    target: str | None = None
    group: str | None = None
    kind: str | None = None


@dataclass(frozen=True)
class Roles:
    """What each column is for, and why.

    Attributes:
        kind: Kind of the task.
        texts: Columns that the template reads.
        text: The one of them that may be cut.
        answer: The column of labels or reference texts.
        group: The column that says which rows belong together.
        reasons: For each key of the task file, why it is so.
        multilabel: Whether a row may have several labels, or none.
    """

    kind: str
    texts: tuple[str, ...]
    text: str
    answer: str
    group: str | None
    reasons: Mapping[str, str]
    multilabel: bool = False

    @property
    def side_texts(self) -> tuple[str, ...]:
        """Texts beside the one that may be cut; these may be blank."""
        return tuple(column for column in self.texts if column != self.text)

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that the task needs."""
        return (*self.texts, self.answer, *([self.group] if self.group else []))


def look_at(table: Dataset) -> list[Column]:
    """Describe every column by a sample of its values."""
    step = max(1, len(table) // _LOOKED_AT)
    sample = table.select(range(0, len(table), step))
    return [_describe(name, sample) for name in table.column_names]


def guess_roles(columns: Sequence[Column], choices: Choices) -> Roles:
    """Say which column is what.

    Args:
        columns: What the columns look like.
        choices: What a person has said.

    Raises:
        DatasetError: If a chosen column is not there, or a needed one cannot be told.
    """
    by_name = {column.name: column for column in columns}
    _check_choices(choices, by_name)
    if choices.label is None and choices.target is None:
        choices = _with_answer(columns, choices)
    answer = choices.label or choices.target or ""
    kind = "classification" if choices.label else "generation"
    reasons = {"kind": _kind_reason(by_name[answer], kind)}
    reasons["label_column" if choices.label else "target_column"] = _answer_reason(
        by_name[answer], kind
    )
    group = choices.group or _guess_group(
        [column for column in columns if column.name not in (answer, *choices.texts)]
    )
    free = [column for column in columns if column.name not in (answer, group)]
    texts = choices.texts or _guess_texts(free, columns)
    text = max(texts, key=lambda name: (by_name[name].complete, by_name[name].longest))
    reasons["text_column"] = _text_reason(by_name[text], len(texts))
    if group is not None:
        reasons["group_column"] = _group_reason(by_name[group])
    multilabel = choices.kind == "multilabel" or (
        choices.kind is None and choices.label is not None and by_name[answer].kind == "sets"
    )
    return Roles(kind, texts, text, answer, group, reasons, multilabel)


def _describe(name: str, sample: Dataset) -> Column:
    rows = len(sample)
    values = [value for value in read_column(sample, name) if value is not None]
    if any(not isinstance(value, str | int | float | tuple) for value in values):
        return Column(name, "other", rows, len(values), 0, 0, 0)
    labels = [label for value in values for label in _labels_in(value)]
    if _are_sets(values, labels):
        return Column(name, "sets", rows, len(values), len(set(labels)), 1, max(map(len, labels)))
    texts = ["\n".join(value) if isinstance(value, tuple) else str(value) for value in values]
    words = sum(len(text.split()) for text in texts) / max(1, len(texts))
    kind = "number" if texts and all(map(_is_number, texts)) else "text"
    if getattr(sample.features[name], "names", None):
        kind = "classes"
    return Column(
        name, kind, rows, len(texts), len(set(texts)), words, max(map(len, texts), default=0)
    )


def _labels_in(value: Any) -> Sequence[str]:
    return value if isinstance(value, tuple) else split_labels(str(value))


def _are_sets(values: Sequence[Any], labels: Sequence[str]) -> bool:
    """Whether cells hold several labels: lists of them, or names parted by `;`."""
    several = sum(isinstance(value, tuple) or SEPARATOR in str(value) for value in values)
    if not labels or several < _SETS_SHARE * len(values):
        return False
    short = max(map(len, labels)) <= _LONG_LABEL
    return short and 2 <= len(set(labels)) <= len(labels) / 2


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_choices(choices: Choices, columns: Mapping[str, Column]) -> None:
    chosen = [*choices.texts, choices.label, choices.target, choices.group]
    named = [name for name in chosen if name is not None]
    for name in named:
        if name not in columns:
            raise DatasetError(f"there is no column {name!r}{did_you_mean(name, columns)}")
        if named.count(name) > 1:
            raise DatasetError(f"the column {name!r} is given twice; each has one part to play")
    for name in choices.texts:
        if not columns[name].placeable:
            raise DatasetError(
                f"a template cannot read the column {name!r}: its name must begin with a letter "
                f"and hold letters, digits, spaces, '.', '-' or '_'; rename it in the data"
            )
    if choices.kind is not None and choices.kind not in (*KINDS, "multilabel"):
        known = (*KINDS, "multilabel")
        raise DatasetError(f"unknown kind {choices.kind!r}{did_you_mean(choices.kind, known)}")
    if choices.label and (choices.target or choices.kind == "generation"):
        raise DatasetError("a label is for classification, a target for generation; choose one")
    if choices.target and choices.kind not in (None, "generation"):
        raise DatasetError("a target is for generation; name the column of labels with --label")


def _with_answer(columns: Sequence[Column], choices: Choices) -> Choices:
    free = [c for c in columns if c.name not in (*choices.texts, choices.group)]
    label = _best((column, _label_score(column)) for column in free)
    target = _best((column, _target_score(column)) for column in free)
    sure = label is not None and (label.kind in ("classes", "sets") or label.rank(_LABELS) > 0)
    named = target is not None and target.rank(_TARGETS) > 0
    pair = sum(_target_score(column) > 0 for column in free) == 2  # one becomes the other
    if choices.kind != "generation" and label and (sure or not named or choices.kind):
        return replace(choices, label=label.name)
    if choices.kind in (None, "generation") and target and (named or pair or choices.kind):
        return replace(choices, target=target.name)
    raise DatasetError(
        f"cannot tell which column holds the answers; the columns are "
        f"{', '.join(_shortly(column) for column in columns)}. Say --label COLUMN (classification) "
        f"or --target COLUMN (generation)"
    )


def _best(scored: Iterable[tuple[Column, float]]) -> Column | None:
    """The column with the highest score above 0; of equals the last, where answers often stand."""
    best, highest = None, 0.0
    for column, score in scored:
        if score > 0 and score >= highest:
            best, highest = column, score
    return best


def _label_score(column: Column) -> float:
    if column.kind == "other" or column.distinct < 2 or column.longest > _LONG_LABEL:
        return 0
    if column.kind in ("classes", "sets"):
        return (200 if column.kind == "classes" else 150) + column.rank(_LABELS)
    repeated = column.distinct <= column.filled / 2
    rank = column.rank(_LABELS) or (len(_LABELS) if column.name.lower().startswith("is_") else 0)
    # A number without a telling name is a measurement, but for a switch.
    most = 2 if column.kind == "number" else _FEW
    if repeated and rank:
        return 100 + rank
    if repeated and column.distinct <= most and not column.rank(_GROUPS):
        return 50 - column.distinct
    return 0


def _target_score(column: Column) -> float:
    if column.kind != "text" or column.distinct < 2:
        return 0
    rank = column.rank(_TARGETS)
    if rank:
        return 100 + rank
    return 1 + min(column.words, 40) / 100 if column.words > 1.5 else 0


def _guess_texts(free: Sequence[Column], columns: Sequence[Column]) -> tuple[str, ...]:
    names = {column.name for column in free if column.kind == "text" and column.placeable}
    for pair in _PAIRS:
        if set(pair) <= names:
            return pair
    best = _best((column, _text_score(column)) for column in reversed(free))
    if best is None:
        raise DatasetError(
            f"cannot tell which column holds the texts; the columns are "
            f"{', '.join(_shortly(column) for column in columns)}. Say --text COLUMN"
        )
    return (best.name,)


def _text_score(column: Column) -> float:
    if column.kind != "text" or not column.placeable:
        return 0
    score = 1 + min(column.words, 60) + column.rank(_TEXTS)
    return score * (column.distinct / max(1, column.rows))


def _guess_group(free: Sequence[Column]) -> str | None:
    """A column that names what a row belongs with: many different values, each in a few rows."""
    found = [column for column in free if _is_group(column)]
    return max(found, key=lambda column: column.rank(_GROUPS)).name if found else None


def _is_group(column: Column) -> bool:
    if column.kind == "other" or column.words > 2 or not column.rank(_GROUPS):
        return False
    return _ID_GROUPS <= column.distinct <= 0.95 * column.filled


def _kind_reason(answer: Column, kind: str) -> str:
    if kind == "generation":
        return f"{answer.name!r} holds free text"
    return f"{answer.name!r} holds one of a few labels"


def _answer_reason(answer: Column, kind: str) -> str:
    if answer.kind == "classes":
        return f"the dataset declares {answer.distinct} classes"
    if answer.kind == "sets":
        return f"{answer.distinct} labels, of which a row may have several or none"
    if kind == "generation":
        return f"free text of {answer.words:.0f} words on average"
    values = "numbers" if answer.kind == "number" else "short values"
    return f"{answer.distinct} different {values} in {answer.filled} rows"


def _text_reason(text: Column, count: int) -> str:
    share = text.distinct / max(1, text.filled)
    found = f"{text.words:.0f} words on average, {share:.0%} of them different"
    return f"{found}; of {count} texts the one to cut" if count > 1 else found


def _group_reason(group: Column) -> str:
    return f"{group.distinct} different values, in {group.filled / group.distinct:.1f} rows each"


def _shortly(column: Column) -> str:
    return f"{column.name} ({column.kind}, {column.distinct} different)"
