"""The role of each column: guessed from names and values, unless the user names it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from softhub.errors import DatasetError, did_you_mean
from softhub.tasks.data_files import is_chat
from softhub.tasks.drafting.lengths import count_words
from softhub.tasks.plain_values import is_nothing
from softhub.tasks.split_table import SplitTable
from softhub.tasks.template import is_readable, unreadable

# Common names, the most telling first. Only the order counts, and a name alone is never enough.
_LABELS = (
    *("label", "class", "sentiment", "category", "intent", "topic", "emotion", "polarity", "gold"),
    *("target", "rating", "stars", "y", "answer", "tag", "type", "grade", "verdict", "score"),
)
_NO_LABELS = ("id", "user", "author", "patient", "customer", "session", "product", "source", "url")
# Texts with such a name are written for the answer and reveal it.
_ANSWERS = (
    *(*_LABELS, "explanation", "rationale", "response", "output", "completion"),
    *("summary", "translation", "prediction"),
)
LONGEST_LABEL = 100
_FEW_LABELS = 20
_NAMED = 100
_FEWEST_WORDS = 3  # of a further text; names and dates have fewer
_MOST_REPEATED = 10  # rows for each different further text, as premises have
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
FEWEST_ROWS = 10  # fewer do not tell which column is which


@dataclass(frozen=True)
class Column:
    """Statistics of a column's values."""

    name: str
    kind: str  # text, number, classes (with names), or other (lists and objects)
    filled: int  # rows that have a value
    distinct: int = 0  # different values
    words: float = 0  # in a value, on average
    longest: int = 0  # characters of the longest value
    is_chat: bool = False  # lists of messages

    @property
    def in_template(self) -> bool:
        """Whether a template can read the column."""
        return is_readable(self.name)

    def rank(self, names: Sequence[str]) -> int:
        """Return how near the column's name is to the front of a list; 0 if it is not in it."""
        words = [word for word in re.split(r"[^a-z]+", self.name.lower()) if word]
        words += [word[:-1] for word in words if word.endswith("s")]
        found = [len(names) - names.index(word) for word in words if word in names]
        return max(found, default=0)


@dataclass(frozen=True)
class Choices:
    """The columns that the user named; the rest is guessed."""

    texts: tuple[str, ...] = ()  # that the template reads
    label: str | None = None  # of a classification
    target: str | None = None  # reference texts, of a generation task
    group: str | None = None  # tells which rows belong together
    multilabel: bool = False  # whether a row may have several labels, or none


@dataclass(frozen=True)
class Roles:
    """The role of each column."""

    kind: str  # of the task
    texts: tuple[str, ...]  # columns that the template reads
    text: str  # the one of them that may be truncated
    answer: str  # the column of labels or reference texts
    group: str | None  # the column that tells which rows belong together
    multilabel: bool = False  # whether a row may have several labels, or none

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that the task needs."""
        return (*self.texts, self.answer, *([self.group] if self.group else []))


def describe_columns(table: SplitTable) -> list[Column]:
    """Describe every column by its values."""
    return [_describe(name, table) for name in table.columns]


def guess_roles(columns: Sequence[Column], choices: Choices) -> Roles:
    """Guess the role of each column."""
    by_name = {column.name: column for column in columns}
    _check_choices(choices, by_name)
    if len(columns) == 1 and not columns[0].is_chat:
        raise DatasetError(
            f"the data has a single column, {columns[0].name!r}; expected texts and answers, so "
            f"add a column with what is missing"
        )
    choices = _with_chat(choices, by_name)
    answer = by_name[choices.target or choices.label or _guess_label(columns, choices)]
    free = [column for column in columns if column.name not in (answer.name, choices.group)]
    texts = choices.texts or _guess_texts(free, columns)
    text = max((by_name[name] for name in texts), key=_cut_rank)
    kind = "generation" if choices.target else "classification"
    return Roles(kind, texts, text.name, answer.name, choices.group, choices.multilabel)


def read_column(table: SplitTable, name: str) -> list[Any]:
    """Return a column's values: classes by name, lists of text as tuples, `None` where missing."""
    classes = table.class_names(name)
    return [_cell(value, classes) for value in table.values(name)]


def _cell(value: Any, classes: Sequence[str]) -> Any:
    if isinstance(value, list):
        items = [_cell(item, classes) for item in value]
        return tuple(items) if all(isinstance(item, str) for item in items) else value
    if is_nothing(value) or (isinstance(value, str) and not value.strip()):
        return None
    if classes:  # datasets on the Hub mark a row without a label by -1
        return classes[value] if value >= 0 else None
    return value


def _describe(name: str, table: SplitTable) -> Column:
    values = [value for value in read_column(table, name) if value is not None]
    values = ["\n".join(value) if isinstance(value, tuple) else value for value in values]
    if any(not isinstance(value, str | int | float) for value in values):
        return Column(name, "other", len(values), is_chat=all(map(is_chat, values)))
    texts = [str(value) for value in values]
    words = sum(map(count_words, texts)) / max(1, len(texts))
    kind = "number" if texts and all(map(NUMBER.fullmatch, texts)) else "text"
    kind = "classes" if table.class_names(name) else kind
    longest = max(map(len, texts), default=0)
    return Column(name, kind, len(texts), len(set(texts)), words, longest)


