"""The rows of a split as they are stored: in a local file or on the Hub, read by `datasets`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from softhub.errors import DatasetError
from softhub.tasks.data_files import BUILDERS, builder_options, check_file, ending, place_of
from softhub.tasks.dataset import DatasetSource

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class SplitTable:
    """The rows of a split, and where each of them comes from.

    Attributes:
        table: The rows as `datasets` reads them.
        origin: The file, or the Hub's dataset and split.
        file: The file, if there is one.
    """

    table: "Dataset"
    origin: str
    file: Path | None

    def place(self, row: int) -> str:
        """Return where a row is, for a message."""
        return place_of(self.file, row) if self.file else f"{self.origin}, row {row + 1}"


def read_split(source: DatasetSource, split: str) -> SplitTable:
    """Read the rows of a split; only the file's format is checked.

    Nested columns get dotted names: `translation.de`.

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


def _read_file(source: DatasetSource, split: str) -> SplitTable:
    from datasets import load_dataset

    path = Path(source.data_files[split])
    check_file(path, prepare=source.prepare)
    files, options = {split: str(path)}, builder_options(path)
    try:
        with _progress_bars_on_terminals_only():
            table = load_dataset(BUILDERS[ending(path)], data_files=files, split=split, **options)
    except Exception as error:  # Arrow, pandas and datasets share no base exception
        raise DatasetError(f"{path}: cannot be read ({_root_message(error)})") from error
    return SplitTable(table, str(path), path)


def _read_hub(source: DatasetSource, split: str) -> SplitTable:
    from datasets import load_dataset

    origin = f"dataset {source.path}, split {source.splits[split]}"
    with dataset_errors(origin):
        table = load_dataset(
            source.path, source.name, split=source.splits[split], revision=source.revision
        )
    return SplitTable(table, origin, None)


@contextmanager
def dataset_errors(origin: str) -> Iterator[None]:
    """Turn the exceptions of `datasets` about a dataset on the Hub into one sentence.

    Args:
        origin: The dataset that is read, for the message.

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
        raise DatasetError(
            f"{origin}: cannot be read ({_root_message(error)}); check name, revision and splits"
        ) from error


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
