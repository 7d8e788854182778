"""From a task's dataset to its examples, through `datasets`."""

import hashlib
import heapq
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softhub.errors import DatasetError, SoftHubWarning, did_you_mean
from softhub.metrics.label_sets import SEPARATOR, join_labels, split_labels
from softhub.tasks.data_files import BUILDERS, builder_options, check_file, ending, place_of
from softhub.tasks.dataset import SPLITS, DatasetSource, Example

if TYPE_CHECKING:
    from datasets import Dataset

    from softhub.tasks.task import Task

DEV_SHARE = 0.1


@dataclass(frozen=True)
class Rows:
    """The rows of a split, and where each of them stands.

    Attributes:
        table: The rows as `datasets` has them.
        origin: The file, or the Hub's dataset and split.
        file: The file, where there is one.
    """

    table: "Dataset"
    origin: str
    file: Path | None

    def place(self, row: int) -> str:
        """Say where a row stands, for a message."""
        return place_of(self.file, row) if self.file else f"{self.origin}, row {row + 1}"


def load_examples(
    task: "Task", split: str, *, limit: int | None = None, seed: int = 0
) -> list[Example]:
    """Read and check the examples of a split.

    Args:
        task: A task with a dataset.
        split: `train`, `dev` or `test`.
        limit: At most so many examples: a fixed subset, the same for the same seed.
        seed: Chooses the subset.

    Raises:
        DatasetError: If the data is missing, damaged or mislabelled; names file and line.
    """
    if limit is not None and limit < 1:
        raise DatasetError(f"limit: found {limit}; expected 1 or more, or no limit")
    source, stored = _stored_split(task, split)
    rows = read_rows(source, stored)
    reader = _ExampleReader(task, rows)
    members: Sequence[int] = range(len(rows.table))
    if stored == "train" and "dev" not in source.split_names:
        members = _members(task, rows, split)
    chosen = _subset(members, limit, seed)
    table = rows.table.select(chosen)
    read = [reader.read(index, row) for index, row in zip(chosen, table, strict=True)]
    examples = [example for example in read if example is not None]
    _warn_of_dropped(rows.origin, len(read) - len(examples), len(read))
    _warn_of_stops(task, rows.origin, examples)
    return examples


def _warn_of_dropped(origin: str, dropped: int, total: int) -> None:
    lacking = f"{origin}: {dropped} of {total} rows lack a value that the task reads"
    if dropped == total:
        raise DatasetError(f"{lacking}, so none is left; check the task's columns")
    if dropped:
        warnings.warn(f"{lacking}; they are left out", SoftHubWarning, stacklevel=4)


def _warn_of_stops(task: "Task", origin: str, examples: Sequence[Example]) -> None:
    stop = task.generation.get("stop", ())
    over = sum(any(text in str(example.target) for text in stop) for example in examples)
    if over:
        warnings.warn(
            f"{origin}: {over} of {len(examples)} reference texts go on behind a stop string "
            f"({', '.join(map(repr, stop))}), where generating ends; drop it from generation.stop, "
            f"or shorten the references",
            SoftHubWarning,
            stacklevel=4,
        )


def _stored_split(task: "Task", split: str) -> tuple[DatasetSource, str]:
    """Return the source, and the split in it that holds the asked one."""
    if task.dataset is None:
        raise DatasetError(
            f"the task {task.name} has no dataset (it may come from a manifest, which keeps what "
            f"predicting needs); load a task file that names one"
        )
    if split not in SPLITS:
        raise DatasetError(f"unknown split {split!r}{did_you_mean(split, SPLITS)}")
    names = task.dataset.split_names
    stored = "train" if split == "dev" and "dev" not in names else split
    if stored not in names:
        raise DatasetError(
            f"the task {task.name} has no {stored} split, only {', '.join(names)}; "
            f"add it to the task's dataset"
        )
    return task.dataset, stored


