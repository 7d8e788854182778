"""The commit of the git checkout that a run's recipe lies in."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SECONDS = 10  # `git status` of a huge checkout on a slow disk; a run is not held up for longer


def recipe_folder() -> Path:
    """The folder of the script that runs, or the working directory.

    The latter for what Python's own environment holds (an installed recipe, a notebook's kernel):
    there the settings and data of the run are in the working directory.
    """
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    folder = Path(script).resolve().parent if script else None
    installed = folder is not None and (
        folder.is_relative_to(Path(sys.prefix).resolve()) or "site-packages" in folder.parts
    )
    return Path.cwd() if folder is None or installed else folder


def checkout_record(folder: Path) -> dict[str, Any] | None:
    """The commit that is checked out there.

    Args:
        folder: A folder, perhaps within a git checkout.

    Returns:
        `commit`, and `dirty`: whether a tracked file differs from it (None if git does not say in
        time). None where there is no checkout, no commit or no git. Never a path or an address.
    """
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if commit is None or not _COMMIT.fullmatch(commit):
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None if it fails. It takes no locks and starts no file monitor."""
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(folder)]
    try:
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