def _check_choices(choices: Choices, columns: Mapping[str, Column]) -> None:
    named = [*choices.texts, choices.label, choices.target, choices.group]
    for name in filter(None, named):
        if name not in columns:
            raise DatasetError(f"there is no column {name!r}{did_you_mean(name, columns)}")
        if named.count(name) > 1:
            raise DatasetError(f"the column {name!r} is given twice; give each column one role")
    for name in choices.texts:
        if not columns[name].in_template:
            raise DatasetError(unreadable(name))
    if choices.target and (choices.label or choices.multilabel):
        raise DatasetError("labels are for classification, a target for generation; choose one")


def _with_chat(choices: Choices, columns: Mapping[str, Column]) -> Choices:
    """Return the choices with the messages of chats of one turn in their roles."""
    named = choices.target or choices.label or choices.texts or choices.multilabel
    if named or any(column.is_chat for column in columns.values()):
        return choices
    for name, answer in columns.items():
        chat, _, role = name.rpartition(".")
        asked = columns.get(f"{chat}.user")
        if role == "assistant" and asked is not None and answer.kind == "text":
            texts = [column for column in (columns.get(f"{chat}.system"), asked) if column]
            filled = tuple(text.name for text in texts if text.filled >= answer.filled)
            return replace(choices, texts=filled or (asked.name,), target=name)
    return choices


def _guess_label(columns: Sequence[Column], choices: Choices) -> str:
    free = [column for column in columns if column.name not in (*choices.texts, choices.group)]
    label = _best(free, _label_score)
    if label is None:
        raise DatasetError(
            f"{_why_no_label(columns, free)}; the columns are {_listed(columns)}. "
            f"Name it with --label COLUMN (classification) or --target COLUMN (generation)"
        )
    return label.name


def _why_no_label(columns: Sequence[Column], free: Sequence[Column]) -> str:
    """Return the cause, as far as the columns tell it: chats, one class, few rows."""
    chat = next((column.name for column in free if column.is_chat), None)
    if chat is not None:
        return (
            f"{chat!r} contains chats of several turns; expected one text and one answer in a row. "
            f"Write a row for each answer, with the messages before it as a column of text"
        )
    rows = max((column.filled for column in free), default=0)
    single = next((c for c in free if c.distinct == 1 and c.rank(_LABELS)), None)
    if single is not None:
        return (
            f"{single.name!r} has the same value in all rows, and a classification needs two or "
            f"more labels; add rows with another label, or choose another column"
        )
    cause = f"{rows} rows are too few to tell" if rows < FEWEST_ROWS else "cannot tell"
    return f"{cause} which column contains the answers"


def _best(columns: Sequence[Column], score: Callable[[Column], float]) -> Column | None:
    """Return the column with the highest score above 0, and of equals the last."""
    best = max(reversed(columns), key=score, default=None)
    return best if best is not None and score(best) > 0 else None


def _label_score(column: Column) -> float:
    if column.kind == "classes":
        return 2 * _NAMED
    repeated = 2 <= column.distinct <= column.filled / 2 and column.longest <= LONGEST_LABEL
    if not repeated or column.kind == "other":
        return 0
    rank = column.rank(_LABELS) or column.name.lower().startswith("is_")
    # A number without a telling name is a measurement, unless it has only two values.
    few = column.distinct <= (2 if column.kind == "number" else _FEW_LABELS)
    return _NAMED + rank if rank else (1 / column.distinct) * (few and not column.rank(_NO_LABELS))


def _guess_texts(free: Sequence[Column], columns: Sequence[Column]) -> tuple[str, ...]:
    """Return the column with the longest texts, unless most of them are the same, and its peers."""
    texts = [column for column in free if column.kind == "text" and column.in_template]
    best = _best(texts[::-1], lambda text: text.words * text.distinct)
    if best is None:
        raise DatasetError(
            f"cannot tell which column contains the texts; the columns are {_listed(columns)}. "
            f"Name it with --text COLUMN"
        )
    return tuple(text.name for text in texts if text is best or _is_peer(text, best))


def _cut_rank(text: Column) -> tuple[int, bool, int]:
    """Return how well a text is the one to truncate: not one that is the same in all rows."""
    return text.filled, text.distinct > 1, text.longest


def _is_peer(text: Column, best: Column) -> bool:
    """Return whether a column is another text to read, in no fewer rows, and not the answer."""
    repeated = text.filled / max(1, text.distinct)
    is_text = text.words >= _FEWEST_WORDS and repeated <= _MOST_REPEATED
    return is_text and not text.rank(_ANSWERS) and text.filled >= best.filled


def _listed(columns: Sequence[Column]) -> str:
    return ", ".join(f"{c.name} ({c.kind}, {c.distinct} different)" for c in columns)
