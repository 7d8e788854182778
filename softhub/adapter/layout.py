"""Files of an adapter folder, their maximum sizes, and atomic writing of a folder."""

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from softhub.errors import InvalidAdapter
from softhub.files import remove_abandoned, sync_directory, unfinished_beside, unfinished_name

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
CARD = "README.md"
MANIFEST = "softhub.json"
FILES = (CONFIG, WEIGHTS, MANIFEST, CARD)
"""The only files an adapter may contain: the allowlist of push, pull, load and save."""
REQUIRED = (CONFIG, WEIGHTS)
"""Files that plain PEFT writes; every adapter must contain them."""
WEIGHTS_KEY = "prompt_embeddings"
"""The one tensor in the weights file, under PEFT's name."""
PICKLED_WEIGHTS = "adapter_model.bin"
"""PEFT's old weights file. Named only to refuse it: unpickling runs code."""

MAX_BYTES: dict[str, int] = {
    CONFIG: 64 * 1024,
    WEIGHTS: 64 * 1024 * 1024,  # a prefix of a large base; a prompt has kilobytes
    MANIFEST: 256 * 1024,
    CARD: 1024 * 1024,
}
"""Largest size in bytes that is read or downloaded, by file name."""

_FILE_MODE = 0o644
_SNAPSHOT = re.compile(r"[/\\]models--[^/\\]+[/\\]snapshots[/\\][0-9a-f]{40}(?![^/\\])")


def sha256_of(data: bytes) -> str:
    """Return the SHA-256 of `data` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def write_atomically(folder: Path, files: Mapping[str, bytes], *, within_hub: bool = False) -> Path:
    """Write an adapter folder so that it appears complete or not at all.

    The files go to a hidden sibling directory, are flushed to the disk, and the directory is
    renamed into place. An adapter that is already there is renamed to a hidden sibling before,
    and removed afterwards: a process that is killed between the two renames leaves it under that
    name, complete, and `read_folder` says where it is.

    Args:
        folder: Where to write the adapter. Missing parents are created.
        files: Contents by name; the names are some of `FILES`.
        within_hub: Whether the folder is a hub's own copy, which only the hub may write.

    Returns:
        The folder, with symbolic links in its path resolved.

    Raises:
        InvalidAdapter: A name is not an adapter's, or `folder` already contains something else,
            which must not be lost, or belongs to a hub.
    """
    if not within_hub:
        check_not_in_hub(folder)
    folder = Path(os.path.realpath(folder))
    _check_names(files)
    _check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = unfinished_beside(folder)
    try:
        write_durably(staging, files)
        _move_into_place(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    sync_directory(folder.parent)
    remove_abandoned(folder)
    return folder


def check_not_in_hub(path: Path) -> None:
    """Refuse to write into an adapter as a hub or a download cache stores it, which `pull` returns.

    Raises:
        InvalidAdapter: `path` is such a folder, or inside it.
    """
    if _SNAPSHOT.search(os.path.realpath(path)):
        raise InvalidAdapter(
            f"{path} is the hub's own copy of an adapter, which would be damaged; expected another "
            "place. `softhub pull NAMESPACE/NAME --to FOLDER` makes a copy that can be changed."
        )


def find_interrupted_save(folder: Path) -> Path | None:
    """Return where an interrupted `write_atomically` left the earlier adapter of `folder`."""
    try:
        folder = Path(os.path.realpath(folder))
    except OSError:  # a relative path, and the working folder was deleted
        return None
    if not folder.parent.is_dir():
        return None
    siblings = [path for path in folder.parent.iterdir() if path.suffix == ".old"]
    return next((path for path in siblings if unfinished_name(path.name) == folder.name), None)


def read_regular(path: Path, *, most: int) -> bytes:
    """Read up to `most` bytes of a file, and one more, which shows that it is too long.

    Args:
        path: The file.
        most: The limit in bytes.

    Returns:
        At most `most + 1` bytes.

    Raises:
        InvalidAdapter: It is not a regular file.
        OSError: The system refuses to open or read it.
    """
    # O_NONBLOCK: opening a named pipe must not wait for a writer that never comes.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidAdapter(f"{path} is not a regular file; expected one. Remove it.")
        found, left = [], most + 1
        # Up to the end, and not to that size: the file may grow while it is read.
        while left and (part := os.read(descriptor, min(left, status.st_size + 1))):
            found.append(part)
            left -= len(part)
        return b"".join(found)
    finally:
        os.close(descriptor)


def write_durably(folder: Path, files: Mapping[str, bytes]) -> None:
    """Create a directory with `files` (mode 0644) and flush it to the disk.

    Raises:
        FileExistsError: `folder` exists already.
    """
    folder.mkdir()
    for name, data in files.items():
        with (folder / name).open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        (folder / name).chmod(_FILE_MODE)
    sync_directory(folder)


def _check_names(files: Mapping[str, bytes]) -> None:
    unexpected = sorted(set(files) - set(FILES))
    if unexpected:
        raise InvalidAdapter(
            f"{unexpected[0]!r} is not a file of an adapter; expected only {', '.join(FILES)}. "
            "Leave it out."
        )


def _check_replaceable(folder: Path) -> None:
    """Refuse to replace a directory that contains anything but an adapter's files."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InvalidAdapter(f"{folder} is a file; expected a folder. Choose another name.")
    if _is_working_folder(folder):
        raise InvalidAdapter(
            f"{folder} is the working folder; saving an adapter replaces its folder, and your "
            f"shell would be left in a deleted one. Expected another folder, such as "
            f"{folder / 'adapter'}."
        )
    unexpected = sorted(entry.name for entry in folder.iterdir() if entry.name not in FILES)
    if unexpected:
        raise InvalidAdapter(
            f"{folder} contains {unexpected[0]!r}, which is not a file of an adapter and would be "
            "lost; expected an empty folder or an adapter. Save into a separate folder."
        )


def _is_working_folder(folder: Path) -> bool:
    with suppress(OSError):  # the working folder was deleted
        return folder.samefile(os.curdir)
    return False


def _move_into_place(staging: Path, folder: Path) -> None:
    """Rename `staging` to `folder`; if that fails, the existing folder is kept."""
    if not folder.exists():
        staging.rename(folder)
        return
    previous = staging.with_suffix(".old")
    folder.rename(previous)
    try:
        staging.rename(folder)
    except BaseException:
        previous.rename(folder)
        raise
    shutil.rmtree(previous, ignore_errors=True)
