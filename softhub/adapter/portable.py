"""Names that are valid on every machine, so that an adapter contains no local path."""

import re
from collections.abc import Mapping
from typing import Any, TypeGuard

from softhub.adapter.strict_json import quoted
from softhub.errors import InvalidAdapter

UNKNOWN_BASE = "unknown"
"""The base model of a foreign adapter that does not name one."""

_MAX_PART = 96
_BASE_PART = re.compile(r"[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?", re.ASCII)
_CACHED_REPO = re.compile(r"(?:^|[\\/])models--([^\\/]+?)--([^\\/]+)[\\/]snapshots[\\/]")
_LOCAL_PATH = re.compile(r"~|\.\.?[\\/]|[\\/]|[A-Za-z]:[\\/]|file:", re.IGNORECASE)


def is_hub_name(name: object) -> TypeGuard[str]:
    """Return whether a repository on the Hub can have this name, `org/name` or `name`."""
    parts = name.split("/") if isinstance(name, str) else []
    return len(parts) in (1, 2) and all(
        len(part) <= _MAX_PART and ".." not in part and _BASE_PART.fullmatch(part) for part in parts
    )


def check_base_model(name: object) -> None:
    """Check that `name` is the name of a base model on the Hub: `org/name` or `name`.

    Raises:
        InvalidAdapter: It is a path, a URL or something else.
    """
    if is_hub_name(name):
        return
    raise InvalidAdapter(
        f"base_model is {quoted(name)}; expected a name on the Hub, such as "
        "'HuggingFaceTB/SmolLM2-135M-Instruct', never a path, which means nothing elsewhere. "
        "Give the name when loading the base: load_base(…, name='org/name')."
    )


def to_hub_name(text: str) -> str:
    """Remove characters that a name on the Hub may not have; the result may be empty."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", text)
    return re.sub(r"[.-]{2,}", "-", plain)[:_MAX_PART].strip("-.")


def portable_base_name(name: object) -> str:
    """Return the Hub name of a base, for adapters that name it by a local path.

    A path into the download cache gives the repo id, and another path its last part. If neither
    is a valid name, the result is `UNKNOWN_BASE`.
    """
    if not isinstance(name, str):
        return UNKNOWN_BASE
    if is_hub_name(name):
        return name
    cached = _CACHED_REPO.search(name)
    candidate = "/".join(cached.groups()) if cached else re.split(r"[\\/]", name.rstrip("\\/"))[-1]
    return candidate if is_hub_name(candidate) else UNKNOWN_BASE


def without_local_paths(value: Any) -> Any:
    """Return a JSON value in which every local path is replaced by its last part.

    Relative paths below the working directory (`data/train.jsonl`) remain: they say nothing
    about the machine.
    """
    if isinstance(value, Mapping):
        return {key: without_local_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_local_paths(item) for item in value]
    if isinstance(value, str) and _LOCAL_PATH.match(value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    return value
