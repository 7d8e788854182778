"""Create, read and lock the folders and files of a hub, with errors that say what failed."""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from softhub.adapter.layout import read_regular
from softhub.adapter.strict_json import quoted
from softhub.errors import HubError, InvalidAdapter
from softhub.files import sync_directory

LOCK_SECONDS = 120.0
_JUNCTION = getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", None)
_logger = logging.getLogger("softhub")


def find_link(root: Path, *paths: Path, plain: set[str] | None = None) -> str | None:
    """Return a message about the first link or special file on the way from `root` to the paths.

    Archives, version control and USB sticks can contain links, and writing, listing or deleting
    through a link would affect the user's own files. `root` itself may be a link.

    Args:
        root: A hub's root.
        *paths: Paths below it, which need not exist.
        plain: Folders that need not be checked again; those that are found plain are added.

    Returns:
        What was found and what to do, or None if there are only plain files and folders.
    """
    plain = set() if plain is None else plain
    start = len(root.parts)
    for path in paths:
        step = str(root)
        for part in path.parts[start:]:
            step = f"{step}{os.sep}{part}"
            if step in plain:
                continue
            try:
                status = os.lstat(step)
            except OSError:
                break  # it does not exist, or whatever is done with it next says what is wrong
            if stat.S_ISLNK(status.st_mode) or getattr(status, "st_reparse_tag", 0) == _JUNCTION:
                return (
                    f"{step} is a link, which a hub does not follow; remove it or copy its target"
                )
            if stat.S_ISDIR(status.st_mode):
                plain.add(step)
            elif not stat.S_ISREG(status.st_mode):
                return f"{step} is not a regular file or folder; expected one. Remove it."
    return None


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
    """Create `folder` and its missing parents, each entry flushed to the disk."""
    if folder.is_dir():
        return
    make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_directory(folder.parent)


def read_file(path: Path, *, most: int) -> bytes:
    """Return the content of `path`.

    Raises:
        InvalidAdapter: It is longer than `most` bytes, or not a regular file.
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
        raise InvalidAdapter(f"{path} is longer than {most} bytes; expected a smaller file")
    return data


def remove(path: Path) -> None:
    """Remove a file or a folder with all it contains, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file at `path`, which only one process can hold at a time.

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
def after_publication(what: str) -> Iterator[None]:
    """Log an operating-system error inside the block as a warning, because `what` is done."""
    try:
        yield
    except OSError as error:
        _logger.warning(
            "%s succeeded, but cleaning up failed: %s; the next write to the hub completes it",
            what,
            error,
        )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Convert an operating-system error inside the block to a `HubError`: `path` is unreadable.

    Raises:
        HubError: For missing permissions, a name that is too long, or a broken disk.
    """
    try:
        yield
    except HubError:
        raise
    except OSError as error:
        raise HubError(
            f"cannot read {quoted(str(path), 300)}: {error.strerror or error}; check its name and "
            "its permissions"
        ) from error


@contextmanager
def os_errors_as_hub_errors(what: str) -> Iterator[None]:
    """Convert an operating-system error inside the block to a `HubError` that says `what` failed.

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
