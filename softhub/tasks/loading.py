"""Load examples from a task's dataset, or from rows in memory."""

import hashlib
import heapq
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softhub.errors import DatasetError, SoftHubWarning, TaskError, did_you_mean
from softhub.metrics.label_sets import split_labels
from softhub.tasks.data_files import PLAIN, check_table
from softhub.tasks.dataset import (
    SPLITS,
    DatasetSource,
    Example,
    ExampleRows,
    Splits,
    SplitsLike,
)
from softhub.tasks.example_reader import ExampleReader, join_lines
from softhub.tasks.sampling import choose_per_label
from softhub.tasks.split_table import SplitTable, read_split, read_table

if TYPE_CHECKING:
    from softhub.tasks.task import Task

DEV_SHARE = 0.1
_SHOWN = 5  # labels in a message


def load_examples(
    task: "Task", split: str, *, limit: int | None = None, seed: int = 0
) -> list[Example]:
    """Read and check the examples of a split; see `Task.load`."""
    if limit is not None and limit < 1:
        raise DatasetError(
            f"limit of {split}: found {limit}; expected 1 or more, or no limit (on the command "
            f"line: --max-{split}-examples)"
        )
    source, stored = _stored_split(task, split)
    table = read_split(source, stored)
    reader = ExampleReader(task, table)
    members: Sequence[int] = range(len(table.rows))
    if stored == "train" and "dev" not in source.split_names:
        keys = [str(key) for key in table.values(task.group_column or task.text_column)]
        held_out = _held_out(task, keys, table.origin)
        members = [row for row in members if (keys[row] in held_out) == (split == "dev")]
    chosen = _subset(members, limit, seed)
    rows = zip(chosen, table.select(chosen).rows, strict=True)
    return _complete(task, [reader.read(index, row) for index, row in rows], table.origin)


def load_splits(
    task: "Task", limits: Mapping[str, int | None], *, per_label: int | None, seed: int
) -> Splits:
    """Read and check the examples of all splits; see `Task.load_splits`."""
    for split in limits:
        if split not in SPLITS:
            raise DatasetError(f"limits: unknown split {split!r}{did_you_mean(split, SPLITS)}")
    if per_label is not None and per_label < 1:
        raise DatasetError(
            f"per_label: found {per_label}; expected 1 or more, or None for all (on the command "
            f"line: --examples-per-label)"
        )
    train, dev, test = (load_examples(task, split, limit=limits.get(split)) for split in SPLITS)
    _warn_of_absent_labels(task, train)
    _warn_of_shared_texts(task, train, test)
    if per_label is None:
        return Splits(train, dev, test)
    if task.verbalizer is None:
        raise TaskError(f"per_label: the task {task.name} has no labels; use limits instead")
    train, dev = (choose_per_label(task, split, per_label, seed) for split in (train, dev))
    _warn_of_rare_labels(task, "train", train, per_label)
    _warn_of_rare_labels(task, "dev", dev, per_label)
    return Splits(train, dev, test)


def read_inputs(path: Path) -> SplitTable:
    """Read the texts or rows to predict for: a data file, or a `.txt` file with a text per line.

    Args:
        path: The file, or a folder that `Dataset.save_to_disk` wrote.

    Raises:
        DatasetError: If the file is missing, empty, damaged or of another kind; names the line.
    """
    check_table(path, fix="check the path", also=(".txt",))
    table = read_table(path)
    if not len(table.rows):
        raise DatasetError(f"{path}: contains no text; expected at least one row")
    return table


def to_inputs(task: "Task | None", table: SplitTable) -> list[str | dict[str, Any]]:
    """Check that rows have the columns of the task's template.

    Args:
        task: The task; None if there is none to check against.
        table: The rows, from `read_inputs`.

    Returns:
        A text for each row that is only a text, and the values by column for the others.

    Raises:
        DatasetError: If a row lacks a column or a value; names the columns that there are.
    """
    needed = check_columns(task, table.columns, table.origin)
    inputs: list[str | dict[str, Any]] = []
    for index, row in enumerate(table.rows):
        row = {name: join_lines(row[name]) if name in needed else row[name] for name in row}
        missing = [name for name in needed if PLAIN not in row and row.get(name) is None]
        if missing:
            raise DatasetError(f"{table.place(index)}: {missing[0]!r} is missing; fill it")
        inputs.append(row.get(PLAIN, row))
    return inputs


