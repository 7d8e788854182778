"""Which files an adapter folder holds, how large they may be, and how they reach the disk whole."""

import hashlib
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from softhub.adapter.exchange import exchange
from softhub.errors import InvalidArtefact
from softhub.files import remove_abandoned, sync_directory, unfinished_beside

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
CARD = "README.md"
MANIFEST = "softhub.json"
FILES = (CONFIG, WEIGHTS, MANIFEST, CARD)
"""The only names an adapter may hold: the allowlist of push, pull, load and save."""
REQUIRED = (CONFIG, WEIGHTS)
"""What plain PEFT writes, and so the least that an adapter must hold."""
WEIGHTS_KEY = "prompt_embeddings"
"""The one tensor in the weights file, under PEFT's name."""
PICKLED_WEIGHTS = "adapter_model.bin"
"""PEFT's old weights file. Named only to refuse it: unpickling runs code."""

MAX_BYTES: dict[str, int] = {
    CONFIG: 64 * 1024,
    WEIGHTS: 16 * 1024 * 1024,
    MANIFEST: 256 * 1024,
    CARD: 1024 * 1024,
}
"""Largest size in bytes that is read or downloaded, by file name."""

_FILE_MODE = 0o644


def sha256_of(data: bytes) -> str:
    """Return the SHA-256 of `data` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def write_atomically(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write an adapter folder so that it is there completely or not at all.

    The files go to a hidden sibling directory, are flushed to the disk, and the directory is
    renamed into place. An adapter that stood there is replaced as a whole, in one step where the
    system can exchange two folders (Linux, macOS), and elsewhere by two renames: whoever is killed
    between these leaves the old adapter under a hidden name.

    Args:
        folder: Where the adapter shall be. Missing parents are made.
        files: Contents by name; the names are some of `FILES`.

    Returns:
        The folder, with symbolic links in its path resolved.

    Raises:
        InvalidArtefact: A name is not an adapter's, or `folder` already holds something else,
            which must not be lost.
    """
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


def read_regular(path: Path, *, most: int) -> bytes:
    """Return a file's content up to `most` bytes and one more, which tells that it is too long.

    Raises:
        InvalidArtefact: It is no regular file.
        OSError: The system refuses to open or read it.
    """
    # O_NONBLOCK: opening a named pipe must not wait for a writer that never comes.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InvalidArtefact(f"{path} is no regular file; expected one. Remove it.")
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            # Not the size that the directory tells: the file may grow while it is read.
            return stream.read(most + 1)
    finally:
        os.close(descriptor)


def write_durably(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make a new directory holding `files` (mode 0644) and flush it to the disk.

    Raises:
        FileExistsError: `folder` is there already.
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
    strangers = sorted(set(files) - set(FILES))
    if strangers:
        raise InvalidArtefact(
            f"{strangers[0]!r} is no file of an adapter; expected only {', '.join(FILES)}. "
            "Leave it out."
        )


def _check_replaceable(folder: Path) -> None:
    """Refuse to replace a directory that holds anything but an adapter's files."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InvalidArtefact(f"{folder} is a file; expected a folder. Choose another name.")
    strangers = sorted(entry.name for entry in folder.iterdir() if entry.name not in FILES)
    if strangers:
        raise InvalidArtefact(
            f"{folder} holds {strangers[0]!r}, which is no file of an adapter and would be lost; "
            "expected an empty folder or an adapter. Save into a folder of its own."
        )


def _move_into_place(staging: Path, folder: Path) -> None:
    """Rename `staging` to `folder`; what stood there may then be at `staging`, to be removed.

    If that fails, it stays where it was.
    """
    if not folder.exists():
        staging.rename(folder)
        return
    if exchange(staging, folder):
        return
    previous = staging.with_suffix(".old")
    folder.rename(previous)
    try:
        staging.rename(folder)
    except OSError:
        previous.rename(folder)
        raise
    shutil.rmtree(previous)
