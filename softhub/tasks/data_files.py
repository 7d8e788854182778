"""Local data files, read strictly: an error names the file and the line.

JSON and CSV are read here and not by `datasets`, whose readers infer types (a date is no longer
text) and cannot say that a file ends in the middle of line 412. CSV values stay text as written.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from softhub.errors import DatasetError

ENDINGS = (".json", ".jsonl", ".csv", ".parquet")
_LONGEST_FIELD = 2**31 - 1


class FileRow(NamedTuple):
    """A row of a data file.

    Attributes:
        place: Where it is: `line 12`, or `row 12` (from 1) where rows are not lines.
        values: Its values by column; nested columns have dotted names.
    """

    place: str
    values: Mapping[str, Any]


def ending(path: Path) -> str:
    """Return a file's ending in lower case."""
    return path.suffix.lower()


def check_exists(path: Path, *, prepare: str | None = None) -> None:
    """Raise if there is no such file, or one of an unknown kind."""
    if ending(path) not in ENDINGS:
        endings = ", ".join(ENDINGS)
        raise DatasetError(f"{path}: expected a file that ends in one of {endings}; convert it")
    if not path.is_file():
        step = f"create it with: {prepare}" if prepare else "check data_files in the task file"
        raise DatasetError(f"{path}: there is no such file; {step}")


def read_rows(path: Path) -> Iterator[FileRow]:
    """Yield the rows of a JSON, JSONL or CSV file in order.

    Args:
        path: The file.

    Raises:
        DatasetError: If the file is damaged or truncated; names the line.
    """
    if ending(path) == ".csv":
        return _csv_rows(path)
    first = next((line.lstrip()[0] for _, line in _lines(path) if line.strip()), "")
    return _array_rows(path) if ending(path) == ".json" and first == "[" else _jsonl_rows(path)


def flatten(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a row with a dotted name for each nested column: `translation.de`."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DatasetError(
                    f"{path}, line {number}: is not UTF-8 ({error.reason}); save the file as "
                    f"UTF-8, e.g. with: iconv -f CP1252 -t UTF-8 {path.name} > new-{path.name}"
                ) from None


def _jsonl_rows(path: Path) -> Iterator[FileRow]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if not line.endswith("\n"):
                raise _truncated(path, number, line) from None
            raise DatasetError(
                f"{path}, line {number}: not valid JSON ({error.msg} at character {error.colno}); "
                f'expected one object per line, such as {{"text": …}}'
            ) from None
        yield _object(path, f"line {number}", row)


def _array_rows(path: Path) -> Iterator[FileRow]:
    text = "".join(line for _, line in _lines(path))
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        if not text.rstrip().endswith("]"):
            lines = text.splitlines()
            raise _truncated(path, len(lines), lines[-1]) from None
        raise DatasetError(
            f"{path}, line {error.lineno}: not valid JSON ({error.msg} at character {error.colno})"
        ) from None
    for number, row in enumerate(rows, start=1):
        yield _object(path, f"row {number}", row)


def _object(path: Path, place: str, row: Any) -> FileRow:
    if not isinstance(row, dict):
        raise DatasetError(
            f'{path}, {place}: found {row!r:.60}; expected an object, such as {{"text": …}}'
        )
    return FileRow(place, flatten(row))


def _csv_rows(path: Path) -> Iterator[FileRow]:
    header: list[str] = []
    for line, row in _csv_fields(path):
        if not header:
            header = row
            if len(set(header)) != len(header):
                raise DatasetError(f"{path}, line 1: repeats a column name: {', '.join(header)}")
            continue
        if len(row) != len(header):
            raise DatasetError(
                f"{path}, line {line}: has {len(row)} fields and the header {len(header)}; "
                f"the row is truncated, or a comma or quote in it is not quoted"
            )
        yield FileRow(f"line {line}", dict(zip(header, row, strict=True)))


def _csv_fields(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank with the line on which each begins."""
    reader = csv.reader((line for _, line in _lines(path)), strict=True)
    before = csv.field_size_limit(_LONGEST_FIELD)
    start = 1
    try:
        for row in reader:
            if row:
                yield start, row
            start = reader.line_num + 1
    except csv.Error as error:
        raise DatasetError(
            f"{path}, line {start}: not valid CSV ({error}); look for a quote that is never closed"
        ) from None
    finally:
        csv.field_size_limit(before)


def _truncated(path: Path, number: int, line: str) -> DatasetError:
    return DatasetError(
        f"{path}, line {number}: the file ends in the middle of this line "
        f"(…{line[-40:]!r}); copy or create it again"
    )
