"""Bytes from a remote hub into memory: capped before and while they come, then hashed."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from softhub.adapter.layout import MAX_BYTES
from softhub.errors import HubError, HubUnavailable, InvalidArtefact
from softhub.hub.names import is_loopback
from softhub.hub.remote.connection import Connection

REDIRECTS = 5
FILE_SECONDS = 300.0
_SILENCE_SECONDS = 20.0
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class RemoteFile:
    """One file of a commit as the hub's tree lists it.

    Attributes:
        name: File name.
        size: Bytes.
        blob_id: SHA-1 that git gives to the content; of a file in LFS, to its pointer.
        sha256: SHA-256 of a file in LFS, else None.
    """

    name: str
    size: int
    blob_id: str
    sha256: str | None

    @classmethod
    def of(cls, sibling: Any, origin: str) -> RemoteFile:
        """Read an entry of `model_info(files_metadata=True)`.

        Raises:
            InvalidArtefact: Too large for an adapter, or without a hash to check it by.
        """
        name, lfs = str(sibling.rfilename), sibling.lfs
        size = lfs.size if lfs else sibling.size
        if not isinstance(size, int) or not 0 <= size <= MAX_BYTES[name]:
            raise InvalidArtefact(
                f"{name} of {origin} has {size} bytes by the hub's listing; expected at most "
                f"{MAX_BYTES[name]}, so it was not downloaded"
            )
        entry = cls(name, size, str(sibling.blob_id), lfs.sha256 if lfs else None)
        if not entry._is_checkable():
            raise InvalidArtefact(
                f"the hub gives no hash for {name} of {origin}; expected one, so it was not "
                "downloaded"
            )
        return entry

    def matches(self, data: bytes) -> bool:
        """Tell whether `data` is this file, by size and hash."""
        if len(data) != self.size:
            return False
        if self.sha256 is not None:
            return hashlib.sha256(data).hexdigest() == self.sha256
        return git_blob_id(data) == self.blob_id

    def _is_checkable(self) -> bool:
        digest, length = (self.blob_id, 40) if self.sha256 is None else (self.sha256, 64)
        return isinstance(digest, str) and len(digest) == length and set(digest) <= _HEX


def git_blob_id(data: bytes) -> str:
    """Return the name that git gives to a file's content (SHA-1 over a header and the bytes)."""
    header = b"blob %d\0" % len(data)
    return hashlib.sha1(header + data, usedforsecurity=False).hexdigest()


def download(connection: Connection, repo_id: str, commit: str, file: RemoteFile) -> bytes:
    """Return one file of a commit, checked against the hub's tree.

    Raises:
        InvalidArtefact: What came is not what the tree promises.
        HubError: It could not be had.
    """
    path = f"/{quote(repo_id)}/resolve/{commit}/{quote(file.name)}"
    what = f"{file.name} of {repo_id}@{commit}"
    data = connection.read(lambda: _fetch(connection, path, file.size), what)
    if not file.matches(data):
        raise InvalidArtefact(
            f"{what} is not what the hub lists: got {len(data)} bytes with SHA-256 "
            f"{hashlib.sha256(data).hexdigest()}, expected {file.size} bytes with "
            f"{'SHA-256 ' + file.sha256 if file.sha256 else 'git hash ' + file.blob_id}; "
            "try again, and if it stays so, do not trust this hub"
        )
    return data


def _fetch(connection: Connection, path: str, size: int) -> bytes:
    """Follow redirects by hand, so that the token stays with its host and http stays out."""
    from huggingface_hub import get_session
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, but not in __all__
        build_hf_headers,
        hf_raise_for_status,
    )

    url = connection.endpoint + path
    for _ in range(REDIRECTS + 1):
        token = connection.token if _origin(url) == _origin(connection.endpoint) else False
        headers = {**build_hf_headers(token=token), "Accept-Encoding": "identity"}
        with get_session().stream(
            "GET", url, headers=headers, timeout=_SILENCE_SECONDS, follow_redirects=False
        ) as response:
            if response.is_redirect:
                url = _next(url, response.headers.get("Location", ""))
                continue
            if response.status_code >= 400:
                response.read()
            hf_raise_for_status(response)
            return _read(response, size)
    raise HubError(f"{connection.endpoint} redirects more than {REDIRECTS} times; expected a file")


def _read(response: Any, size: int) -> bytes:
    """Read a body, and no more of it than the tree promised; raw, so that nothing unpacks."""
    deadline = time.monotonic() + FILE_SECONDS
    data = bytearray()
    for piece in response.iter_raw():
        data += piece
        if len(data) > size:
            raise InvalidArtefact(
                f"{response.url} sends more than the {size} bytes that the hub lists; stopped"
            )
        if time.monotonic() > deadline:
            raise HubUnavailable(
                f"{response.url} sent {len(data)} of {size} bytes in {FILE_SECONDS:.0f} s; "
                "try again later"
            )
    return bytes(data)


def _next(url: str, location: str) -> str:
    target = urljoin(url, location)
    parts = urlsplit(target)
    here = urlsplit(url)
    plain_allowed = is_loopback(here.hostname or "") and is_loopback(parts.hostname or "")
    if not parts.hostname or not (
        parts.scheme == "https" or (parts.scheme == "http" and plain_allowed)
    ):
        raise HubError(
            f"{here.hostname} redirects to {target[:200]!r}; expected https, so it was not followed"
        )
    return target


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, parts.hostname, port
