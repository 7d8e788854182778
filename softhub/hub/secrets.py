"""What must not leave this machine inside a card, a config or a manifest: tokens and paths."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from softhub.adapter.layout import CARD, CONFIG, MANIFEST
from softhub.errors import InvalidArtefact

_READ = (CONFIG, MANIFEST, CARD)
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


def refuse_tokens(files: Mapping[str, bytes]) -> None:
    """Refuse files that hold something that looks like a secret, or one that this machine has.

    Raises:
        InvalidArtefact: Names the file; the secret itself is not repeated.
    """
    for name, text in _texts(files):
        if _TOKENS.search(text) or any(secret in text for secret in _own_secrets()):
            raise InvalidArtefact(
                f"{name} holds what looks like an access token; remove it (and revoke it, if it "
                "was ever shared), then push again"
            )


def local_path(files: Mapping[str, bytes]) -> str | None:
    """Return a sentence about the first path of this machine in the files, or None."""
    for name, text in _texts(files):
        found = _PATHS.search(text)
        place = found.group(0) if found else next((p for p in _own_folders() if p in text), None)
        if place:
            return (
                f"{name} holds the local path {place[:120]!r}, which tells about your machine and "
                "means nothing on another; write a Hub id or a relative name instead"
            )
    return None


def _texts(files: Mapping[str, bytes]) -> Iterator[tuple[str, str]]:
    for name in _READ:
        if name in files:
            yield name, files[name].decode("utf-8", errors="replace").replace("\\/", "/")


def _own_secrets() -> list[str]:
    return [
        value
        for name, value in os.environ.items()
        if _SECRET_VARIABLES.search(name) and len(value) >= 12 and not Path(value).exists()
    ]


def _own_folders() -> list[str]:
    """Return home and working folder, unless they are too short to mean anything."""
    return [str(p) for p in (Path.home(), Path.cwd()) if len(p.parts) > 2]
