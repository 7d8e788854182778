"""What a text file is, found out before a parser reads it: compression, encoding and delimiter."""

import csv
import gzip
import io
import json
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, cast

from softhub.errors import DatasetError, SoftHubWarning

DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "vertical bar"}
_GZIP = b"\x1f\x8b"
_NO_TEXT = {  # by their first bytes
    b"PK\x03\x04": "an Excel workbook or another zip archive; name it .xlsx, or unpack it",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save it as .xlsx, or as CSV UTF-8",
    b"PAR1": "a Parquet file; name it .parquet",
    b"ARROW1": "an Arrow file; name it .arrow",
    b"SQLite format 3": "an SQLite database; export its table as CSV",
}
_LONGEST_FIELD = 2**31 - 1
_HEAD = 50  # lines that tell how columns are separated


@dataclass(frozen=True)
class TextFile:
    """A file whose lines can be read.

    Attributes:
        path: The file.
        encoding: UTF-8, or what its first bytes say: UTF-16 or UTF-32.
        is_compressed: Whether it is compressed by gzip, as its first bytes say.
        content: Its bytes if they were read from stdin, whose name `path` then is.
    """

    path: Path
    encoding: str = "utf-8"
    is_compressed: bool = False
    content: bytes | None = None

    @classmethod
    def open(cls, path: Path, content: bytes | None = None) -> "TextFile":
        """Look at a file's first bytes.

        Args:
            path: The file, or a name for messages.
            content: What was read from stdin; None to read the file.

        Raises:
            DatasetError: It cannot be read, or is no text file.
        """
        file = cls(path, content=content)
        with _explained(path):
            start = file._start()
            if start.startswith(_GZIP):
                file = replace(file, is_compressed=True)
                start = file._start()
        for magic, kind in _NO_TEXT.items():
            if start.startswith(magic):
                raise DatasetError(f"{path}: in spite of its name, this is {kind}")
        encoding = json.detect_encoding(start[:4])  # by the byte order mark, or zeros in ASCII
        if not encoding.startswith("utf-8"):
            note(path, encoding.upper())
        return replace(file, encoding=encoding)

    def lines(self) -> Iterator[tuple[int, str]]:
        r"""Yield the lines with their numbers; `\n`, `\r\n` and `\r` (old Macs) end a line.

        Raises:
            DatasetError: A line is not in the encoding; names the line.
        """
        # A byte that is not UTF-8 becomes a lone surrogate, so that its line can be named.
        errors = "surrogateescape" if self.encoding.startswith("utf-8") else "strict"
        with _explained(self.path), self._binary() as binary:
            text = io.TextIOWrapper(binary, self.encoding, errors=errors, newline="")
            for number, line in enumerate(text, start=1):
                if errors != "strict":
                    self._check(number, line)
                yield number, line

    def _start(self) -> bytes:
        with self._binary() as binary:
            return binary.read(16)

    def _binary(self) -> IO[bytes]:
        source = self.path if self.content is None else io.BytesIO(self.content)
        if self.is_compressed:
            return cast(IO[bytes], gzip.open(source))
        return source.open("rb") if isinstance(source, Path) else source

    def _check(self, number: int, line: str) -> None:
        try:
            line.encode()
        except UnicodeEncodeError as error:
            shown = line.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
            around = shown[max(0, error.start - 20) :][:40].strip()
            convert, name = "iconv -f CP1252 -t UTF-8", self.path.name
            fix = f"save it as 'CSV UTF-8', or convert it with: {convert} {name} > new-{name}"
            if self.content is not None:
                fix = f"pipe it through: {convert}"
            raise DatasetError(
                f"{self.path}, line {number}: is not UTF-8. If {around!r} is the right text, it is "
                f"Windows-1252, as in CSV files of Excel: {fix}"
            ) from None


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Convert errors of the file system, of gzip and of decoders to one sentence."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path}: is not valid {error.encoding.upper()} ({error.reason}); copy or create it "
            f"again, or save it as UTF-8"
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DatasetError(
            f"{path}: the compressed file is damaged or truncated ({error}); create it again"
        ) from error
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error


@contextmanager
def long_fields() -> Iterator[None]:
    """Let the fields of a table be of any length."""
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def find_delimiter(file: TextFile, usual: str) -> str:
    """Return the character that separates the columns of a table.

    Args:
        file: The table, whose first line names the columns.
        usual: The delimiter that the file's ending promises.

    Raises:
        DatasetError: Several delimiters divide all rows evenly, and the usual one does not.
    """
    head = [line for _, line in islice(file.lines(), _HEAD)]
    widths = {mark: _widths(head, mark) for mark in (usual, *DELIMITERS)}
    found = [mark for mark, each in widths.items() if each and each[0] > 1]
    even = [mark for mark in found if len({*widths[mark]}) == 1]
    if usual not in even and len(even) > 1:
        names = " or ".join(DELIMITERS[mark] for mark in even)
        raise DatasetError(
            f"{file.path}: cannot tell whether its columns are separated by {names}; separate them "
            f"by {DELIMITERS[usual]}s"
        )
    delimiter = next(iter(even or found), usual)
    if delimiter != usual:
        note(file.path, f"a table whose columns are separated by {DELIMITERS[delimiter]}s")
    return delimiter


def _widths(head: list[str], mark: str) -> list[int]:
    """Return the number of fields in each row; the last one may go on after the head."""
    try:
        with long_fields():
            rows = [row for row in csv.reader(head, delimiter=mark) if row]
    except csv.Error:
        return []
    return [len(row) for row in (rows[:-1] if len(head) == _HEAD else rows)]


def note(path: Path, form: str) -> None:
    """Say that a file is read in another form than its ending promises."""
    warnings.warn(f"{path}: is read as {form}", SoftHubWarning, stacklevel=3)
