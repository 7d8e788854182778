"""The complete rows of a split, and their division: no group and no text is in two splits."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from softhub.errors import DatasetError
from softhub.metrics.label_sets import SEPARATOR, split_labels
from softhub.tasks.dataset import SPLITS
from softhub.tasks.drafting.columns import Roles, read_column
from softhub.tasks.plain_values import check_characters, is_nothing
from softhub.tasks.split_table import SplitTable

_PARTS = 10
# Of every ten pieces the last two are for dev and test: if there are few, they are for training.
_PLACES = {8: "dev", 9: "test"}


@dataclass(frozen=True)
class Row:
    """A row in which nothing is missing."""

    index: int  # in the split as it was read
    values: Mapping[str, Any]  # of the task's columns
    key: str  # its texts without differences in case and white space
    labels: tuple[str, ...]  # several or none in a multi-label task; the text in generation
    group: str | None


@dataclass(frozen=True)
class RowSet:
    """The complete rows of a split."""

    rows: Sequence[Row]
    place: Callable[[int], str]  # returns where a row is, by its index, for messages
    size: int  # with the incomplete rows
    missing: Sequence[int] = ()  # indices of the incomplete rows
    incomplete_columns: Sequence[str] = ()  # that have missing values


def read_rows(table: SplitTable, roles: Roles) -> RowSet:
    """Read the columns that the task needs.

    Raises:
        DatasetError: If a value cannot be part of an example; names its place and column.
    """
    columns = {name: _column(table, name, roles) for name in roles.columns}
    rows: list[Row] = []
    missing: list[int] = []
    for index, cells in enumerate(zip(*columns.values(), strict=True)):
        if any(cell is None for cell in cells):
            missing.append(index)
            continue
        values = dict(zip(columns, cells, strict=True))
        place = table.place(index)
        for name, cell in values.items():
            for text in cell if isinstance(cell, tuple) else (cell,):
                check_characters(text, name, place)
        answer = values[roles.answer]
        labels = answer if isinstance(answer, tuple) else (str(answer),)
        texts = " ".join(str(values[name]) for name in roles.texts)
        group = str(values[roles.group]) if roles.group else None
        rows.append(Row(index, values, " ".join(texts.split()).casefold(), labels, group))
    incomplete = [name for name, cells in columns.items() if None in cells]
    return RowSet(rows, table.place, len(table.rows), missing, incomplete)


def _column(table: SplitTable, name: str, roles: Roles) -> list[Any]:
    if name not in table.columns:
        raise DatasetError(
            f"{table.origin}: has no column {name!r}, only {', '.join(table.columns)}; "
            f"all splits need the same columns"
        )
    values = read_column(table, name)
    written = zip(table.values(name), values, strict=True)
    if name == roles.answer and roles.multilabel:
        return [_label_set(*cells, name, table.place(index)) for index, cells in enumerate(written)]
    if name == roles.answer and roles.kind == "classification":
        _refuse_lists(table, name, values)
    if name in roles.texts and name != roles.text:  # may be blank
        values = ["" if isinstance(cell, str) and not cell.strip() else v for cell, v in written]
    values = ["\n".join(value) if isinstance(value, tuple) else value for value in values]
    for index, value in enumerate(values):
        if value is not None and not isinstance(value, str | int | float):
            raise DatasetError(
                f"{table.place(index)}: {name!r} is a {type(value).__name__}; expected text or a "
                f"number. Choose another column"
            )
    return values


def _refuse_lists(table: SplitTable, name: str, labels: Sequence[Any]) -> None:
    for index, value in enumerate(labels):
        if isinstance(value, list | tuple):
            raise DatasetError(
                f"{table.place(index)}: {name!r} is a list; expected one label. If a row may have "
                f"several labels, or none, add --multilabel"
            )


def _label_set(written: Any, read: Any, name: str, place: str) -> tuple[str, ...] | None:
    """Return the labels in a cell of a multi-label task; None if it has no value."""
    if isinstance(written, str):  # a blank cell means none of the labels
        return split_labels(written)
    several = isinstance(read, list | tuple)
    if read is None or (several and any(map(is_nothing, read))):
        return None
    if not several or not all(isinstance(item, str | int | float) for item in read):
        raise DatasetError(
            f"{place}: {name!r} is {read!r:.80}; expected a list of labels, or labels separated "
            f"by {SEPARATOR!r}"
        )
    return tuple(map(str, read))


def divide(table: RowSet, roles: Roles) -> dict[str, RowSet]:
    """Divide the complete rows 80 : 10 : 10, each time in the same way.

    With a group column, groups are not divided, and a row of dev or test whose text is in train too
    is left out; without one, rows of the same text stay together, and each label is divided in the
    same proportions.
    """
    pieces: dict[str, list[Row]] = defaultdict(list)  # rows that stay together
    for row in table.rows:
        pieces[row.key if row.group is None else row.group].append(row)
    start = f"{table.place(0)} and following"
    if len(pieces) < _PARTS:
        found = f"groups by {roles.group!r}" if roles.group else "different texts"
        raise DatasetError(
            f"{start}: found {len(pieces)} {found}; expected {_PARTS} or more to divide. Give "
            f"separate files with --dev and --test, or remove --split"
        )
    known: set[str] = set()
    divided: dict[str, RowSet] = {}
    for split, part in _parts(pieces, roles).items():
        rows = [row for piece in part for row in pieces[piece] if row.key not in known]
        known |= {row.key for row in rows}
        if not rows:
            raise DatasetError(
                f"{start}: nothing is left for {split}, because its labels or texts are in train "
                f"only; give separate files with --dev and --test"
            )
        rows.sort(key=lambda row: row.index)
        divided[split] = RowSet(rows, table.place, len(rows))
    return divided


def _parts(pieces: dict[str, list[Row]], roles: Roles) -> dict[str, list[str]]:
    """Divide the pieces, so that every label of dev and test is in train too."""
    classification = roles.kind == "classification"

    def order(piece: str) -> tuple[str, bytes]:
        stratified = classification and roles.group is None
        label = str(pieces[piece][0].values[roles.answer]) if stratified else ""
        return label, hashlib.sha256(f"0:{piece}".encode()).digest()

    parts: dict[str, list[str]] = {split: [] for split in SPLITS}
    for number, piece in enumerate(sorted(pieces, key=order)):
        parts[_PLACES.get(number % _PARTS, "train")].append(piece)
    if classification:
        labels = {p: {label for row in rows for label in row.labels} for p, rows in pieces.items()}
        known = {label for piece in parts["train"] for label in labels[piece]}
        for split in ("dev", "test"):
            parts["train"] += [piece for piece in parts[split] if not labels[piece] <= known]
            parts[split] = [piece for piece in parts[split] if labels[piece] <= known]
    return parts
