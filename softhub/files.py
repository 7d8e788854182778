"""Writing files so that a power cut, a kill or a full disk leaves the old content or the new one.

Only plain files and renames are used: no symlinks, no hard links, no memory maps.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

_UNFINISHED = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{12}\.(tmp|old)", re.DOTALL)
_ABANDONED_SECONDS = 3600.0


def write_file(path: Path, data: bytes) -> None:
    """Write `data` to `path` and flush it to the disk; the folder's entry is not yet flushed."""
    with open(path, "wb", opener=_open_plain) as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _open_plain(path: str, flags: int) -> int:
    """Open a file without following a link and without waiting for the reader of a named pipe."""
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    return os.open(path, flags, 0o666)


def replace_file(path: Path, data: bytes, *, staging: Path | None = None) -> None:
    """Give `path` new content in one step, through a temporary file.

    Args:
        path: The file.
        data: Its new content.
        staging: Folder for the temporary file, where nobody else writes now; None for a hidden
            name next to `path`.
    """
    temporary = staging / f"{path.name}.tmp" if staging else unfinished_beside(path)
    try:
        write_file(temporary, data)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # the file is replaced: no later step may report a failure
        sync_directory(path.parent)
        if staging is None:
            remove_abandoned(path)


def unfinished_beside(path: Path) -> Path:
    """Return a new hidden path next to `path`, for a file that is renamed to it when complete."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")


def unfinished_name(name: str) -> str | None:
    """Return the final name of an unfinished entry of a folder, or None if it is complete."""
    match = _UNFINISHED.fullmatch(name)
    return match["name"] if match else None


def remove_abandoned(path: Path) -> None:
    """Remove what killed writers of `path` left next to it an hour ago or longer.

    A younger one may belong to a writer at work, who needs seconds.
    """
    for entry in path.parent.iterdir():
        if unfinished_name(entry.name) != path.name:
            continue
        with suppress(OSError):
            status = entry.stat()
            if time.time() - max(status.st_mtime, status.st_ctime) > _ABANDONED_SECONDS:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def sync_file(path: Path) -> None:
    """Flush a file's content to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_directory(folder: Path) -> None:
    """Flush a directory's entries to the disk, where the platform can (Windows cannot)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