def read_rows(source: DatasetSource, split: str) -> Rows:
    """Read the rows of a split, unchecked but for the file's own soundness.

    A column within a column gets a dotted name: `translation.de`.

    Args:
        source: Where the rows come from.
        split: One of the source's own splits.

    Raises:
        DatasetError: If the data is missing, empty or damaged; names file and line.
    """
    rows = _read_file(source, split) if source.path is None else _read_hub(source, split)
    if len(rows.table) == 0:
        raise DatasetError(f"{rows.origin}: is empty; expected at least one row")
    return replace(rows, table=rows.table.flatten())


def _read_file(source: DatasetSource, split: str) -> Rows:
    from datasets import load_dataset

    path = Path(source.data_files[split])
    check_file(path, prepare=source.prepare)
    files, options = {split: str(path)}, builder_options(path)
    try:
        with _bars_only_on_terminals():
            table = load_dataset(BUILDERS[ending(path)], data_files=files, split=split, **options)
    except Exception as error:  # what Arrow, pandas and datasets raise has no common root
        raise DatasetError(f"{path}: cannot be read ({_root_message(error)})") from error
    return Rows(table, str(path), path)


def _read_hub(source: DatasetSource, split: str) -> Rows:
    from datasets import load_dataset

    origin = f"dataset {source.path}, split {source.splits[split]}"
    with asking_the_hub(origin):
        table = load_dataset(
            source.path, source.name, split=source.splits[split], revision=source.revision
        )
    return Rows(table, origin, None)


@contextmanager
def asking_the_hub(origin: str) -> Iterator[None]:
    """Turn what `datasets` raises about a dataset of the Hub into one sentence.

    Args:
        origin: What is asked for, for the message.

    Raises:
        DatasetError: If it is not there, cannot be read, or the Hub does not answer.
    """
    from datasets.exceptions import DatasetNotFoundError

    try:
        with _bars_only_on_terminals():
            yield
    except DatasetNotFoundError as error:
        raise DatasetError(
            f"{origin}: not found on the Hub, or it is gated or private; check path and revision, "
            f"or log in with `hf auth login`"
        ) from error
    except ConnectionError as error:
        raise DatasetError(
            f"{origin}: the Hub did not answer ({_root_message(error)}); connect to the network "
            f"and unset HF_HUB_OFFLINE, or name local files with data_files"
        ) from error
    except Exception as error:  # datasets raises ValueError, RuntimeError and its own kinds
        raise DatasetError(
            f"{origin}: cannot be read ({_root_message(error)}); check name, revision and splits"
        ) from error


@contextmanager
def _bars_only_on_terminals() -> Iterator[None]:
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if sys.stderr.isatty() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _root_message(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300] or type(error).__name__


def _members(task: "Task", rows: Rows, split: str) -> list[int]:
    """Divide train where there is no dev split: whole groups, the same for every seed."""
    column = task.group_column or task.text_column
    keys = [str(key) for key in rows.table[column]]
    distinct = sorted(set(keys), key=lambda key: hashlib.sha256(key.encode()).digest())
    if len(distinct) < 2:
        raise DatasetError(
            f"{rows.origin}: there is no dev split, and train cannot be divided, because "
            f"{column!r} is the same in all rows; add a dev split"
        )
    held_out = set(distinct[: max(1, round(DEV_SHARE * len(distinct)))])
    warnings.warn(
        f"{rows.origin}: the task {task.name} has no dev split, so {DEV_SHARE:.0%} of train is "
        f"held out for it (whole groups by {column!r}, the same for every seed)",
        SoftHubWarning,
        stacklevel=4,
    )
    return [row for row, key in enumerate(keys) if (key in held_out) == (split == "dev")]


def _subset(members: Sequence[int], limit: int | None, seed: int) -> list[int]:
    """Choose by hash: stable over versions of Python, and a smaller limit is a part of a larger."""
    if limit is None or limit >= len(members):
        return list(members)

    def rank(row: int) -> bytes:
        return hashlib.sha256(f"{seed}:{row}".encode()).digest()

    return sorted(heapq.nsmallest(limit, members, key=rank))


