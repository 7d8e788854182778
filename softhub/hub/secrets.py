"""Access tokens and local paths, which must not leave this machine in an adapter's texts."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from softhub.adapter.layout import CARD, CONFIG, MANIFEST, WEIGHTS
from softhub.errors import InvalidAdapter, SoftHubWarning

_TOKENS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|api_org_[A-Za-z0-9]{16,}"  # Hugging Face
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}"  # GitHub, GitLab
    r"|sk-[A-Za-z0-9_-]{20,}|gsk_\w{20,}|xai-\w{20,}|nvapi-[\w-]{20,}|pplx-\w{20,}|r8_\w{20,}"
    r"|A(?:KIA|SIA)[0-9A-Z]{16}|AIza[\w-]{35}|ya29\.[\w-]{20,}|dop_v1_[0-9a-f]{32,}"  # clouds
    r"|dapi[0-9a-f]{32}|hvs\.[\w-]{20,}|AccountKey=[A-Za-z0-9+/=]{40,}"
    r"|xox[abeprs]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{10,}|\d{8,10}:AA[\w-]{33}"  # chats
    r"|(?:sk|rk|pk)_live_\w{16,}|SG\.[\w-]{16,}\.[\w-]{16,}|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"
    r"|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{30,}|dckr_pat_[\w-]{20,})"  # package registries
    # A JSON web token, by its middle: its beginning may occur at every letter of a long text, and
    # the search would then take time that grows with the square of the text's length.
    r"|(?<=[\w-]{10})\.eyJ[\w-]{10,}\.[\w-]{10,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_SECRET_VARIABLES = re.compile(
    r"(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|CREDENTIALS?)(?:_|$)",
    re.IGNORECASE,
)
_ESCAPES = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|U([0-9a-fA-F]{8}))")
_PATHS = re.compile(
    r"(?<![\w.:/~-])(?:/(?:home|Users|root|tmp|mnt|media|opt|srv|var|private|scratch|workspace)"
    r"/[^\s\"'`)<>,]+|file://[^\s\"'`)<>,]+|~/[^\s\"'`)<>,]+|[A-Za-z]:(?:\\\\?|/)Users[\\/][^\"'\n]+)"
)


def check_secrets(
    files: Mapping[str, bytes], texts: Mapping[str, str], *, leaves_machine: bool
) -> None:
    """Reject a push with an access token, or with a local path if it leaves this machine.

    Args:
        files: The files of an adapter.
        texts: What else is published, such as the commit's message, by name for messages.
        leaves_machine: Whether they are pushed to a remote hub; on a local one, a path is only
            warned about.

    Raises:
        InvalidAdapter: Names the file or text; the secret itself is not repeated.
    """
    published = [*_texts(files), *((name, _forms(text)) for name, text in texts.items())]
    for name, text in published:
        if _TOKENS.search(text) or any(secret in text for secret in _secrets_in_environment()):
            raise InvalidAdapter(
                f"{_without_tokens(name)} contains what looks like an access token; remove it (and "
                "revoke it, if it was ever shared), then push again"
            )
    for name, text in published:
        path = _local_path(text)
        if path:
            message = (
                f"{name} contains the local path {path[:120]!r}, which reveals details of your "
                "machine and means nothing on another; write a Hub id or a relative name instead"
            )
            if leaves_machine:
                raise InvalidAdapter(message)
            warnings.warn(message, SoftHubWarning, stacklevel=4)
            return


def _without_tokens(name: str) -> str:
    """Return the name of a text that is its own name, such as a tag, without what it gives away."""
    shown = re.sub(r"[\w-]+(?=…)", "", _TOKENS.sub("…", name))  # of a web token also its beginning
    for secret in _secrets_in_environment():
        shown = shown.replace(secret, "…")
    return shown


def _texts(files: Mapping[str, bytes]) -> Iterator[tuple[str, str]]:
    """Return the text in every file, by the file's name: of the weights, that of their header."""
    for name in (CONFIG, MANIFEST, CARD):
        if name in files:
            yield name, _forms(files[name].decode("utf-8", errors="replace"))
    weights = files.get(WEIGHTS, b"")
    length = int.from_bytes(weights[:8], "little")
    yield f"the header of {WEIGHTS}", _forms(weights[8 : 8 + length].decode("utf-8", "replace"))


def _forms(text: str) -> str:
    """Return a text as written and, if different, with JSON's and YAML's escapes decoded."""
    text = text.replace("\\/", "/")
    read = _ESCAPES.sub(_escaped_character, text)
    return text if read == text else f"{text}\n{read}"


def _escaped_character(match: re.Match[str]) -> str:
    number = int(next(filter(None, match.groups())), 16)
    return chr(number) if number < 0x110000 else match.group()


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
    """Return home and working folder, unless they do not exist or mean nothing, such as `/`."""
    folders = []
    for find in (Path.home, Path.cwd):
        with suppress(RuntimeError, FileNotFoundError):  # no account; a deleted working folder
            folders.append(find())
    return [str(folder) for folder in folders if len(folder.parts) > 2]
