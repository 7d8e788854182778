"""Tables written a few rows at a time: `.csv`, `.jsonl` and `.parquet`."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Rows = Sequence[Mapping[str, Any]]

ENDINGS = (".csv", ".jsonl", ".parquet")


@contextmanager
def open_table(
    path: Path, ending: str, types: Mapping[str, Any]
) -> Iterator[Callable[[Rows], None]]:
    """Create a table.

    Args:
        path: The file.
        ending: One of `ENDINGS`, which says what is written, in lower case.
        types: Arrow type of each column, or its name.

    Yields:
        A function that appends rows. A column that a row lacks is empty in it.
    """
    if ending == ".parquet":
        with _open_parquet(path, types) as write:
            yield write
        return
    # Half of a surrogate pair becomes the escape that JSON has for it.
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        if ending == ".jsonl":
            yield lambda rows: file.writelines(map(_json_line, rows))
            return
        table = csv.writer(file, lineterminator="\n")
        table.writerow(types)
        yield lambda rows: table.writerows(
            [csv_cell(row.get(name)) for name in types] for row in rows
        )


def csv_cell(value: Any) -> Any:
    """Return a value as a cell of a CSV file: labels are joined, and other lists are JSON."""
    if isinstance(value, list | tuple):
        words = all(isinstance(item, str) for item in value)
        return ";".join(value) if words else _json(value)
    return value


@contextmanager
def _open_parquet(path: Path, types: Mapping[str, Any]) -> Iterator[Callable[[Rows], None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    named = {
        name: pa.type_for_alias(kind) if isinstance(kind, str) else kind
        for name, kind in types.items()
    }
    schema = pa.schema(named.items())
    with pq.ParquetWriter(path, schema) as writer:

        def write(rows: Rows) -> None:
            columns = [
                pa.array([_stored(row.get(name), pa.types.is_string(kind)) for row in rows], kind)
                for name, kind in named.items()
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))

        yield write


def _stored(value: Any, is_text: bool) -> Any:
    if not is_text or value is None:
        return value
    text = value if isinstance(value, str) else _json(value)
    return text.encode(errors="backslashreplace").decode()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _json_line(row: Mapping[str, Any]) -> str:
    return _json(row) + "\n"
