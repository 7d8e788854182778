"""`softhub.lock`: the exact prompts that a deployment uses.

::

    {
      "prompts": {
        "mood": {
          "repo_id": "me/sentiment",
          "revision": "<40-digit commit>",
          "weights_sha256": "<64 digits>"
        }
      },
      "schema_version": 1
    }
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from softhub.adapter.strict_json import parse_object
from softhub.config import softhub_home
from softhub.errors import HubError, InvalidAdapter
from softhub.files import replace_file
from softhub.hub.local.disk import locked, make_folders, os_errors_as_hub_errors, read_file
from softhub.hub.names import check_repo_id, is_commit

LOCKFILE = "softhub.lock"
SCHEMA = 1
_MOST_BYTES = 4 * 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class LockedPrompt:
    """One prompt of a lock file.

    Attributes:
        repo_id: Its repository.
        revision: Its commit; never a branch or tag, which could move.
        weights_sha256: Hash of its weights file.
    """

    repo_id: str
    revision: str
    weights_sha256: str

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            HubError: A name, commit or hash is not valid.
        """
        check_repo_id(self.repo_id)
        if not is_commit(self.revision) or not _SHA256.fullmatch(self.weights_sha256):
            raise HubError(
                f"{self.repo_id} is locked to {self.revision!r} and {self.weights_sha256!r}; "
                "expected a full commit and a SHA-256; lock it again"
            )


def read_lockfile(path: Path) -> dict[str, LockedPrompt]:
    """Return the prompts of a lock file by their names.

    Raises:
        HubError: There is no such file, or it is damaged or of a newer softhub.
    """
    try:
        record = parse_object(read_file(path, most=_MOST_BYTES), origin=str(path))
        if record["schema_version"] != SCHEMA:
            raise HubError(
                f"{path} has schema version {record['schema_version']}, expected {SCHEMA}; "
                "upgrade softhub"
            )
        prompts: Mapping[str, Any] = record["prompts"]
        return {check_name(name): LockedPrompt(**entry) for name, entry in prompts.items()}
    except FileNotFoundError as error:
        raise HubError(
            f"there is no {path}; create it with `softhub lock NAME=NAMESPACE/NAME`"
        ) from error
    except (InvalidAdapter, KeyError, TypeError, AttributeError) as error:
        raise HubError(f"{path} is not a lock file: {error}; lock the prompts again") from error


def existing_prompts(path: Path) -> dict[str, LockedPrompt]:
    """Return the prompts of a lock file as `read_lockfile` does; none if there is no such file."""
    exists = os.path.exists(path)  # noqa: PTH110  # that of Path raises for a name that is too long
    return read_lockfile(path) if exists else {}


def add_to_lockfile(path: Path, new: Mapping[str, LockedPrompt]) -> dict[str, LockedPrompt]:
    """Add prompts to a lock file, or replace those of the same names; processes take turns.

    Args:
        path: The lock file; created if it does not exist.
        new: The prompts by name.

    Returns:
        All prompts that the file now contains.

    Raises:
        HubError: The file is damaged or cannot be written, or a name is unsafe.
    """
    path = path.absolute()
    what = f"writing {path}"
    name = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:16]
    lock = softhub_home() / "cache" / f"lockfile-{name}.lock"  # not beside it, in somebody's git
    with os_errors_as_hub_errors(what):
        make_folders(lock.parent)
        with locked(lock, what):
            prompts = existing_prompts(path) | dict(new)
            write_lockfile(path, prompts)
    return prompts


def write_lockfile(path: Path, prompts: Mapping[str, LockedPrompt]) -> None:
    """Write a lock file in one step; equal prompts give equal bytes.

    Raises:
        HubError: A name is unsafe, or the system refuses to write.
    """
    record = {
        "schema_version": SCHEMA,
        "prompts": {check_name(name): asdict(prompt) for name, prompt in prompts.items()},
    }
    text = json.dumps(record, indent=2, sort_keys=True) + "\n"
    with os_errors_as_hub_errors(f"writing {path}"):
        replace_file(path.absolute(), text.encode())


def check_name(name: str) -> str:
    """Return `name` if it is valid for a prompt, and so for a folder.

    Raises:
        HubError: It is not.
    """
    if _NAME.fullmatch(name) is None or ".." in name:
        raise HubError(f"{name!r} cannot name a prompt; expected letters, digits, '-', '_' and '.'")
    return name
