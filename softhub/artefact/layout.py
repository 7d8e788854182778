"""Which files an adapter folder holds, how large they may be, and how they reach the disk whole."""

import hashlib
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from softhub.errors import InvalidArtefact

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
    renamed into place. An adapter that stood there is replaced as a whole.

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
    staging = folder.parent / f".{folder.name}.{secrets.token_hex(6)}.tmp"
    try:
        write_durably(staging, files)
        _move_into_place(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    sync_directory(folder.parent)
    return folder


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


def sync_directory(folder: Path) -> None:
    """Flush a directory's entries to the disk, where the platform can (Windows cannot)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    """Rename `staging` to `folder`; what stood there is put back if that fails."""
    if not folder.exists():
        staging.rename(folder)
        return
    previous = staging.with_suffix(".old")
    folder.rename(previous)
    try:
        staging.rename(folder)
    except OSError:
        previous.rename(folder)
        raise
    shutil.rmtree(previous)
