"""Where the data of a task yet to be written is, and its rows as they stand."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softhub.errors import DatasetError
from softhub.metrics.label_sets import split_labels
from softhub.tasks.data_files import BUILDERS, ending
from softhub.tasks.dataset import SPLITS, DatasetSource
from softhub.tasks.split_table import SplitTable, dataset_errors, read_split

if TYPE_CHECKING:
    from datasets import Dataset

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_PLAIN = re.compile(r"(large_)?string|u?int\d+|float\d+|bool")
# What datasets call the splits that softhub calls train, dev and test.
_SPLIT_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "dev": ("validation", "dev", "valid", "val", "development", "eval"),
    "test": ("test", "testing"),
}
_PLAIN_STEMS = ("train", "training", "data", "dataset", "all")


@dataclass(frozen=True)
class Source:
    """Data before there is a task.

    Attributes:
        dataset: Where it is; data files are absolute.
        rows: The rows of each split.
        name: What the task might be called.
        origin: What it was found by.
    """

    dataset: DatasetSource
    rows: Mapping[str, SplitTable]
    name: str
    origin: str

    @property
    def table(self) -> Dataset:
        """The rows to learn from."""
        return self.rows["train"].table

    @property
    def plain_columns(self) -> list[str]:
        """The columns of text, numbers, switches or classes, which any file format can hold."""
        dtypes = {name: getattr(item, "dtype", "") for name, item in self.table.features.items()}
        return [name for name, dtype in dtypes.items() if _PLAIN.fullmatch(str(dtype))]


@dataclass(frozen=True)
class Table:
    """Some columns of one split, read into memory.

    Attributes:
        columns: Values by column; a missing one is `None`, a class is its name, several labels
            are a tuple.
        size: Number of rows.
        place: Says where a row stands, for a message.
    """

    columns: Mapping[str, Sequence[Any]]
    size: int
    place: Callable[[int], str]

    @classmethod
    def read(
        cls,
        rows: SplitTable,
        columns: Sequence[str],
        *,
        sets: str | None = None,
        blanks: Sequence[str] = (),
    ) -> Table:
        """Read columns that hold text, numbers, switches or classes.

        Args:
            rows: The rows of a split.
            columns: The columns to read.
            sets: One of them whose cells hold several labels, which become a tuple.
            blanks: Those of them that may be blank, which is not missing.

        Raises:
            DatasetError: If a column is not there, or holds other lists or records.
        """
        present = rows.table.column_names
        read: dict[str, Sequence[Any]] = {}
        for column in columns:
            if column not in present:
                raise DatasetError(
                    f"{rows.origin}: has no column {column!r}, only {', '.join(present)}; "
                    f"all splits need the same columns"
                )
            values = read_column(rows.table, column)
            if column == sets:
                read[column] = [*map(_as_set, rows.table[column], values)]
                continue
            checked = _checked(values, rows, column)
            if column in blanks:
                checked = [*map(_or_blank, rows.table[column], checked)]
            read[column] = checked
        return cls(read, len(rows.table), rows.place)

    def row(self, index: int) -> dict[str, Any]:
        """Return one row."""
        return {column: values[index] for column, values in self.columns.items()}

    def take(self, indices: Sequence[int]) -> Table:
        """Return a part of the rows."""
        columns = {name: [values[i] for i in indices] for name, values in self.columns.items()}
        return Table(columns, len(indices), lambda row: self.place(indices[row]))

    @cached_property
    def whole(self) -> list[int]:
        """The rows in which nothing is missing."""
        columns = [*self.columns.values()]
        return [i for i in range(self.size) if all(values[i] is not None for values in columns)]


def find_source(
    place: str,
    *,
    dev: Path | None = None,
    test: Path | None = None,
    subset: str | None = None,
    revision: str | None = None,
) -> Source:
    """Read local files, or a dataset of the Hub.

    Args:
        place: A json, jsonl, csv or parquet file, or the id of a dataset on the Hub.
        dev: A second file, to choose by.
        test: A third one, to judge by.
        subset: Configuration of the Hub's dataset, where it has several.
        revision: Its commit, tag or branch.

    Raises:
        DatasetError: If the data is missing, empty or damaged; names file and line.
    """
    path = Path(place).expanduser()
    if path.exists() or ending(path) in BUILDERS or not _HUB_ID.fullmatch(place):
        dataset, name = _files(path, dev, test, subset or revision), _name_of(path)
    elif dev is not None or test is not None:
        raise DatasetError(
            f"{place} is read as a dataset on the Hub, which brings its own splits; "
            f"leave --dev and --test out, or name a file that exists"
        )
    else:
        dataset, name = _hub(place, subset, revision), place.rpartition("/")[2]
    rows = {split: read_split(dataset, split) for split in dataset.split_names}
    for split in rows.values():
        _check_columns(split)
    return Source(dataset, rows, name, path.name if dataset.path is None else place)


def _files(path: Path, dev: Path | None, test: Path | None, hub_key: str | None) -> DatasetSource:
    if hub_key is not None:
        raise DatasetError(f"{path} is a file, and has neither subset nor revision; leave them out")
    files: dict[str, str] = {}
    for split, file in zip(SPLITS, (path, dev, test), strict=True):
        if file is None:
            continue
        file = file.expanduser()
        if not file.is_file():
            what = "a folder" if file.is_dir() else "no such file"
            raise DatasetError(
                f"{file}: there is {what}; expected a file ({', '.join(BUILDERS)}), or the id of "
                f"a dataset on the Hub, such as stanfordnlp/sst2"
            )
        if str(file.resolve()) in files.values():
            raise DatasetError(f"{file}: is given twice; each split needs rows of its own")
        files[split] = str(file.resolve())
    return DatasetSource(data_files=files)


def _hub(place: str, subset: str | None, revision: str | None) -> DatasetSource:
    from datasets import get_dataset_config_names, get_dataset_split_names

    with dataset_errors(f"dataset {place}"):
        subsets = get_dataset_config_names(place, revision=revision)
        if subset is None and len(subsets) == 1:
            subset = subsets[0]
    if subset not in subsets:
        raise DatasetError(
            f"dataset {place}: {'choose a subset' if subset is None else f'has no {subset!r}'}; "
            f"say --subset with one of {', '.join(subsets)}"
        )
    with dataset_errors(f"dataset {place}"):
        found = get_dataset_split_names(place, subset, revision=revision)
    splits = {
        split: next(name for name in names if name in found)
        for split, names in _SPLIT_NAMES.items()
        if set(names) & set(found)
    }
    if "train" not in splits:
        raise DatasetError(
            f"dataset {place}: has no train split, only {', '.join(found)}; write the task file by "
            f"hand, with dataset: {{path: {place}, splits: {{train: {found[0]}, …}}}}"
        )
    name = None if subset == "default" else subset
    return DatasetSource(path=place, name=name, revision=revision, splits=splits)


def _name_of(path: Path) -> str:
    path = path.resolve()
    return path.parent.name if path.stem.lower() in _PLAIN_STEMS else path.stem


def _check_columns(rows: SplitTable) -> None:
    columns = rows.table.column_names
    if len(columns) > 1:
        return
    (column,) = columns
    mark = next((mark for mark in ";\t|" if mark in column), None)
    if mark is not None and rows.file is not None:
        raise DatasetError(
            f"{rows.file}: its columns are parted by {mark!r}; expected commas. Convert it: python "
            f'-c "import pandas; pandas.read_csv({rows.file.name!r}, sep={mark!r}, dtype=str)'
            f'.to_csv({rows.file.stem + "-commas.csv"!r}, index=False)"'
        )
    raise DatasetError(
        f"{rows.origin}: has a single column, {column!r}; expected one of texts and one of answers"
    )


def read_column(table: Dataset, name: str) -> list[Any]:
    """Return a column's values: classes by name, lists of text as tuples, `None` where missing.

    Args:
        table: The rows.
        name: The column.
    """
    feature = table.features[name]
    classes = getattr(feature, "names", None) or getattr(
        getattr(feature, "feature", None), "names", None
    )
    return [_cell(value, classes) for value in table[name]]


def _cell(value: Any, classes: Sequence[str] | None) -> Any:
    if isinstance(value, list):
        items = [_cell(item, classes) for item in value]
        return tuple(items) if all(isinstance(item, str) for item in items) else value
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        return None
    if classes:  # -1 is the Hub's word for a row without a label
        return classes[value] if value >= 0 else None
    return value


def _checked(values: Sequence[Any], rows: SplitTable, column: str) -> list[Any]:
    """The values of a column of text, numbers or switches; a list of texts is its lines."""
    joined = ["\n".join(value) if isinstance(value, tuple) else value for value in values]
    for row, value in enumerate(joined):
        if value is not None and not isinstance(value, str | int | float):
            raise DatasetError(
                f"{rows.place(row)}: {column!r} is a {type(value).__name__}; expected text or a "
                f"number. Choose another column"
            )
    return joined


def _as_set(written: Any, value: Any) -> Any:
    """The labels of one row, where it may have several: a blank cell is none of them."""
    if isinstance(written, str):
        return split_labels(written)
    return value


def _or_blank(written: Any, value: Any) -> Any:
    return "" if value is None and isinstance(written, str) else value
