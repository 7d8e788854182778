"""Names that a hub accepts: repositories, revisions, and the hub's own address.

Every name that becomes part of a path or a URL is checked here first, so that no other module
has to consider `..`, separators, control characters or reserved words.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from softhub.adapter.strict_json import quoted
from softhub.config import full_path, softhub_home
from softhub.errors import HubError, RevisionNotFound

DEFAULT_REVISION = "main"
HUGGING_FACE = "https://huggingface.co"

_REPO_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_REVISION = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_])?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# `history` and `refs` are directories of the layout; the others mean something to git.
_RESERVED_REVISIONS = frozenset({"history", "refs", "head", "pr", "convert"})
# Windows opens these as devices, whatever the extension.
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))}
)


def check_repo_id(repo_id: str) -> str:
    """Return `repo_id` if it is a safe `namespace/name`.

    Raises:
        HubError: It is not; the message says what is allowed.
    """
    if _is_repo_id(repo_id):
        return repo_id
    name, at, revision = repo_id.partition("@")
    if at and _is_repo_id(name):
        raise HubError(
            f"{quoted(repo_id)} is a repository and a revision; pass them separately: {name} with "
            f"--revision {revision[:100]}"
        )
    raise HubError(
        f"{quoted(repo_id)} is not a repository name; expected namespace/name, each of letters, "
        "digits, '-', '_' and '.', without '--' or '..' (for example me/sentiment)"
    )


def split_reference(reference: str) -> tuple[str, str | None]:
    """Divide a reference such as `me/mood@v1` into repository and revision; checks neither."""
    repo_id, _, revision = reference.partition("@")
    return repo_id, revision or None


def is_permitted(reference: str, patterns: Iterable[str]) -> bool:
    """Return whether a reference is one of `patterns`, or its repository matches one.

    Args:
        reference: `me/mood` or `me/mood@v1`; anything else is not permitted.
        patterns: References, and patterns of repositories such as `me/*`.
    """
    repo_id, _ = split_reference(reference)
    return _is_repo_id(repo_id) and any(
        reference == pattern or fnmatch.fnmatchcase(repo_id, pattern) for pattern in patterns
    )


def _is_repo_id(repo_id: str) -> bool:
    parts = repo_id.split("/")
    return len(parts) == 2 and all(map(_is_repo_part, parts))


def _is_repo_part(part: str) -> bool:
    return (
        _REPO_PART.fullmatch(part) is not None
        and "--" not in part
        and ".." not in part
        and not part.endswith(".git")
        and part.split(".")[0].lower() not in _DEVICES
    )


def check_revision_name(name: str) -> str:
    """Return `name` if it may be given to a new branch or tag.

    Raises:
        HubError: The name is reserved, has the form of a commit, or has other characters.
    """
    if (
        _REVISION.fullmatch(name) is None
        or ".." in name
        or name.endswith(".lock")
        or name.lower() in _RESERVED_REVISIONS
        or name.split(".")[0].lower() in _DEVICES
        or is_commit(name)
    ):
        raise HubError(
            f"{quoted(name)} cannot name a branch or tag; expected letters, digits, '-', '_' and "
            "'.', at most 100, not a commit hash and not a reserved word (for example v1)"
        )
    return name


def check_revision(revision: str) -> str:
    """Return `revision` if it could name an existing branch, tag or commit.

    Raises:
        RevisionNotFound: No hub can have such a revision.
    """
    if is_revision(revision):
        return revision
    raise RevisionNotFound(
        f"{quoted(revision)} is not a revision; expected a branch, a tag or a full commit hash of "
        "40 digits"
    )


def is_revision(name: str) -> bool:
    """Return whether `name` could be that of an existing branch, tag or commit."""
    return is_commit(name) or (_REVISION.fullmatch(name) is not None and ".." not in name)


def is_commit(revision: str) -> bool:
    """Return whether `revision` has the form of a full commit hash."""
    return _COMMIT.fullmatch(revision) is not None


def repo_folder_name(repo_id: str) -> str:
    """Return the folder of a repository in the layout of Hugging Face's cache."""
    return "models--" + repo_id.replace("/", "--")


def repo_id_of(folder_name: str) -> str | None:
    """Return the repository that a folder of the layout contains, or None for any other folder."""
    if not folder_name.startswith("models--"):
        return None
    repo_id = folder_name.removeprefix("models--").replace("--", "/")
    return repo_id if _is_repo_id(repo_id) else None


@dataclass(frozen=True)
class HubAddress:
    """Address of a hub: a folder on this machine, or an endpoint of Hugging Face's protocol.

    Attributes:
        uri: The address in its canonical form.
        root: Folder of a local hub; None for a remote one.
        endpoint: URL of a remote hub without a trailing slash; None for a local one.
    """

    uri: str
    root: Path | None = None
    endpoint: str | None = None

    @classmethod
    def parse(cls, uri: str | None = None) -> HubAddress:
        """Read `local`, `local:FOLDER`, `hf` or `hf+https://host`.

        Args:
            uri: The address; None for `$SOFTHUB_HUB`, or else `local`.

        Raises:
            HubError: Any other address, or plain http beyond this machine.
        """
        uri = uri or os.environ.get("SOFTHUB_HUB") or "local"
        if uri == "local":
            return cls(uri, root=softhub_home() / "hub")
        if uri.startswith("local:") and len(uri) > len("local:") and "\0" not in uri:
            root = full_path(uri.removeprefix("local:"))
            return cls(f"local:{root}", root=root)
        if uri == "hf":
            return cls(uri, endpoint=HUGGING_FACE)
        if uri.startswith(("hf+https://", "hf+http://")):
            endpoint = _check_endpoint(uri.removeprefix("hf+").rstrip("/"))
            return cls(f"hf+{endpoint}", endpoint=endpoint)
        raise HubError(
            f"{quoted(uri)} is not a hub; expected local, local:FOLDER, hf or hf+https://HOST "
            "(--hub, or the variable SOFTHUB_HUB)"
        )


def _check_endpoint(endpoint: str) -> str:
    try:
        parts = urlsplit(endpoint)
    except ValueError as error:
        raise HubError(
            f"{endpoint!r} is not an endpoint ({error}); expected https://HOST[:PORT]"
        ) from error
    if not parts.hostname or parts.username or parts.password or parts.query or parts.fragment:
        raise HubError(
            f"{endpoint!r} is not an endpoint; expected https://HOST[:PORT] "
            "without user name, password or query"
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise HubError(
            f"plain http to {parts.hostname} would expose tokens and prompts on the network; "
            "use hf+https:// (http is only for this machine's loopback)"
        )
    return endpoint


def is_loopback(host: str) -> bool:
    """Return whether `host` can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
