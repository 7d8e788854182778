"""What a person should know of the data before a model is trained on it."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from softhub.tasks.drafting.columns import Roles
from softhub.tasks.drafting.lengths import Lengths
from softhub.tasks.drafting.sources import Table
from softhub.tasks.drafting.splitting import same_text
from softhub.tasks.drafting.templates import Labels, labels_in

FEW_ROWS = 8
"""A label with fewer training rows is hardly learned."""

SKEW = 10
"""The commonest label is so many times as common as the rarest, or more: that is imbalance."""

_MANY_LABELS = 200
_LONG_IN_WORDS = 700
_SHOWN = 5
_FEW_TESTED = 100
_LEAK_SAMPLE = 20_000
_LEAK_ROWS, _LEAK_SHARE, _LEAK_ELSEWHERE = 10, 0.8, 0.02
_COPY_SHARE, _COPY_CHARACTERS = 0.5, 12
_WORD = re.compile(r"[\w#@]+")


@dataclass(frozen=True)
class Finding:
    """One thing to know.

    Attributes:
        name: What kind of thing, for programs.
        text: What was found, and what to do about it.
    """

    name: str
    text: str


def find_all(
    tables: Mapping[str, Table],
    roles: Roles,
    labels: Labels | None,
    lengths: Lengths,
) -> list[Finding]:
    """Look at complete and incomplete rows from all sides.

    Args:
        tables: The rows of each split.
        roles: What the columns are.
        labels: The labels, for classification.
        lengths: How long the training texts are.
    """
    found = [*_splits(tables), *_repeated(tables, roles), *_across(tables, roles)]
    if labels is not None:
        found += [
            *_header(roles, labels),
            *_labels(labels),
            *_balance(labels),
            *_absent(tables, roles, labels),
        ]
        if not roles.multilabel:
            found += _telling_words(tables["train"], roles, labels)
    else:
        found += _copies(tables["train"], roles)
    return [*found, *_too_long(lengths)]


def is_skewed(labels: Labels) -> bool:
    """Tell whether one label is far commoner than another."""
    counts = [count for count in labels.counts.values() if count]
    return bool(counts) and max(counts) >= SKEW * min(counts)


def missing_rows(tables: Mapping[str, Table]) -> Iterator[Finding]:
    """Say in which rows something is missing.

    Args:
        tables: The rows of each split.
    """
    for table in tables.values():
        lacking = sorted(set(range(table.size)) - set(table.whole))
        if not lacking:
            continue
        columns = [name for name, values in table.columns.items() if None in values]
        yield Finding(
            "missing",
            f"{table.place(lacking[0])}: {' or '.join(map(repr, columns))} is missing, as in "
            f"{len(lacking)} of {table.size} rows in all; they are left out",
        )


def _splits(tables: Mapping[str, Table]) -> Iterator[Finding]:
    if "test" not in tables:
        yield Finding(
            "no-test",
            "there is no test split, which training reports its score on; give --test FILE, or "
            "divide the rows with --split",
        )
    elif tables["test"].size < _FEW_TESTED:
        rows = tables["test"].size
        yield Finding(
            "small-test",
            f"test has {_count(rows, 'row', 'rows')}: a score on so few is uncertain by some "
            f"{round(100 / math.sqrt(rows))} points",
        )


def _repeated(tables: Mapping[str, Table], roles: Roles) -> Iterator[Finding]:
    train = tables["train"]
    answers: dict[str, set[str]] = defaultdict(set)
    texts = _texts(train, roles)
    for row, text in texts.items():
        answers[text].add(str(train.columns[roles.answer][row]))
    again = len(texts) - len(answers)
    if again:
        yield Finding("repeated", f"{again} of {len(texts)} training texts repeat another")
    both = sum(1 for found in answers.values() if len(found) > 1)
    if both and roles.kind == "classification":  # several translations, say, are sound
        example = next(text for text, found in answers.items() if len(found) > 1)
        yield Finding(
            "contradictions",
            f"{_count(both, 'text has', 'texts have')} two different labels, e.g. "
            f"{_cut(example)!r}: {' and '.join(sorted(answers[example])[:2])}",
        )


def _across(tables: Mapping[str, Table], roles: Roles) -> Iterator[Finding]:
    """Texts and groups that stand in two splits: the score would flatter."""
    seen: dict[str, set[str]] = {}
    groups: dict[str, set[str]] = {}
    for split, table in tables.items():
        texts = set(_texts(table, roles).values())
        for other, known in seen.items():
            shared = len(texts & known)
            if shared:
                yield Finding(
                    "shared-texts",
                    f"{shared} of {len(texts)} different texts of {split} stand in {other} too, so "
                    f"scores on {split} flatter; take them out of one",
                )
        seen[split] = texts
        if roles.group is None:
            continue
        own = {str(value) for value in table.columns[roles.group] if value is not None}
        for other, known in groups.items():
            if own & known:
                yield Finding(
                    "shared-groups",
                    f"{len(own & known)} of {len(own)} values of {roles.group!r} in {split} stand "
                    f"in {other} too; divide by {roles.group!r}, or say that it is no group",
                )
        groups[split] = own


def _header(roles: Roles, labels: Labels) -> Iterator[Finding]:
    if roles.answer in labels.words:
        yield Finding(
            "no-header",
            f"the column {roles.answer!r} holds {roles.answer!r} as well, so the first line of the "
            f"file may be data; expected the columns' names there",
        )


def _labels(labels: Labels) -> Iterator[Finding]:
    if labels.spellings:
        several = [value for value, label in labels.spellings.items() if value != label]
        yield Finding(
            "spellings",
            f"labels are spelt in several ways ({_list(several)}); label_map makes them one",
        )
    if labels.numbers:
        yield Finding(
            "numbers",
            f"the labels are numbers ({_list([*labels.words])}); if they stand for words, write "
            f"these into the verbalizer: a model knows more of words",
        )
    if len(labels.words) > _MANY_LABELS:
        yield Finding(
            "many-labels",
            f"there are {len(labels.words)} labels, and each text is scored against all of them, "
            f"which is slow; merge rare ones",
        )


def _balance(labels: Labels) -> Iterator[Finding]:
    if is_skewed(labels):
        counts = {label: count for label, count in labels.counts.items() if count}
        most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        yield Finding(
            "imbalance",
            f"{most!r} has {counts[most]} training rows and {least!r} {counts[least]}; so "
            f"class_weights and macro_f1, which count all labels alike, are in the task file",
        )
    few = [label for label, count in labels.counts.items() if 0 < count < FEW_ROWS]
    if few:
        yield Finding(
            "small-labels",
            f"{_count(len(few), 'label has', 'labels have')} fewer than {FEW_ROWS} training rows "
            f"({_list(few)}); add rows, or merge labels with label_map",
        )


def _absent(tables: Mapping[str, Table], roles: Roles, labels: Labels) -> Iterator[Finding]:
    for split, table in tables.items():
        found = {label for cell in table.columns[roles.answer] for label in labels_in(cell)}
        present = {labels.spellings.get(value, value) for value in found}
        absent = [label for label in labels.words if label not in present]
        if absent:
            yield Finding(
                "absent-labels",
                f"{split} has no row of {_count(len(absent), 'label', 'labels')} ({_list(absent)})"
                f"{', which cannot be learned' if split == 'train' else ''}",
            )


def _telling_words(table: Table, roles: Roles, labels: Labels) -> Iterator[Finding]:
    """A word in nearly all texts of one label and in hardly any other gives the label away."""
    rows = table.whole
    rows = rows[:: max(1, len(rows) // _LEAK_SAMPLE)]
    total: Counter[str] = Counter()
    with_word: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        value = str(table.columns[roles.answer][row])
        label = labels.spellings.get(value, value)
        total[label] += 1
        text = " ".join(str(table.columns[column][row]) for column in roles.texts)
        for word in set(_WORD.findall(text.casefold())):
            with_word[word][label] += 1
    telling = {
        label: word
        for word, counts in with_word.items()
        for label, count in counts.items()
        if total[label] >= _LEAK_ROWS
        and count >= _LEAK_SHARE * total[label]
        and counts.total() - count <= _LEAK_ELSEWHERE * (len(rows) - total[label])
    }
    for label, word in list(telling.items())[:_SHOWN]:
        yield Finding(
            "leak",
            f"{word!r} stands in {with_word[word][label]} of {total[label]} texts of {label!r} "
            f"and in {with_word[word].total() - with_word[word][label]} others: the text may give "
            f"the label away; take the word out of it, unless new texts have it as well",
        )


def _copies(table: Table, roles: Roles) -> Iterator[Finding]:
    rows = table.whole
    rows = rows[:: max(1, len(rows) // _LEAK_SAMPLE)]
    copied = 0
    for row in rows:
        target = str(table.columns[roles.answer][row]).strip()
        texts = [str(table.columns[column][row]) for column in roles.texts]
        copied += len(target) >= _COPY_CHARACTERS and any(target in text for text in texts)
    if rows and copied >= _COPY_SHARE * len(rows):
        yield Finding(
            "leak",
            f"in {copied} of {len(rows)} rows {roles.answer!r} stands word for word in the text: "
            f"the text may give the answer away; take it out, unless copying is the task",
        )


def _too_long(lengths: Lengths) -> Iterator[Finding]:
    if lengths.cut:
        cut = f"{'about ' if lengths.estimated else ''}{lengths.cut}"
        yield Finding(
            "cut",
            f"{cut} of {lengths.texts} training texts have more than {lengths.limit} "
            f"{lengths.unit} (the longest {lengths.longest}) and lose their end; shorten them, or "
            f"take a base with more room",
        )
    elif lengths.unit == "words" and lengths.longest > _LONG_IN_WORDS:
        yield Finding(
            "long",
            f"the longest text has {lengths.longest} words; say --base MODEL to see what is cut",
        )


def _texts(table: Table, roles: Roles) -> dict[int, str]:
    """Row to its text as it is compared; rows without one are left out."""
    columns = [table.columns[column] for column in roles.texts]
    rows = (row for row in range(table.size) if all(values[row] is not None for values in columns))
    return {row: same_text([values[row] for values in columns]) for row in rows}


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(repr(_cut(name)) for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _cut(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"
