"""Reading local data files strictly, to say in which line one is damaged.

`datasets` reads the rows; what is here reads the same file first, because a parser deep inside
Arrow cannot say 'line 412 is cut off', and a short CSV row would be filled up in silence.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from softhub.errors import DatasetError

# File ending -> the builder of `datasets` that reads it.
BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}
_LONGEST_FIELD = 2**31 - 1


def ending(path: Path) -> str:
    """Return a file's ending as `BUILDERS` has it: in small letters."""
    return path.suffix.lower()


def check_file(path: Path, *, prepare: str | None = None) -> None:
    """Refuse a file that is missing, empty, damaged or cut off.

    Args:
        path: A file with an ending of `BUILDERS`.
        prepare: The command that makes the file, for the message.

    Raises:
        DatasetError: Naming the file, the line, and what to do.
    """
    if ending(path) not in BUILDERS:
        endings = ", ".join(BUILDERS)
        raise DatasetError(f"{path}: expected a file that ends in one of {endings}; convert it")
    if not path.is_file():
        step = f"make it with: {prepare}" if prepare else "check data_files in the task file"
        raise DatasetError(f"{path}: there is no such file; {step}")
    # Arrow checks parquet's own structure; there are no lines to name.
    if ending(path) == ".parquet":
        return
    if sum(1 for _ in _places(path)) == 0:
        raise DatasetError(f"{path}: is empty; expected at least one row")


def builder_options(path: Path) -> dict[str, Any]:
    """Return what the builder must be told to give the values as they are written.

    Args:
        path: A file that `check_file` has accepted.
    """
    if ending(path) != ".csv":
        return {}
    from datasets import Features, Value

    # pandas would make 7 of 007, and nothing of the word NA.
    _, header = next(iter(_csv_rows(path)))
    # pandas itself writes an index without a name, and reads it back under this one.
    names = [column or f"Unnamed: {place}" for place, column in enumerate(header)]
    features = Features({column: Value("string") for column in names})
    return {"features": features, "keep_default_na": False}


def place_of(path: Path, row: int) -> str:
    """Say where a row of a file stands.

    Args:
        path: A file that `check_file` has accepted.
        row: Number of the row, from 0.

    Returns:
        `file, line 12`, or `file, row 12` (from 1) where rows are not lines.
    """
    if ending(path) == ".parquet":
        return f"{path}, row {row + 1}"
    for number, place in enumerate(_places(path)):
        if number == row:
            return place
    raise DatasetError(f"{path}: changed while it was read; run this again")


def _places(path: Path) -> Iterator[str]:
    """Yield where each row stands, in order; raise where one is damaged."""
    if ending(path) == ".csv":
        return _csv_places(path)
    if ending(path) == ".json" and _first_character(path) == "[":
        return _array_places(path)
    return _jsonl_places(path)


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


def _first_character(path: Path) -> str:
    return next((line.lstrip()[0] for _, line in _lines(path) if line.strip()), "")


def _jsonl_places(path: Path) -> Iterator[str]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if not line.endswith("\n"):
                raise _cut_off(path, number, line) from None
            raise DatasetError(
                f"{path}, line {number}: not valid JSON ({error.msg} at character {error.colno}); "
                f'expected one object a line, such as {{"text": …}}'
            ) from None
        _check_object(row, f"{path}, line {number}")
        yield f"{path}, line {number}"


def _array_places(path: Path) -> Iterator[str]:
    text = "".join(line for _, line in _lines(path))
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        if not text.rstrip().endswith("]"):
            lines = text.splitlines()
            raise _cut_off(path, len(lines), lines[-1]) from None
        raise DatasetError(
            f"{path}, line {error.lineno}: not valid JSON ({error.msg} at character {error.colno})"
        ) from None
    for number, row in enumerate(rows, start=1):
        _check_object(row, f"{path}, row {number}")
        yield f"{path}, row {number}"


def _csv_places(path: Path) -> Iterator[str]:
    header: list[str] = []
    for line, row in _csv_rows(path):
        if not header:
            header = _checked_header(path, row)
            continue
        if len(row) != len(header):
            raise DatasetError(
                f"{path}, line {line}: has {len(row)} fields and the header {len(header)}; "
                f"the row is cut off, or a comma or quote in it is not quoted"
            )
        yield f"{path}, line {line}"


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
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


def _checked_header(path: Path, header: list[str]) -> list[str]:
    if len(set(header)) != len(header):
        raise DatasetError(f"{path}, line 1: a column stands twice in {', '.join(header)}")
    return header


def _check_object(row: Any, place: str) -> None:
    if not isinstance(row, dict):
        raise DatasetError(f'{place}: found {row!r:.60}; expected an object, such as {{"text": …}}')


def _cut_off(path: Path, number: int, line: str) -> DatasetError:
    return DatasetError(
        f"{path}, line {number}: the file is cut off in the middle of its last line "
        f"(…{line[-40:]!r}); copy or make it again"
    )
