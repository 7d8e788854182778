"""The rows of one split: of a local file, of a dataset on the Hub, or in memory."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softhub.errors import DatasetError
from softhub.tasks.data_files import (
    PLAIN,
    TYPED,
    check_table,
    ending,
    flatten,
    is_chat,
    read_rows,
)
from softhub.tasks.dataset import DatasetSource

_HUB_FIX = "check name, revision and splits"


@dataclass(frozen=True)
class SplitTable:
    """The rows of a split, and where each of them comes from.

    Attributes:
        rows: A list of dicts by column, or a `datasets.Dataset`.
        origin: The file, or the Hub's dataset and split, for messages.
        place: Returns where a row is, by its index, for messages.
    """

    rows: Any
    origin: str
    place: Callable[[int], str]

    @classmethod
    def of(cls, rows: Any, origin: str, place: Callable[[int], str]) -> "SplitTable":
        """Return rows in memory as a table; nested columns get dotted names.

        Args:
            rows: Dicts by column, or a `datasets.Dataset`.
            origin: Name of the rows.
            place: Returns where a row is.
        """
        is_dataset = hasattr(rows, "flatten")
        if is_dataset and not (len(rows) and any(map(is_chat, rows[0].values()))):
            return cls(rows.flatten(), origin, place)
        return cls([flatten(row) for row in rows], origin, place)

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in order of first use."""
        if isinstance(self.rows, list):
            return list(dict.fromkeys(name for row in self.rows for name in row))
        return list(self.rows.column_names)

    def values(self, column: str) -> Sequence[Any]:
        """Return the values of a column, None where a row has none."""
        if isinstance(self.rows, list):
            return [row.get(column) for row in self.rows]
        return list(self.rows[column])

    def select(self, indices: Sequence[int]) -> "SplitTable":
        """Return a table of some of the rows."""
        if isinstance(self.rows, list):
            rows: Any = [self.rows[index] for index in indices]
        else:
            rows = self.rows.select(indices)
        return SplitTable(rows, self.origin, lambda row: self.place(indices[row]))

    def class_names(self, column: str | None) -> Sequence[str]:
        """Return the names of the classes that a dataset declares for a column; often none."""
        feature = getattr(self.rows, "features", {}).get(column)
        feature = getattr(feature, "feature", feature)  # of a list of labels
        return getattr(feature, "names", None) or ()


def read_split(source: DatasetSource, split: str) -> SplitTable:
    """Read the rows of a split; only the file's format is checked.

    Args:
        source: The dataset.
        split: One of its splits.

    Raises:
        DatasetError: If the data is missing, empty or damaged; names file and line.
    """
    table = _read_file(source, split) if source.path is None else _read_hub(source, split)
    if len(table.rows) == 0 or not table.columns:
        raise DatasetError(f"{table.origin}: is empty; expected at least one row")
    return table


def _read_file(source: DatasetSource, split: str) -> SplitTable:
    fix = "check data_files in the task file"
    if source.prepare:
        fix = f"create it with: {source.prepare}"
    path = Path(source.data_files[split])
    check_table(path, fix=fix)
    table = read_table(path)
    if PLAIN in table.columns:
        raise DatasetError(f"{table.origin}: found texts alone; expected objects with an answer")
    return table


def read_table(path: Path) -> SplitTable:
    """Read a file of any kind, or a folder that `Dataset.save_to_disk` wrote.

    Args:
        path: The file, of a kind that `check_table` allows.

    Raises:
        DatasetError: If it is damaged; names the line.
        MissingDependency: If its kind needs a package that is not installed.
    """
    again = "create it again"
    if path.is_dir():
        from datasets import load_from_disk

        with dataset_errors(str(path), again):
            return _typed(load_from_disk(str(path)), str(path))
    if ending(path) == ".parquet" and _is_empty_parquet(path):  # which `datasets` cannot read
        return SplitTable([], str(path), str)
    if ending(path) in TYPED:
        options = {"data_files": {"train": str(path)}, "split": "train"}
        return _load(str(path), TYPED[ending(path)], fix=again, **options)
    rows = list(read_rows(path))
    values = [row.values for row in rows]
    return SplitTable(values, str(path), lambda index: f"{path}, {rows[index].place}")


def _is_empty_parquet(path: Path) -> bool:
    import pyarrow.parquet as pq

    with dataset_errors(str(path), "create it again"):
        return int(pq.read_metadata(path).num_rows) == 0


def _read_hub(source: DatasetSource, split: str) -> SplitTable:
    theirs = source.splits[split]
    origin = f"dataset {source.path}, split {theirs}"
    return _load(origin, source.path, source.name, split=theirs, revision=source.revision)


def _load(origin: str, *arguments: Any, fix: str = _HUB_FIX, **options: Any) -> SplitTable:
    from datasets import load_dataset

    with dataset_errors(origin, fix):
        return _typed(load_dataset(*arguments, **options), origin)


def _typed(table: Any, origin: str) -> SplitTable:
    names = {name: name.strip() for name in table.column_names if name != name.strip()}
    named = table.rename_columns(names) if names else table
    return SplitTable.of(named, origin, lambda row: f"{origin}, row {row + 1}")


@contextmanager
def dataset_errors(origin: str, fix: str = _HUB_FIX) -> Iterator[None]:
    """Convert exceptions of `datasets` to one-sentence errors.

    Args:
        origin: The dataset that is read, for the message.
        fix: What to do if it cannot be read.

    Raises:
        DatasetError: If it does not exist or cannot be read, or the Hub does not answer.
    """
    from datasets.exceptions import DatasetNotFoundError

    try:
        with _progress_bars_on_terminals_only():
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
    except Exception as error:  # datasets raises many kinds of exceptions
        raise DatasetError(f"{origin}: cannot be read ({_root_message(error)}); {fix}") from error


@contextmanager
def _progress_bars_on_terminals_only() -> Iterator[None]:
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
