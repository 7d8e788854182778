"""Access tokens and local paths, which must not leave this machine in an adapter's texts."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from softhub.adapter.layout import CARD, CONFIG, MANIFEST
from softhub.errors import InvalidArtefact, SoftHubWarning

_TOKENS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|api_org_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}"
    r"|github_pat_\w{20,}|sk-[A-Za-z0-9_-]{20,}|AKIA[0-9A-Z]{16}|xox[abpr]-[A-Za-z0-9-]{10,}"
    r"|glpat-[\w-]{20,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_SECRET_VARIABLES = re.compile(r"TOKEN|SECRET|PASSWORD|API_?KEY", re.IGNORECASE)
_PATHS = re.compile(
    r"(?<![\w.:/~-])(?:/(?:home|Users|root|tmp|mnt|media|opt|srv|var|private|scratch|workspace)"
    r"/[^\s\"'`)<>,]+|file://[^\s\"'`)<>,]+|~/[^\s\"'`)<>,]+|[A-Za-z]:(?:\\\\?|/)Users[\\/][^\"'\n]+)"
)


def check_secrets(files: Mapping[str, bytes], *, leaves_machine: bool) -> None:
    """Refuse files with an access token, or with a local path if they leave this machine.

    Args:
        files: The files of an adapter.
        leaves_machine: Whether they are pushed to a remote hub; on a local one, a path is only
            warned about.

    Raises:
        InvalidArtefact: Names the file; the secret itself is not repeated.
    """
    texts = list(_texts(files))
    for name, text in texts:
        if _TOKENS.search(text) or any(secret in text for secret in _secrets_in_environment()):
            raise InvalidArtefact(
                f"{name} contains what looks like an access token; remove it (and revoke it, if it "
                "was ever shared), then push again"
            )
    for name, text in texts:
        path = _local_path(text)
        if path:
            message = (
                f"{name} contains the local path {path[:120]!r}, which reveals details of your "
                "machine and means nothing on another; write a Hub id or a relative name instead"
            )
            if leaves_machine:
                raise InvalidArtefact(message)
            warnings.warn(message, SoftHubWarning, stacklevel=3)
            return


def _texts(files: Mapping[str, bytes]) -> Iterator[tuple[str, str]]:
    for name in (CONFIG, MANIFEST, CARD):
        if name in files:
            yield name, files[name].decode("utf-8", errors="replace").replace("\\/", "/")


def _secrets_in_environment() -> list[str]:
    return [
        value
        for name, value in os.environ.items()
        if _SECRET_VARIABLES.search(name) and len(value) >= 12 and not Path(value).exists()
    ]


def _local_path(text: str) -> str | None:
    found = _PATHS.search(text)
    own_folders = (folder for folder in _own_folders() if folder in text)
    return found.group(0) if found else next(own_folders, None)


def _own_folders() -> list[str]:
    """Return home and working folder, unless they are too short to mean anything."""
    return [str(p) for p in (Path.home(), Path.cwd()) if len(p.parts) > 2]
