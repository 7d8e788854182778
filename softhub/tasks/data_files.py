"""Local data files, read strictly: an error names the file and the line.

JSON and CSV are read by the standard library and not by `datasets` or pandas, whose readers infer
types (a date, "1.0" and "NA" are no longer text) and cannot say that a file ends in the middle of
line 412. Values stay text as written. Excel workbooks are read by pandas, and everything that has
types of its own (Parquet, Arrow, `save_to_disk`) by `datasets`, in `split_table`.
"""

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from softhub.errors import DatasetError, MissingDependency
from softhub.tasks.file_detection import DELIMITERS, TextFile, find_delimiter, long_fields, note
from softhub.tasks.json_shape import loads, rows_of

TYPED = {".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow"}
"""Endings of files that `datasets` reads, with the names of its readers."""

_USUAL = {".csv": ",", ".tsv": "\t"}
_JSON = (".json", ".jsonl", ".ndjson")
ENDINGS = (*_JSON, *_USUAL, ".xlsx", *TYPED)

_SCHEME = re.compile("[a-z][a-z0-9+.-]+:")  # of a URL, as `Path` divides it; no drive of Windows
_CHAT_KEYS = (("role", "content"), ("from", "value"))  # of OpenAI's form, and of ShareGPT's
_ROLES = {"human": "user", "gpt": "assistant"}

PLAIN = ""
"""The column of an input that is only a text: a line of a `.txt` file, or a string in JSON."""


class FileRow(NamedTuple):
    """A row of a data file.

    Attributes:
        place: Where it is: `line 12`, or `row 12` (from 1) where rows are not lines.
        values: Its values by column; nested columns have dotted names.
    """

    place: str
    values: Mapping[str, Any]


def ending(path: Path) -> str:
    """Return a file's ending in lower case, without that of gzip."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def is_saved_dataset(path: Path) -> bool:
    """Return whether `Dataset.save_to_disk` wrote this folder."""
    return (path / "state.json").is_file() and (path / "dataset_info.json").is_file()


def is_table(path: Path) -> bool:
    """Return whether a file or folder is of a kind that can be read."""
    return is_saved_dataset(path) if path.is_dir() else ending(path) in ENDINGS


def check_table(path: Path, *, fix: str, also: Sequence[str] = ()) -> None:
    """Raise if there is no such file, or one of an unknown kind.

    Args:
        path: The file, or a folder that `save_to_disk` wrote.
        fix: What to do if it is missing.
        also: Further endings that are allowed.
    """
    scheme = next((part for part in path.parts if _SCHEME.fullmatch(part)), None)
    if scheme is not None and not path.exists():
        rest = path.parts[path.parts.index(scheme) + 1 :]
        raise DatasetError(
            f"{scheme}//{'/'.join(rest)}: is a URL; expected a local file, so download the file, "
            f"or name a dataset on the Hub"
        )
    if path.is_dir() and not is_saved_dataset(path):
        raise DatasetError(f"{path}: is a folder; expected a file, or a folder of save_to_disk")
    if not (is_table(path) or ending(path) in also):
        endings = ", ".join((*also, *ENDINGS))
        raise DatasetError(f"{path}: expected a file that ends in one of {endings}; convert it")
    if not path.exists():
        raise DatasetError(f"{path}: there is no such file; {fix}")


def read_rows(path: Path) -> Iterator[FileRow]:
    """Yield the rows of a JSON, CSV, Excel or text file in order.

    Args:
        path: The file.

    Raises:
        DatasetError: If the file is damaged or truncated; names the line.
        MissingDependency: If it is a workbook and openpyxl is not installed.
    """
    kind = ending(path)
    if kind == ".xlsx":
        return _excel_rows(path)
    file = TextFile.open(path)
    if kind == ".txt":
        return _plain_rows(file)
    if kind in _USUAL:
        return _csv_rows(file, _USUAL[kind])
    return _document_rows(file) if kind == ".json" and _is_document(file) else _jsonl_rows(file)


def flatten(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a row with a dotted name for each nested column: `translation.de`.

    A chat of one turn becomes a column for each role, such as `messages.user`.

    Raises:
        DatasetError: Two columns then have the same name.
    """
    flat: dict[str, Any] = {}
    for name, value in row.items():
        value = _by_role(value) if isinstance(value, list) else value
        nested = isinstance(value, Mapping)
        found = flatten(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
        for repeated in flat.keys() & found.keys():
            raise DatasetError(
                f"the column {repeated!r} is there twice, once nested in another; rename one"
            )
        flat |= found
    return flat


def is_chat(value: Any) -> bool:
    """Return whether a value is a list of messages, each with a role and a text."""
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(item, Mapping) for item in value)
        and any(all({*keys} <= set(item) for item in value) for keys in _CHAT_KEYS)
    )


