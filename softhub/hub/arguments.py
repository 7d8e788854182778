"""Checks of the arguments of `Hub`: a wrong type is reported before it causes another error."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from softhub.adapter.strict_json import quoted
from softhub.errors import HubError, RevisionNotFound
from softhub.hub.names import check_repo_id, check_revision, check_revision_name

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._+-]*[A-Za-z0-9_+-])?"
_REMOTE_REVISION = re.compile(rf"{_PART}(?:/{_PART})*")
_MAX_REVISION = 200


def text_argument(name: str, value: Any) -> str:
    """Return `value` if it is a string.

    Raises:
        HubError: It is not; names the argument.
    """
    if isinstance(value, str):
        return value
    raise HubError(f"{name} is {quoted(value)}; expected a string")


def text_arguments(name: str, values: Any) -> tuple[str, ...]:
    """Return `values` if they are a list of strings; a single string is an error.

    Raises:
        HubError: They are not; names the argument.
    """
    if isinstance(values, str):
        raise HubError(
            f"{name} is the string {quoted(values)}; expected a list: [{quoted(values)}]"
        )
    if isinstance(values, bytes) or not isinstance(values, Iterable):
        raise HubError(f"{name} is {quoted(values)}; expected a list of strings")
    return tuple(text_argument(f"an entry of {name}", value) for value in values)


def path_argument(name: str, value: Any) -> Path:
    """Return `value` as a path.

    Raises:
        HubError: It is neither a string nor a path, or contains a null character.
    """
    if isinstance(value, str | os.PathLike) and isinstance(path := os.fspath(value), str):
        if "\0" not in path:
            return Path(path)
        value = path
    raise HubError(f"{name} is {quoted(value)}; expected a path")


def references_argument(name: str, value: Any) -> dict[str, str]:
    """Return `value` if it is a mapping of names to references such as `me/mood@v1`.

    Raises:
        HubError: It is not.
    """
    if isinstance(value, Mapping):
        return {
            text_argument(f"a name in {name}", key): text_argument(f"{name}[{key!r}]", reference)
            for key, reference in value.items()
        }
    raise HubError(f"{name} is {quoted(value)}; expected a mapping of names to repositories")


def count_argument(name: str, value: Any) -> int:
    """Return `value` if it is a positive integer.

    Raises:
        HubError: It is not.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise HubError(f"{name} is {quoted(value)}; expected an integer of at least 1")


def repo_id_argument(value: Any) -> str:
    """Return `value` if it is a safe `namespace/name`.

    Raises:
        HubError: It is not.
    """
    return check_repo_id(text_argument("repo_id", value))


def check_push_names(repo_id: Any, branch: str, tags: Sequence[str]) -> None:
    """Check the names that a push gives.

    Raises:
        HubError: One is not allowed, or the branch is also a tag.
    """
    repo_id_argument(repo_id)
    for name in (branch, *tags):
        check_revision_name(name)
    if branch in tags:
        raise HubError(f"{branch!r} cannot be both branch and tag; choose another tag")


def revision_argument(value: Any, *, is_remote: bool) -> str:
    """Return `value` if a hub could have such a branch, tag or commit.

    Names on remote hubs may have several parts: `feature/x`, `v1.0/rc`, `refs/pr/1`.

    Raises:
        RevisionNotFound: No hub can have it.
        HubError: It is not a string.
    """
    revision = text_argument("revision", value)
    if not is_remote or "/" not in revision:
        return check_revision(revision)
    is_name = len(revision) <= _MAX_REVISION and _REMOTE_REVISION.fullmatch(revision)
    if not is_name or ".." in revision or ".lock/" in f"{revision}/":
        raise RevisionNotFound(
            f"{quoted(revision)} is not a revision; expected a branch, a tag, refs/pr/NUMBER or a "
            "full commit hash of 40 digits"
        )
    return revision