class _ExampleReader:
    """Checks the rows of a split and turns them into examples."""

    def __init__(self, task: "Task", rows: Rows) -> None:
        self._task = task
        self._rows = rows
        templates = (task.template, *task.hard_templates)
        read = [column for template in templates for column in template.columns]
        code = [column for column in (task.code_column, task.test_column) if column is not None]
        self._shown = tuple(dict.fromkeys([task.text_column, *read, *code]))
        self._texts = {column for column in (*self._shown, task.target_column) if column}
        # Blanks are sound in a template's side columns and as 'none of the labels', never in these.
        label = None if task.multilabel else task.label_column
        answers = (label, task.target_column, task.group_column, task.test_column)
        self._needed = (task.text_column, *(column for column in answers if column is not None))
        self._read = tuple(dict.fromkeys([*self._shown, *self._needed]))
        self._drop_incomplete = task.dataset is not None and task.dataset.drop_incomplete
        self._check_columns()
        feature = rows.table.features.get(task.label_column or "")
        feature = getattr(feature, "feature", feature)  # of a list of labels
        self._class_names: Sequence[str] = getattr(feature, "names", None) or ()
        labels = task.verbalizer.labels if task.verbalizer else ()
        self._label_of: Mapping[str, str] = task.label_map or {label: label for label in labels}

    def read(self, index: int, row: Mapping[str, Any]) -> Example | None:
        """Return the example in a row, None to drop it, or raise DatasetError with its place."""
        row = {name: _lines(row[name]) if name in self._texts else row[name] for name in row}
        if self._drop_incomplete and any(self._is_missing(name, row[name]) for name in self._read):
            return None
        for column in self._read:
            self._check_value(index, column, row[column])
        task = self._task
        return Example(
            row={column: row[column] for column in self._shown},
            label=self._answer(index, row[task.label_column]) if task.label_column else None,
            target=str(row[task.target_column]) if task.target_column else None,
            group=str(row[task.group_column]) if task.group_column else None,
            text_column=task.text_column,
        )

    def _check_columns(self) -> None:
        present = self._rows.table.column_names
        for column in (*self._needed, *self._shown, self._task.label_column):
            if column is not None and column not in present:
                raise DatasetError(
                    f"{self._rows.origin}: has no column {column!r}, which the task "
                    f"{self._task.name} reads{did_you_mean(column, present)}"
                )

    def _is_missing(self, column: str, value: Any) -> bool:
        blank = isinstance(value, str) and not value.strip() and column in self._needed
        return value is None or blank

    def _check_value(self, index: int, column: str, value: Any) -> None:
        if self._is_missing(column, value):
            raise DatasetError(
                f"{self._rows.place(index)}: {column!r} is missing; fill it, drop the row, or have "
                f"the task's dataset say drop_incomplete: true"
            )
        if not isinstance(value, str | int | float):
            raise DatasetError(
                f"{self._rows.place(index)}: {column!r} was read as {type(value).__name__}; "
                f"expected text or a number"
            )

    def _answer(self, index: int, value: Any) -> str:
        """The label of a row, or all its labels as one string."""
        if not self._task.multilabel:
            return self._label(index, value)
        assert self._task.verbalizer is not None
        values = split_labels(value) if isinstance(value, str) else value
        if not isinstance(values, list | tuple):
            raise DatasetError(
                f"{self._rows.place(index)}: {self._task.label_column!r} is {value!r:.80}; "
                f"expected a list of labels, or labels separated by {SEPARATOR!r}"
            )
        return join_labels(
            {self._label(index, item) for item in values}, self._task.verbalizer.labels
        )

    def _label(self, index: int, value: Any) -> str:
        if self._class_names and value == -1:
            raise DatasetError(
                f"{self._rows.place(index)}: is not labelled (-1), as in many test splits on the "
                f"Hub; choose a labelled split, e.g. splits: {{test: validation}}"
            )
        name = self._class_names[value] if self._class_names else str(value)
        # label_map may have a class by its name or by its number.
        label = self._label_of.get(name, self._label_of.get(str(value)))
        if label is None:
            raise DatasetError(
                f"{self._rows.place(index)}: {self._task.label_column!r} is {name!r}; expected "
                f"one of {', '.join(map(repr, self._label_of))}. Correct the row, or add to the "
                f"task file label_map: {{{name!r}: <label>}}"
            )
        return label


def _lines(value: Any) -> Any:
    """A list of texts as one text, a line for each; anything else as it is."""
    texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return "\n".join(value) if texts else value