def _by_role(value: list[Any]) -> Any:
    """Return the messages of a chat by role if each role has one; else the value as it is."""
    if not is_chat(value):
        return value
    role, content = next(keys for keys in _CHAT_KEYS if keys[0] in value[0])
    found = {_ROLES.get(item[role], str(item[role])): item[content] for item in value}
    single = len(found) == len(value) and all(isinstance(text, str) for text in found.values())
    return found if single else value


def _plain_rows(file: TextFile) -> Iterator[FileRow]:
    for number, line in file.lines():
        if line.strip():
            yield FileRow(f"line {number}", {PLAIN: line.rstrip("\r\n")})


def _is_document(file: TextFile) -> bool:
    """Return whether a file is one JSON value, rather than one on each line."""
    filled = (line for _, line in file.lines() if line.strip())
    first = next(filled, "")
    try:
        is_row = isinstance(loads(first), dict)
    except (json.JSONDecodeError, KeyError):
        is_row = False
    return bool(first) and not (is_row and next(filled, ""))


def _jsonl_rows(file: TextFile) -> Iterator[FileRow]:
    for number, line in file.lines():
        if line.strip():
            yield _row(file.path, f"line {number}", _parsed(file, line, number))


def _parsed(file: TextFile, line: str, number: int) -> Any:
    try:
        return loads(line)
    except KeyError as error:
        raise _repeated(file.path, f"line {number}", error) from None
    except json.JSONDecodeError as error:
        if not line.endswith(("\n", "\r")):
            raise _truncated(file.path, number, line) from None
        raise DatasetError(
            f"{file.path}, line {number}: not valid JSON ({error.msg} at character {error.colno}); "
            f'expected one object per line, such as {{"text": …}}; a single document over several '
            f"lines belongs in a .json file"
        ) from None


def _document_rows(file: TextFile) -> Iterator[FileRow]:
    text = "".join(line for _, line in file.lines())
    try:
        document = loads(text)
    except KeyError as error:
        raise _repeated(file.path, "an object", error) from None
    except json.JSONDecodeError as error:
        if not text.rstrip().endswith(("]", "}")):
            lines = text.splitlines()
            raise _truncated(file.path, len(lines), lines[-1]) from None
        raise DatasetError(
            f"{file.path}, line {error.lineno}: not valid JSON ({error.msg} at character "
            f"{error.colno})"
        ) from None
    for number, row in enumerate(rows_of(file.path, document), start=1):
        yield _row(file.path, f"row {number}", row)


def _row(path: Path, place: str, row: Any) -> FileRow:
    if isinstance(row, str):
        return FileRow(place, {PLAIN: row})
    if not isinstance(row, dict):
        raise DatasetError(
            f'{path}, {place}: found {row!r:.60}; expected an object, such as {{"text": …}}'
        )
    named = _named(path, list(row))
    try:
        return FileRow(place, flatten(dict(zip(named, row.values(), strict=True))))
    except DatasetError as error:
        raise DatasetError(f"{path}, {place}: {error}") from None


