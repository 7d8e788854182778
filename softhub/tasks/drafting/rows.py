"""The rows of a split as drafting sees them: complete rows with their texts, labels and group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from softhub.errors import DatasetError
from softhub.metrics.label_sets import split_labels
from softhub.tasks.drafting.columns import Roles, read_column
from softhub.tasks.split_table import SplitTable


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
    """Read the columns that the task needs."""
    columns = {name: _column(table, name, roles) for name in roles.columns}
    rows: list[Row] = []
    missing: list[int] = []
    for index, cells in enumerate(zip(*columns.values(), strict=True)):
        if any(cell is None for cell in cells):
            missing.append(index)
            continue
        values = dict(zip(columns, cells, strict=True))
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
    if name == roles.answer and roles.multilabel:  # a blank cell means none of the labels
        return [split_labels(cell) if isinstance(cell, str) else value for cell, value in written]
    if name in roles.side_texts:  # these may be blank
        values = ["" if isinstance(cell, str) and not cell.strip() else v for cell, v in written]
    values = ["\n".join(value) if isinstance(value, tuple) else value for value in values]
    for index, value in enumerate(values):
        if value is not None and not isinstance(value, str | int | float):
            raise DatasetError(
                f"{table.place(index)}: {name!r} is a {type(value).__name__}; expected text or a "
                f"number. Choose another column"
            )
    return values
