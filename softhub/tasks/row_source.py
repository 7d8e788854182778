"""The rows of a large file, read one after another, as often as needed, without holding them."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softhub.errors import DatasetError
from softhub.tasks.data_files import PLAIN, TYPED, FileRow, check_table, ending, read_rows
from softhub.tasks.split_table import SplitTable, read_table

_SLICE = 100  # rows of a memory-mapped table that are converted to Python at a time
_BLOCK = 2**20  # bytes that are hashed at a time


@dataclass(frozen=True)
class RowSource:
    """Rows that can be read again, and what is known of them after one reading.

    Attributes:
        origin: The file, for messages.
        digest: SHA-256 of the content.
        count: Number of rows.
        types: Arrow type of each column, or its name: `string`, `int64`, `double` or `bool`.
        read: Starts to read the rows.
    """

    origin: str
    digest: str
    count: int
    types: dict[str, Any]
    read: Callable[[], Iterator[FileRow]]

    @classmethod
    def of_file(cls, path: Path) -> "RowSource":
        """Read a file once, so that what is wrong with it is known before any work begins.

        Workbooks and `.json` documents are held in memory while they are read. Typed files are
        memory-mapped, and everything else is read line by line.

        Args:
            path: A data file, a `.txt` file with a text per line, or a folder of `save_to_disk`.

        Raises:
            DatasetError: It is missing, empty, damaged or of another kind; names the line.
        """
        check_table(path, fix="check the path", also=(".txt",))
        if not (path.is_dir() or ending(path) in TYPED):
            return cls._scanned(str(path), _digest(path), lambda: read_rows(path))
        table = read_table(path)
        if isinstance(table.rows, list):
            return cls._scanned(str(path), _digest(path), lambda: _table_rows(table))
        types = {field.name: field.type for field in table.rows.features.arrow_schema}
        return cls._filled(
            str(path), _digest(path), len(table.rows), types, lambda: _table_rows(table)
        )

    @classmethod
    def of_texts(cls, texts: Sequence[str]) -> "RowSource":
        """Return texts of the command line or of stdin as rows."""
        rows = [FileRow(f"text {place}", {PLAIN: text}) for place, text in enumerate(texts, 1)]
        content = "\0".join(texts).encode(errors="surrogatepass")
        return cls._scanned("texts", hashlib.sha256(content).hexdigest(), lambda: iter(rows))

    @classmethod
    def _scanned(
        cls, origin: str, digest: str, read: Callable[[], Iterator[FileRow]]
    ) -> "RowSource":
        types: dict[str, str | None] = {}
        count = 0
        for row in read():
            count += 1
            for name, value in row.values.items():
                types[name] = _common(types.get(name), _type_of(value))
        return cls._filled(
            origin, digest, count, {n: t or "string" for n, t in types.items()}, read
        )

    @classmethod
    def _filled(cls, origin: str, *facts: Any) -> "RowSource":
        source = cls(origin, *facts)
        if not source.count:
            raise DatasetError(f"{origin}: contains no text; expected at least one row")
        return source


def _table_rows(table: SplitTable) -> Iterator[FileRow]:
    for start in range(0, len(table.rows), _SLICE):
        part = table.rows[start : start + _SLICE]  # of a list, rows; of a Dataset, columns
        if isinstance(part, dict):
            part = [dict(zip(part, row, strict=True)) for row in zip(*part.values(), strict=True)]
        for index, row in enumerate(part, start=start + 1):
            yield FileRow(f"row {index}", row)


def _type_of(value: Any) -> str | None:
    """Return the name of a value's Arrow type; what has no plain type is written as JSON text."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return "int64"
    return "double" if isinstance(value, float) else "string"


def _common(one: str | None, other: str | None) -> str | None:
    """Return the type of a column with values of these two."""
    if one == other or None in (one, other):
        return one or other
    return "double" if {one, other} == {"int64", "double"} else "string"


def _digest(path: Path) -> str:
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for each in files:
        try:
            with each.open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
        except OSError as error:
            raise DatasetError(f"{each}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()
