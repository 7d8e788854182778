"""Answer a file of any size: streamed, resumable after a kill, and written in one step.

Answers are appended to a hidden file beside the output, a chunk of rows at a time. If the process
dies, the next one with the same input, prompts and options continues after the last whole chunk.
As chunks begin at the same rows, the result is that of an uninterrupted run. When all rows are
answered, the input is read again beside the answers, and the output is written and renamed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, TypeVar

from softhub._version import __version__
from softhub.errors import ConfigError, DatasetError, PredictionInterrupted
from softhub.files import remove_abandoned, sync_directory, sync_file, unfinished_beside
from softhub.inference.predictor import Predictor
from softhub.tasks.data_files import PLAIN, FileRow
from softhub.tasks.loading import check_columns
from softhub.tasks.row_source import RowSource
from softhub.tasks.table_writing import ENDINGS, open_table
from softhub.terminal import phase

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class FileReport:
    """What was written.

    Attributes:
        rows: Number of rows.
        failed: How many of them have an error instead of an answer.
        first_error: The first error, which names the row's line; None if there is none.
    """

    rows: int
    failed: int
    first_error: str | None


def predict_file(
    predictor: Predictor,
    source: RowSource,
    output: Path,
    *,
    chunk_size: int = 512,
    progress: str | None = None,
) -> FileReport:
    """Answer all rows of a file and write them with their answers, in the same order.

    A row that cannot be answered has the reason and its line in the column `error`.

    Args:
        predictor: Answers a chunk of rows.
        source: The rows.
        output: The file to write, one of `ENDINGS`; it is replaced when all rows are answered.
        chunk_size: Rows that are answered, saved and written at a time; a kill loses at most these.
        progress: Description of the progress bar; None shows no bar.

    Raises:
        ConfigError: The output cannot be written, another process is writing it, or what an
            interrupted process left beside it belongs to another input, prompt or option.
        DatasetError: The file lacks a column that a prompt's template reads.
        PredictionInterrupted: Ctrl-C was pressed; call it again to continue.
    """
    check_file(predictor, source, output)
    saved = _Saved(
        output.with_name(f".{output.name}.partial"),
        {"softhub": __version__, "input": source.digest, "chunk_size": chunk_size}
        | predictor.record(),
    )
    with _alone(saved.path, output):
        done = saved.resume(chunk_size, source.count)
        try:
            with phase(progress, source.count, "row") as advance:
                advance(done)
                for rows in _chunks(islice(source.read(), done, None), chunk_size):
                    saved.append(_answered(predictor, rows))
                    done += len(rows)
                    advance(len(rows))
            report = _write(predictor, source, saved, output, chunk_size)
        except KeyboardInterrupt:
            raise PredictionInterrupted(
                f"Interrupted: {done} of {source.count} rows are answered and saved. Run the same "
                f"command again to continue."
            ) from None
        saved.path.unlink()
    return report


def check_file(predictor: Predictor, source: RowSource, output: Path) -> None:
    """Check a file before the base is loaded; `predict_file` does it, too.

    Args:
        predictor: As in `predict_file`, also the other arguments.
        source: The rows.
        output: The file to write.

    Raises:
        ConfigError: The output is of another kind, is the input or a folder, or a column's name is
            taken.
        DatasetError: The file lacks a column that a prompt's template reads.
    """
    if output.suffix.lower() not in ENDINGS:
        raise ConfigError(f"{output} must end in {', '.join(ENDINGS)}.")
    if output.resolve() == Path(source.origin).resolve():
        raise ConfigError(f"{output} is the input; choose another output.")
    if output.is_dir():
        raise ConfigError(f"{output} is a folder; expected a file. Choose another output.")
    columns = list(source.types)
    for task in predictor.tasks:
        check_columns(task, columns, source.origin)
    if predictor.prompt_column not in (None, *columns):
        raise DatasetError(f"{source.origin}: has no column {predictor.prompt_column!r}")
    predictor.check_columns(columns)


@contextmanager
def _alone(saved: Path, output: Path) -> Iterator[None]:
    """Refuse to run beside another process that writes the same output."""
    from filelock import FileLock, Timeout

    lock = FileLock(f"{saved}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"Another process is writing {output}; wait for it, or choose another output."
        ) from None
    except OSError as error:
        raise ConfigError(f"Cannot write {str(output)!r}: {error.strerror}.") from error
    try:
        yield
        Path(lock.lock_file).unlink(missing_ok=True)
    finally:
        lock.release()


@dataclass(frozen=True)
class _Saved:
    """The answers so far: a line that says whose they are, then a line of JSON for each row."""

    path: Path
    record: Mapping[str, Any]

    def resume(self, chunk_size: int, total: int) -> int:
        """Return the number of rows that are answered, and remove an unfinished chunk."""
        done = whole = 0  # rows, and bytes, of whole chunks
        if self.path.exists():
            with self.path.open("rb") as file:
                found = _parsed(first := file.readline())
                if found is not None:
                    self._check_record(found)
                    whole = offset = len(first)
                    lines = takewhile(lambda line: _parsed(line) is not None, file)
                    for count, line in enumerate(lines, start=1):
                        offset += len(line)
                        if count % chunk_size == 0 or count == total:
                            done, whole = count, offset
            os.truncate(self.path, whole)
        if not whole:
            self.append([self.record])
        return done

    def append(self, lines: Iterable[Any]) -> None:
        """Append lines of JSON and flush them to the disk."""
        with self.path.open("ab") as file:
            file.writelines(json.dumps(line).encode() + b"\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())

    def answers(self) -> Iterator[dict[str, Any]]:
        """Read the answer of each row."""
        with self.path.open("rb") as file:
            file.readline()
            yield from map(json.loads, file)

    def _check_record(self, found: Any) -> None:
        changed = [name for name in self.record if found.get(name) != self.record[name]]
        if changed:
            raise ConfigError(
                f"{self.path} has answers of an interrupted command with another "
                f"{' and '.join(changed)}. Run that command again to finish it, or delete the file."
            )


def _parsed(line: bytes) -> Any:
    """Return the value of a line, or None if a kill or a power cut left only a part of it."""
    with suppress(ValueError):
        return json.loads(line) if line.endswith(b"\n") else None
    return None


def _answered(predictor: Predictor, rows: Sequence[FileRow]) -> list[dict[str, Any]]:
    """Return the answer of each row by column; an error says where the row is."""
    answers = predictor.answer_rows([_named(row, predictor) for row in rows])
    for row, answer in zip(rows, answers, strict=True):
        if answer["error"] is not None:
            answer["error"] = f"{row.place}: {answer['error']}"
    return answers


def _named(row: FileRow, predictor: Predictor) -> dict[str, Any]:
    """Return a row's values; a text alone is in the column of the prompt's texts."""
    return {
        name if name != PLAIN else predictor.text_column: row.values[name] for name in row.values
    }


def _write(
    predictor: Predictor, source: RowSource, saved: _Saved, output: Path, chunk_size: int
) -> FileReport:
    """Write the rows with their answers to a temporary file, and rename it."""
    types = {
        predictor.text_column if name == PLAIN else name: source.types[name]
        for name in source.types
    }
    temporary = unfinished_beside(output)
    rows, failed, first_error = 0, 0, None
    try:
        with open_table(temporary, output.suffix.lower(), types | predictor.answer_types) as write:
            pairs = zip(source.read(), saved.answers(), strict=True)
            for part in _chunks(pairs, chunk_size):
                write([_named(row, predictor) | answer for row, answer in part])
                errors = [answer["error"] for _, answer in part if answer["error"] is not None]
                rows, failed = rows + len(part), failed + len(errors)
                first_error = first_error or next(iter(errors), None)
        sync_file(temporary)
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(output.parent)
    remove_abandoned(output)
    return FileReport(rows, failed, first_error)


def _chunks(items: Iterator[_Item], size: int) -> Iterator[list[_Item]]:
    while chunk := list(islice(items, size)):
        yield chunk
