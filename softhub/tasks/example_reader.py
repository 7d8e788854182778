"""Read one row of a dataset as an example: every value is checked, every error names the row."""

from collections.abc import Mapping
from numbers import Number
from typing import TYPE_CHECKING, Any

from softhub.errors import DatasetError
from softhub.metrics.label_sets import SEPARATOR, join_labels, split_labels
from softhub.tasks.dataset import Example
from softhub.tasks.plain_values import check_characters, is_nothing, plain
from softhub.tasks.split_table import SplitTable
from softhub.tasks.template import is_readable, listed, unreadable

if TYPE_CHECKING:
    from softhub.tasks.task import Task


class ExampleReader:
    """Checks the rows of a split and turns them into examples.

    Args:
        task: Names the columns and labels.
        table: The rows.

    Raises:
        DatasetError: If a column that the task reads does not exist.
    """

    def __init__(self, task: "Task", table: SplitTable) -> None:
        """Collect the columns and labels that the task reads."""
        self._task = task
        self._table = table
        self._templates = (task.template, *task.hard_templates)
        read = [column for template in self._templates for column in template.columns]
        code = [column for column in (task.code_column, task.test_column) if column is not None]
        self._shown = tuple(dict.fromkeys([task.text_column, *read, *code]))
        # A blank is valid in the template's other columns and as 'none of the labels', not here.
        label = None if task.multilabel else task.label_column
        answers = (label, task.target_column, task.group_column, task.test_column)
        self._needed = (task.text_column, *(column for column in answers if column is not None))
        self._read = tuple(dict.fromkeys([*self._shown, *self._needed]))
        self._labels = task.label_column if task.multilabel else None  # a list of them, or a text
        self._drop_incomplete = task.dataset is not None and task.dataset.drop_incomplete
        self._class_names = table.class_names(task.label_column)
        labels = task.verbalizer.labels if task.verbalizer else ()
        self._label_of: Mapping[str, str] = task.label_map or {label: label for label in labels}
        self._check_columns()

    def read(self, index: int, row: Mapping[str, Any]) -> Example | None:
        """Return the example in a row, or None to drop the row.

        Args:
            index: Index of the row, for messages.
            row: Values by column.

        Raises:
            DatasetError: If a value is missing, of the wrong type, or not a label.
        """
        task = self._task
        row = {name: plain(row.get(name)) for name in (*self._read, task.label_column) if name}
        for name in (*self._shown, task.target_column):
            if name:
                row[name] = join_lines(row[name])
        if self._drop_incomplete and any(self._is_missing(*item) for item in row.items()):
            return None
        place = self._table.place(index)
        for column in row:
            self._check_present(place, column, row[column])
        for column in self._read:
            _check_value(place, column, row[column])
        return Example(
            row={column: row[column] for column in self._shown},
            label=self._answer(index, row[task.label_column]) if task.label_column else None,
            target=str(row[task.target_column]) if task.target_column else None,
            group=str(row[task.group_column]) if task.group_column else None,
            text_column=task.text_column,
            place=place,
        )

    def _check_columns(self) -> None:
        task, origin, present = self._task, self._table.origin, self._table.columns
        if task.label_column is None and task.target_column is None:
            key = "target_column" if task.verbalizer is None else "label_column"
            raise DatasetError(
                f"{origin}: the task {task.name} does not name the column that contains the "
                f"answers; set its {key}"
            )
        for column in (*self._needed, *self._shown, task.label_column):
            if column is not None and column not in present:
                raise DatasetError(
                    f"{origin}: has no column {column!r}, which the task {task.name} reads; "
                    f"its columns are {listed(present)}"
                )
        for column in present:
            named = any(f"{{{column}}}" in template.text for template in self._templates)
            if named and not is_readable(str(column)):
                raise DatasetError(f"{origin}: {unreadable(column)}")

    def _is_missing(self, column: str, value: Any) -> bool:
        if column == self._labels and isinstance(value, list | tuple):
            return any(map(is_nothing, value))
        blank = isinstance(value, str) and not value.strip() and column in self._needed
        return is_nothing(value) or blank

    def _check_present(self, place: str, column: str, value: Any) -> None:
        if self._is_missing(column, value):
            fix = "fill it or drop the row"
            if self._task.dataset is not None:
                fix += ", or set drop_incomplete: true in the task's dataset"
            raise DatasetError(f"{place}: {column!r} is missing; {fix}")

    def _answer(self, index: int, value: Any) -> str:
        """Return the label of a row, or all its labels as one string."""
        if not self._task.multilabel:
            return self._label(index, value)
        assert self._task.verbalizer is not None
        values = split_labels(value) if isinstance(value, str) else value
        if not isinstance(values, list | tuple):
            raise DatasetError(
                f"{self._table.place(index)}: {self._task.label_column!r} is {value!r:.80}; "
                f"expected a list of labels, or labels separated by {SEPARATOR!r}"
            )
        labels = {self._label(index, item) for item in values}
        return join_labels(labels, self._task.verbalizer.labels)

    def _label(self, index: int, value: Any) -> str:
        if self._class_names and value == -1:
            raise DatasetError(
                f"{self._table.place(index)}: has no label (-1), as in many test splits on the "
                f"Hub; use a labeled split (in a task file, e.g. splits: {{test: validation}})"
            )
        name = self._class_names[value] if self._class_names else str(value)
        # label_map may name a class or give its number.
        label = self._label_of.get(name, self._label_of.get(str(value)))
        if label is None:
            raise DatasetError(
                f"{self._table.place(index)}: {self._task.label_column!r} is {name!r}; expected "
                f"one of {', '.join(map(repr, self._label_of))}. Correct the row, or add to the "
                f"task label_map: {{{name!r}: <label>}}"
            )
        return label


def _check_value(place: str, column: str, value: Any) -> None:
    if not isinstance(value, str | Number):
        raise DatasetError(
            f"{place}: {column!r} was read as {type(value).__name__}; expected text or a number"
        )
    check_characters(value, column, place)


def join_lines(value: Any) -> Any:
    """Return a list of texts as one text with a line for each, and anything else unchanged."""
    texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return "\n".join(value) if texts else value
