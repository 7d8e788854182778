"""Writing so that a power cut, a kill or a full disk leaves the old state or the new one.

Only plain files and renames are used: no symlinks, no hard links, no memory maps.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from softhub.artefact.layout import sync_directory
from softhub.errors import HubError, InvalidArtefact


def write_file(path: Path, data: bytes) -> None:
    """Write `data` to `path` and flush it to the disk; the folder's entry is not yet flushed."""
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def replace_file(path: Path, data: bytes, *, staging: Path) -> None:
    """Give `path` new content in one step, by way of a temporary file in `staging`."""
    temporary = staging / f"{path.name}.tmp"
    write_file(temporary, data)
    temporary.replace(path)
    sync_directory(path.parent)


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
        InvalidArtefact: It is longer than `most` bytes.
        HubError: The system refuses to read it.
        FileNotFoundError: It does not exist.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(most + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise
    except OSError as error:
        raise HubError(f"cannot read {path}: {error.strerror}; check its rights") from error
    if len(data) > most:
        raise InvalidArtefact(f"{path} is longer than {most} bytes; expected a smaller file")
    return data


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def told_as_hub_error(what: str) -> Iterator[None]:
    """Turn an operating-system error inside the block into a `HubError` that says `what` failed.

    Raises:
        HubError: For a full disk, missing rights, or read-only media.
    """
    try:
        yield
    except HubError:
        raise
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        raise HubError(
            f"{what} failed: {error.strerror or error}{where}; nothing half-done is left behind. "
            "Free space or fix the rights, then run the command again"
        ) from error
