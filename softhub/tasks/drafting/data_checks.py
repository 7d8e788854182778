"""Checks of the data before a model is trained on it."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from softhub.metrics.label_sets import SEPARATOR
from softhub.tasks.drafting.columns import NUMBER, Roles
from softhub.tasks.drafting.lengths import Lengths
from softhub.tasks.drafting.rows import RowSet
from softhub.tasks.drafting.templates import Labels

_FEW_ROWS = 8  # a label with fewer is hardly learned
_SHOWN = 5
_SMALL_TEST = 100
_SAMPLED = 20_000
_WORD_ROWS, _WORD_SHARE, _WORD_ELSEWHERE = 10, 0.8, 0.02
_WORD = re.compile(r"[\w#@]+")


def check_data(
    tables: Mapping[str, RowSet], roles: Roles, labels: Labels | None, lengths: Lengths
) -> list[str]:
    """Check the rows of all splits."""
    found = [*_test_size(tables), *_duplicates(tables["train"], roles), *_shared(tables, roles)]
    if labels is not None:
        found += [*_label_problems(labels), *_absent(tables, labels)]
    if roles.multilabel:
        found += _undivided_labels(tables, roles)
    if labels is not None and not roles.multilabel:
        found += _revealing_words(tables["train"], labels)
    return [*found, *_too_long(lengths)]


def missing_rows(tables: Mapping[str, RowSet]) -> Iterator[str]:
    """Report the rows in which something is missing."""
    for table in tables.values():
        if table.missing:
            yield (
                f"{table.place(table.missing[0])}: "
                f"{' or '.join(map(repr, table.incomplete_columns))} is missing, as in "
                f"{len(table.missing)} of {table.size} rows in total; these rows are left out"
            )


def _test_size(tables: Mapping[str, RowSet]) -> Iterator[str]:
    if "test" not in tables:
        yield (
            "there is no test split to report scores on; give --test FILE, or divide the rows "
            "with --split"
        )
    elif tables["test"].size < _SMALL_TEST:
        rows = tables["test"].size
        yield (
            f"test has {_count(rows, 'row')}, so a score on it is uncertain by about "
            f"{round(100 / math.sqrt(rows))} points"
        )


def _duplicates(train: RowSet, roles: Roles) -> Iterator[str]:
    answers: dict[str, set[str]] = defaultdict(set)
    for row in train.rows:
        answers[row.key].add(";".join(row.labels))
    repeated = len(train.rows) - len(answers)
    if repeated:
        yield f"{repeated} of {len(train.rows)} training texts repeat another"
    several = [text for text, found in answers.items() if len(found) > 1]
    if several and roles.kind == "classification":  # several translations, say, are fine
        yield (
            f"{_count(len(several), 'text')} with two different labels, e.g. "
            f"{_short(several[0])!r}: {' and '.join(sorted(answers[several[0]])[:2])}"
        )


def _shared(tables: Mapping[str, RowSet], roles: Roles) -> Iterator[str]:
    """Report texts and groups that are in two splits, which makes scores too high."""
    texts = {split: {row.key for row in table.rows} for split, table in tables.items()}
    groups = {split: {row.group for row in table.rows} for split, table in tables.items()}
    for other, split in combinations(tables, 2):
        shared, both = texts[split] & texts[other], groups[split] & groups[other]
        if shared:
            yield (
                f"{len(shared)} of {len(texts[split])} different texts of {split} are in {other} "
                f"too, so scores on {split} are too high; remove them from one"
            )
        if roles.group and both:
            yield (
                f"{len(both)} of {len(groups[split])} values of {roles.group!r} in {split} are in "
                f"{other} too; divide by {roles.group!r}, or choose another group column"
            )


def _undivided_labels(tables: Mapping[str, RowSet], roles: Roles) -> Iterator[str]:
    """Report labels of a multi-label task that may be several, with another separator."""
    found = [row.labels for table in tables.values() for row in table.rows]
    if all(len(labels) <= 1 for labels in found):
        longest = max((label for labels in found for label in labels), key=len, default="")
        yield (
            f"no row has several labels in {roles.answer!r} (the longest is {_short(longest)!r}); "
            f"in a cell, labels are separated by {SEPARATOR!r}"
        )


def _label_problems(labels: Labels) -> Iterator[str]:
    if labels.spellings:
        several = [value for value, label in labels.spellings.items() if value != label]
        yield f"labels are spelled in several ways ({_list(several)}); label_map merges them"
    if all(map(NUMBER.fullmatch, labels.words)):  # which mean little to a model
        yield (
            f"the labels are numbers ({_list([*labels.words])}); if they represent words, put "
            f"those in the verbalizer, because words tell a model more"
        )
    counts = {label: count for label, count in labels.counts.items() if count}
    if labels.are_skewed:
        most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        yield (
            f"{most!r} has {counts[most]} training rows and {least!r} {counts[least]}; the task "
            f"file therefore has class_weights and macro_f1, which weight all labels equally"
        )
    few = [label for label, count in counts.items() if count < _FEW_ROWS]
    if few:
        yield (
            f"{_count(len(few), 'label')} with fewer than {_FEW_ROWS} training rows "
            f"({_list(few)}); add rows, or merge labels with label_map"
        )


def _absent(tables: Mapping[str, RowSet], labels: Labels) -> Iterator[str]:
    for split, table in tables.items():
        found = {value for row in table.rows for value in row.labels}
        present = {labels.spellings.get(value, value) for value in found}
        absent = [label for label in labels.words if label not in present]
        if absent:
            yield (
                f"{split} has no row of {_count(len(absent), 'label')} ({_list(absent)})"
                f"{', which cannot be learned' if split == 'train' else ''}"
            )


def _revealing_words(train: RowSet, labels: Labels) -> Iterator[str]:
    """Report words that are in nearly all texts of one label and in hardly any other."""
    rows = train.rows[:: max(1, len(train.rows) // _SAMPLED)]
    sampled = "" if len(rows) == len(train.rows) else f" (of {len(rows)} training rows, a sample)"
    total: Counter[str] = Counter()
    with_word: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        label = labels.spellings.get(row.labels[0], row.labels[0])
        total[label] += 1
        for word in set(_WORD.findall(row.key)):
            with_word[word][label] += 1
    revealing = {
        label: word
        for word, counts in with_word.items()
        for label, count in counts.items()
        if total[label] >= _WORD_ROWS
        and count >= _WORD_SHARE * total[label]
        and counts.total() - count <= _WORD_ELSEWHERE * (len(rows) - total[label])
    }
    for label, word in list(revealing.items())[:_SHOWN]:
        yield (
            f"{word!r} is in {with_word[word][label]} of {total[label]} texts of {label!r} and in "
            f"{with_word[word].total() - with_word[word][label]} others{sampled}: the text may "
            f"reveal the label; remove the word from it, unless new texts have it as well"
        )


def _too_long(lengths: Lengths) -> Iterator[str]:
    if lengths.truncated:
        yield (
            f"{lengths.truncated} of {lengths.texts} training texts have more than "
            f"{lengths.limit} {lengths.unit} (the longest {lengths.longest}) and are truncated; "
            f"shorten them, or choose a base model with a longer context"
        )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(repr(_short(name)) for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"