def _named(path: Path, header: Sequence[str]) -> list[str]:
    """Return the names of columns without the blanks around them; repeated ones are an error."""
    names = [name.strip() for name in header]
    repeated = next((name for name in names if name and names.count(name) > 1), None)
    if repeated is not None:
        raise DatasetError(f"{path}: repeats the column name {repeated!r}; rename one of them")
    return names


def _csv_rows(file: TextFile, usual: str) -> Iterator[FileRow]:
    delimiter = find_delimiter(file, usual)
    first = next((line for _, line in file.lines()), "")
    spaced = first.count(delimiter) > 0 and first.count(delimiter) == first.count(f"{delimiter} ")
    if spaced:
        note(file.path, f"a table with a blank after each {DELIMITERS[delimiter]}")
    rows = _csv_fields(file, delimiter, spaced)
    header = next(rows, None)
    if header is None:
        return
    names = _named(file.path, header[1])
    unnamed = _Unnamed(file.path, names)
    for line, row in rows:
        if len(row) != len(names):
            raise DatasetError(
                f"{file.path}, line {line}: has {len(row)} fields and the header {len(names)}; the "
                f"row is truncated, or a {DELIMITERS[delimiter]} or quote in it is not quoted"
            )
        yield FileRow(f"line {line}", unnamed.left_out(row))


class _Unnamed:
    """Leaves out the columns that have no name, and says so once if they have values."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._path, self._names = path, names
        self._places = [place for place, name in enumerate(names) if not name]

    def left_out(self, row: Sequence[str]) -> dict[str, str]:
        """Return the values of the columns that have a name."""
        if any(row[place].strip() for place in self._places):
            listed = " and ".join(str(place + 1) for place in self._places)
            which = f"{'columns' if len(self._places) > 1 else 'column'} {listed}"
            note(self._path, f"a table without {which}, which have values and no name")
            self._places = []
        return {name: value for name, value in zip(self._names, row, strict=True) if name}


def _csv_fields(file: TextFile, delimiter: str, spaced: bool) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank with the line on which each begins."""
    lines = (line for _, line in file.lines())
    reader = csv.reader(lines, strict=True, delimiter=delimiter, skipinitialspace=spaced)
    start = 1
    with long_fields():
        try:
            for row in reader:
                if row:
                    yield start, row
                start = reader.line_num + 1
        except csv.Error as error:
            raise DatasetError(
                f"{file.path}, line {start}: not valid CSV ({error}); look for a quote that is "
                f"never closed"
            ) from None


def _excel_rows(path: Path) -> Iterator[FileRow]:
    import pandas

    try:
        with path.open("rb") as file:  # all cells as text; a blank one is an empty text
            options = {"header": None, "dtype": str, "keep_default_na": False}
            book = pandas.read_excel(file, sheet_name=None, engine="openpyxl", **options)
    except ImportError as error:
        raise MissingDependency(
            f'{path}: Excel workbooks need openpyxl; install it with: pip install "softhub[excel]"'
        ) from error
    except Exception as error:  # openpyxl and zipfile raise many kinds
        raise DatasetError(f"{path}: cannot be read as an Excel workbook ({error})") from error
    filled = {name: sheet for name, sheet in book.items() if len(sheet) > 1}
    if len(filled) > 1:
        note(path, f"its first sheet, {next(iter(filled))!r}; it has {len(filled)} with rows")
    unnamed: _Unnamed | None = None
    for number, row in enumerate(next(iter(filled.values())).values.tolist() if filled else [], 1):
        if not any(row):
            continue
        if unnamed is None:
            unnamed = _Unnamed(path, _named(path, row))
        else:
            yield FileRow(f"row {number}", unnamed.left_out(row))


def _repeated(path: Path, place: str, error: KeyError) -> DatasetError:
    return DatasetError(f"{path}, {place}: repeats the key {error.args[0]!r}; remove one")


def _truncated(path: Path, number: int, line: str) -> DatasetError:
    return DatasetError(
        f"{path}, line {number}: the file ends in the middle of this line "
        f"(…{line[-40:]!r}); copy or create it again"
    )
