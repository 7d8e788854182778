"""Records on disk: files of JSON lines that are added one by one, and files of one JSON object."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from softhub.errors import ConfigError
from softhub.files import replace_file

Record = TypeVar("Record")


def read_records(path: Path, make: Callable[..., Record]) -> list[Record]:
    """Return the records of a file of JSON lines; none if there is no file.

    A last line without a line break was cut off by a crash, and is left out.

    Args:
        path: The file.
        make: Called with the entries of each line; `dict` returns them as they are.

    Raises:
        ConfigError: A line is damaged; the message names it.
    """
    # Only b"\n" ends a record: texts may contain other characters at which `str` splits lines.
    *lines, _ = (path.read_bytes() if path.is_file() else b"").split(b"\n")
    return [_made(path, number, line, make) for number, line in enumerate(lines, start=1)]


def _made(path: Path, number: int, line: bytes, make: Callable[..., Record]) -> Record:
    try:
        return make(**json.loads(line.decode()))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} is damaged: line {number} is not the JSON record that was expected there. "
            "Restore the file from a backup, or delete that line; what it recorded is then "
            "computed again."
        ) from error


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Append a line and flush it to the disk; one that a crash cut off before it is removed."""
    content = path.read_bytes() if path.is_file() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        replace_file(path, whole)
    line = json.dumps(record, ensure_ascii=False) + "\n"
    with path.open("ab") as file:
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def read_record(path: Path, fix: str) -> dict[str, Any]:
    """Return the JSON object of a file.

    Args:
        path: The file.
        fix: What to do if it is damaged, a sentence.

    Raises:
        OSError: It cannot be read.
        ConfigError: It is damaged; the message names the line.
    """
    content = path.read_bytes()
    try:
        record: dict[str, Any] = dict(**json.loads(content.decode()))
    except (TypeError, ValueError, RecursionError) as error:
        start = getattr(error, "start", 0)  # the first byte that is not UTF-8
        line = getattr(error, "lineno", content.count(b"\n", 0, start) + 1)
        raise ConfigError(
            f"{path} is damaged: line {line} is not the JSON that was expected there. {fix}"
        ) from error
    return record