def check_columns(task: "Task | None", columns: Sequence[str], origin: str) -> list[str]:
    """Check that a file has the columns of a task's template, unless it has texts alone.

    Args:
        task: The task; None if there is none to check against.
        columns: Names of the columns.
        origin: The file, for messages.

    Returns:
        The columns that the template reads.

    Raises:
        DatasetError: If one is missing.
    """
    needed = [] if task is None or {*columns} == {PLAIN} else [*task.template.columns]
    for name in needed:
        if name not in columns:
            there_are = ", ".join(filter(None, columns)) or "none"
            raise DatasetError(
                f"{origin}: has no column {name!r}, which the template of the task "
                f"{task and task.name} reads; its columns are {there_are}. Rename one of them"
            )
    return needed


def to_examples(task: "Task", rows: ExampleRows, origin: str = "rows") -> list[Example]:
    """Check rows in memory and convert them to examples; see `Task.to_examples`.

    Args:
        task: Names the columns and labels.
        rows: Dicts, a `datasets.Dataset`, or examples.
        origin: Name of the rows, for messages.
    """
    given: Any = rows if hasattr(rows, "flatten") else list(rows)
    if isinstance(given, list):
        if all(isinstance(row, Example) for row in given):
            return given
        _check_dicts(given, origin)
    table = SplitTable.of(given, origin, lambda index: f"{origin}[{index}]")
    reader = ExampleReader(task, table)
    return _complete(task, [reader.read(*item) for item in enumerate(table.rows)], origin)


def to_splits(task: "Task", data: SplitsLike) -> Splits:
    """Convert data in memory to splits; see `Task.to_splits`."""
    if isinstance(data, Splits):
        return data
    if not isinstance(data, Mapping):
        raise DatasetError(
            f"found {type(data).__name__}; expected Splits, or a mapping of 'train' and, "
            f"optionally, 'dev' and 'test' to rows"
        )
    _check_split_names(data)
    names = {"validation": "dev"}
    found = {names.get(key, key): to_examples(task, rows, key) for key, rows in data.items()}
    for split in ("train", "dev"):
        if found.get(split) == []:
            raise DatasetError(f"{split}: is empty; expected at least one row")
    train, test = found["train"], found.get("test", [])
    if "dev" in found:
        dev = found["dev"]
    else:
        keys = [example.group or example.text for example in train]
        held_out = _held_out(task, keys, "train")
        dev = [example for example, key in zip(train, keys, strict=True) if key in held_out]
        train = [example for example, key in zip(train, keys, strict=True) if key not in held_out]
    _warn_of_absent_labels(task, train)
    _warn_of_shared_texts(task, train, test)
    return Splits(train, dev, test)


def _check_dicts(rows: Sequence[Any], origin: str) -> None:
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DatasetError(
                f"{origin}[{index}]: found {row!r:.60} ({type(row).__name__}); expected dicts of "
                f"values by column, or only Examples (of a pandas DataFrame, pass "
                f"df.to_dict('records'))"
            )


def _check_split_names(data: Mapping[str, ExampleRows]) -> None:
    known = (*SPLITS, "validation")
    for split in data:
        if split not in known:
            raise DatasetError(f"unknown split {split!r}{did_you_mean(split, known)}")
    if "train" not in data:
        raise DatasetError(f"there is no train split, only {', '.join(data) or 'an empty mapping'}")
    if {"dev", "validation"} <= set(data):
        raise DatasetError("found both dev and validation, which mean the same; keep one")


def _complete(task: "Task", read: Sequence[Example | None], origin: str) -> list[Example]:
    """Return the examples without the rows that were dropped, and warn about problems."""
    examples = [example for example in read if example is not None]
    dropped, total = len(read) - len(examples), len(read)
    lacking = f"{origin}: {dropped} of {total} rows lack a value that the task reads"
    if dropped and dropped == total:
        raise DatasetError(f"{lacking}, so none is left; check the task's columns")
    if dropped:
        warnings.warn(f"{lacking}; they are dropped", SoftHubWarning, stacklevel=4)
    stop = task.generation.get("stop", ())
    over = sum(any(text in str(example.target) for text in stop) for example in examples)
    if over:
        warnings.warn(
            f"{origin}: {over} of {total} reference texts continue after a stop string "
            f"({', '.join(map(repr, stop))}), at which generation ends; remove it from "
            f"generation.stop, or shorten the references",
            SoftHubWarning,
            stacklevel=4,
        )
    return examples


