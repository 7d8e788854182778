"""The hub's folders and files: created, read and locked, with errors that say what failed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from softhub.adapter.layout import read_regular
from softhub.errors import HubError, InvalidArtefact
from softhub.files import sync_directory

LOCK_SECONDS = 120.0


def append(path: Path, data: bytes) -> None:
    """Append `data` to a file in one write, all or nothing; create the file if necessary."""
    # O_NONBLOCK: a named pipe that somebody put there fails, where it would wait for a reader.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o644)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def make_folders(folder: Path) -> None:
    """Create `folder` and what is missing above it, each entry flushed to the disk."""
    if folder.is_dir():
        return
    make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_directory(folder.parent)


def read_file(path: Path, *, most: int) -> bytes:
    """Return the content of `path`.

    Raises:
        InvalidArtefact: It is longer than `most` bytes, or not a regular file.
        HubError: The system refuses to read it.
        FileNotFoundError: It does not exist.
        NotADirectoryError: What should be its folder is a file.
    """
    try:
        data = read_regular(path, most=most)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise HubError(f"cannot read {path}: {error.strerror}; check its permissions") from error
    if len(data) > most:
        raise InvalidArtefact(f"{path} is longer than {most} bytes; expected a smaller file")
    return data


def remove(path: Path) -> None:
    """Remove a file or a folder with all it holds, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file at `path`, as one process at a time can.

    Raises:
        HubError: Another process holds it for too long; says that it is busy with `what`.
    """
    from filelock import FileLock, Timeout

    try:
        with FileLock(path, timeout=LOCK_SECONDS, poll_interval=0.01):
            yield
    except Timeout as error:
        raise HubError(
            f"another process has been {what} for {LOCK_SECONDS:.0f} s; "
            "wait for it or end it, then run the command again"
        ) from error


@contextmanager
def os_errors_as_hub_errors(what: str) -> Iterator[None]:
    """Turn an operating-system error inside the block into a `HubError` that says `what` failed.

    Raises:
        HubError: For a full disk, missing permissions, or read-only media.
    """
    try:
        yield
    except HubError:
        raise
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        raise HubError(
            f"{what} failed: {error.strerror or error}{where}; nothing incomplete is left behind. "
            "Free space or fix the permissions, then run the command again"
        ) from error
