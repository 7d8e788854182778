"""Two folders that trade places in one step, where the system can do that."""

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path

_HERE = -100  # AT_FDCWD: the paths are absolute or relative to the working directory
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux (renameat2), and RENAME_SWAP of macOS (renamex_np)

Swap = Callable[[bytes, bytes], int]


def exchange(one: Path, other: Path) -> bool:
    """Let two paths on one disk trade places at once, so that no reader finds either missing.

    Returns:
        False, with nothing changed, where the system or the kind of disk cannot do that (Windows,
        some network disks).
    """
    swap = _swap()
    return swap is not None and swap(os.fsencode(one), os.fsencode(other)) == 0


def _swap() -> Swap | None:
    """Return the C library's call, where it has one."""
    name = {"linux": "renameat2", "darwin": "renamex_np"}.get(sys.platform)
    if name is None:
        return None
    try:
        call = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):  # a C library without it, such as an old musl
        return None
    if name == "renameat2":
        return lambda one, other: int(call(_HERE, one, _HERE, other, _EXCHANGE))
    return lambda one, other: int(call(one, other, _EXCHANGE))