def _warn_of_absent_labels(task: "Task", train: Sequence[Example]) -> None:
    """Warn of labels that no training example has; a teacher answers examples without any."""
    found = {example.label for example in train if example.label is not None}
    if task.verbalizer is None or not found or any(example.soft_label for example in train):
        return
    if task.multilabel:
        found = {label for joined in found for label in split_labels(joined)}
    absent = [label for label in task.verbalizer.labels if label not in found]
    if absent:
        shown = ", ".join(map(repr, absent[:_SHOWN])) + " and more" * (len(absent) > _SHOWN)
        warnings.warn(
            f"train has no row of {len(absent)} of the {len(task.verbalizer.labels)} labels of the "
            f"task {task.name} ({shown}), which cannot be learned; add rows, or remove the labels",
            SoftHubWarning,
            stacklevel=4,
        )


def _warn_of_shared_texts(task: "Task", train: Sequence[Example], test: Sequence[Example]) -> None:
    """Warn if most of test is in train too, as when one file is named for both."""
    seen, texts = ({task.template.render(e.row) for e in split} for split in (train, test))
    shared = len(texts & seen)
    if shared > len(texts) / 2:  # some tasks have short texts that recur
        warnings.warn(
            f"{shared} of the {len(texts)} different texts of test are in train too, so scores on "
            "test are too high; remove them from one",
            SoftHubWarning,
            stacklevel=4,
        )


def _warn_of_rare_labels(
    task: "Task", split: str, examples: Sequence[Example], per_label: int
) -> None:
    """Warn of labels that have fewer examples than were requested of each."""
    assert task.verbalizer is not None
    counts = Counter(example.label for example in examples)
    rare = [label for label in task.verbalizer.labels if counts[label] < per_label]
    if rare:
        shown = ", ".join(f"{label!r} {counts[label]}" for label in rare[:_SHOWN])
        warnings.warn(
            f"{split}: {len(rare)} of the {len(task.verbalizer.labels)} labels of the task "
            f"{task.name} have fewer than {per_label} rows, all of which are used "
            f"({shown}{' and more' * (len(rare) > _SHOWN)}); add rows, or use fewer of each label",
            SoftHubWarning,
            stacklevel=4,
        )


def _stored_split(task: "Task", split: str) -> tuple[DatasetSource, str]:
    """Return the dataset, and its split that contains the requested one."""
    if task.dataset is None:
        raise DatasetError(
            f"the task {task.name} has no dataset (a task from a manifest never has one); load a "
            f"task file that names one, or pass rows to task.to_splits"
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


def _held_out(task: "Task", keys: Sequence[str], origin: str) -> set[str]:
    """Return the keys of train that become dev: whole groups, the same for every seed."""
    column = task.group_column or task.text_column
    # Half of a surrogate pair is reported when its row is read, with the place.
    distinct = sorted(
        set(keys), key=lambda key: hashlib.sha256(key.encode(errors="surrogatepass")).digest()
    )
    if len(distinct) < 2:
        raise DatasetError(
            f"{origin}: there is no dev split, and train cannot be divided, because "
            f"{column!r} is the same in all rows; add a dev split"
        )
    held_out = set(distinct[: max(1, round(DEV_SHARE * len(distinct)))])
    rows = sum(key in held_out for key in keys)
    warnings.warn(
        f"{origin}: the task {task.name} has no dev split, so {rows} of {len(keys)} rows are held "
        f"out for it (a tenth of the groups by {column!r}, the same for every seed)",
        SoftHubWarning,
        stacklevel=4,
    )
    return held_out


def _subset(members: Sequence[int], limit: int | None, seed: int) -> list[int]:
    """Choose by hash: stable across Python versions, and a smaller limit gives a subset."""
    if limit is None or limit >= len(members):
        return list(members)

    def rank(row: int) -> bytes:
        return hashlib.sha256(f"{seed}:{row}".encode()).digest()

    return sorted(heapq.nsmallest(limit, members, key=rank))
