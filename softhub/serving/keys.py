"""API keys: only their hashes are held, and they are compared in constant time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable
from pathlib import Path

from softhub.errors import ConfigError

_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_LEAST_LENGTH = 16


class Keys:
    """A set of keys.

    Args:
        digests: SHA-256 of each.
    """

    def __init__(self, digests: Iterable[bytes] = ()) -> None:
        self._digests = tuple(digests)

    def __bool__(self) -> bool:
        """Return whether there is a key."""
        return bool(self._digests)

    @classmethod
    def read(cls, file: Path | None, plain: str | None = None) -> Keys:
        """Read keys.

        Args:
            file: A line for each key: `sha256:` and its hash; empty lines and lines that begin
                with `#` are ignored.
            plain: Another key, e.g. of an environment variable.

        Raises:
            ConfigError: The file cannot be read, a line is no hash, or the key is too short.
        """
        digests = [] if file is None else _digests(file)
        if plain is not None:
            if len(plain.strip()) < _LEAST_LENGTH:
                raise ConfigError(
                    f"The API key has {len(plain.strip())} characters; expected at least "
                    f"{_LEAST_LENGTH}, e.g. from `openssl rand -hex 24`."
                )
            digests.append(hashlib.sha256(plain.strip().encode()).digest())
        return cls(digests)

    def joined(self, other: Keys) -> Keys:
        """Return the keys of both."""
        return Keys((*self._digests, *other._digests))

    def accept(self, authorization: str | None) -> bool:
        """Return whether an `Authorization` header has one of the keys.

        The scheme is `Bearer`, or `Basic` with the key as the password, which browsers send.

        Args:
            authorization: The header, decoded as Latin-1; its bytes are compared, in UTF-8.
        """
        digest = hashlib.sha256(_key(authorization or "")).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(matches)  # after comparing all


def _digests(file: Path) -> list[bytes]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"Cannot read the keys in {str(file)!r}: {reason}.") from error
    found = []
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        match = _HASH.fullmatch(line)
        if match is None:
            raise ConfigError(
                f"{file}:{number}: expected 'sha256:' and 64 hexadecimal digits; hash a key with "
                '`printf %s "$KEY" | sha256sum`.'
            )
        found.append(bytes.fromhex(match[1]))
    if not found:
        raise ConfigError(f"{file} has no key; expected a line 'sha256:…' for each.")
    return found


def _key(authorization: str) -> bytes:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    # Bytes first: as text, the last byte of a letter in UTF-8 may be a space in Latin-1.
    return value.encode("latin-1").strip() if scheme.lower() == "bearer" else b""
