"""The rows in one JSON document: a list, rows under a key, or one of pandas' forms."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softhub.errors import DatasetError
from softhub.tasks.file_detection import note


def rows_of(path: Path, document: Any) -> Sequence[Any]:
    """Return the rows of a document, which may be anything; the caller checks each row.

    Args:
        path: The file, for messages.
        document: The parsed file.

    Raises:
        DatasetError: There are rows under several keys, or none.
    """
    if isinstance(document, list):
        return document
    if not isinstance(document, dict):
        raise DatasetError(f"{path}: found {document!r:.60}; expected a list of objects")
    form, rows = _columns(document) or _under_key(path, document) or ("", [document])
    if form:
        note(path, form)
    return rows


def loads(text: str) -> Any:
    """Parse JSON; a repeated key, of which Python would use the last, is an error.

    Raises:
        json.JSONDecodeError: It is not valid.
        KeyError: A key is repeated; its name.
    """
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise KeyError(next(name for name in names if names.count(name) > 1))
    return found


def _columns(document: Mapping[str, Any]) -> tuple[str, Sequence[Any]] | None:
    """Return the rows of a table that pandas or datasets wrote by column or by index."""
    values = [*document.values()]
    names: Any = document.get("columns")
    data: Any = document.get("data")
    if _all(names, str) and _all(data, list) and {len(row) for row in data} == {len(names)}:
        return "pandas' split form", [dict(zip(names, row, strict=True)) for row in data]
    rows_below = any(_all(value, dict) for value in values)
    if len(values) > 1 and not rows_below and _all(values, list) and len({*map(len, values)}) == 1:
        cells = zip(*values, strict=True)
        return "lists by column", [dict(zip(document, row, strict=True)) for row in cells]
    if not (_all(values, dict) and len({tuple(value) for value in values}) == 1):
        return None
    if _numbers(values[0]):
        rows = [{name: column[index] for name, column in document.items()} for index in values[0]]
        return "pandas' form by column", rows
    return ("pandas' form by index", values) if _numbers(document) else None


def _under_key(path: Path, document: Mapping[str, Any]) -> tuple[str, Sequence[Any]] | None:
    found = [name for name, value in document.items() if _all(value, dict)]
    if len(found) == 1:
        return f"rows under the key {found[0]!r}", document[found[0]]
    if not found:
        return None
    example = f"jq '.[{json.dumps(found[0])}]' {path.name} > {found[0]}.json"
    raise DatasetError(
        f"{path}: is one object with rows under {' and '.join(map(repr, found))}; expected a list "
        f"of rows. Write them to files of their own, e.g. with: {example}"
    )


def _all(values: Any, kind: type) -> bool:
    """Return whether this is a list that has items, all of a kind."""
    return isinstance(values, list) and bool(values) and all(isinstance(v, kind) for v in values)


def _numbers(names: Mapping[str, Any]) -> bool:
    return bool(names) and all(name.isdecimal() for name in names)
