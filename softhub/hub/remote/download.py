"""Download files from a remote hub into memory, with limits on their size, and check hashes."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from softhub.adapter.layout import MAX_BYTES, sha256_of
from softhub.errors import HubError, HubUnavailable, InvalidAdapter
from softhub.hub.names import is_loopback
from softhub.hub.remote.connection import Connection

MAX_REDIRECTS = 5
FILE_SECONDS = 300.0
_READ_SECONDS = 20.0
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class RemoteFile:
    """One file of a commit as the hub's tree lists it; `check` says whether that can be true.

    Attributes:
        name: File name.
        size: Bytes.
        blob_id: SHA-1 that git gives to the content; of a file in LFS, to its pointer.
        sha256: SHA-256 of a file in LFS, else None.
    """

    name: str
    size: int | None
    blob_id: str
    sha256: str | None

    @classmethod
    def of(cls, sibling: Any) -> RemoteFile:
        """Read an entry of `model_info(files_metadata=True)`."""
        lfs = sibling.lfs
        size = lfs.size if lfs else sibling.size
        return cls(
            str(sibling.rfilename),
            size if isinstance(size, int) else None,
            str(sibling.blob_id),
            str(lfs.sha256) if lfs else None,
        )

    @property
    def digest(self) -> str:
        """The hash that identifies the content."""
        return self.sha256 or self.blob_id

    def check(self, origin: str) -> None:
        """Check that the file is one to download.

        Args:
            origin: The commit, for messages.

        Raises:
            InvalidAdapter: Too large for an adapter, or without a hash to check it by.
        """
        if self.size is None or not 0 <= self.size <= MAX_BYTES[self.name]:
            raise InvalidAdapter(
                f"{self.name} of {origin} has {self.size} bytes according to the hub; expected at "
                f"most {MAX_BYTES[self.name]}, so it was not downloaded"
            )
        length = 40 if self.sha256 is None else 64
        if len(self.digest) != length or not set(self.digest) <= _HEX:
            raise InvalidAdapter(
                f"the hub gives no hash for {self.name} of {origin}; expected one, so it was not "
                "downloaded"
            )

    def matches(self, data: bytes) -> bool:
        """Return whether `data` is this file, by size and hash."""
        found = git_blob_id(data) if self.sha256 is None else sha256_of(data)
        return len(data) == self.size and found == self.digest


def git_blob_id(data: bytes) -> str:
    """Return the name that git gives to a file's content (SHA-1 over a header and the bytes)."""
    header = b"blob %d\0" % len(data)
    return hashlib.sha1(header + data, usedforsecurity=False).hexdigest()


def download(connection: Connection, repo_id: str, commit: str, file: RemoteFile) -> bytes:
    """Return one file of a commit, checked against the hub's tree.

    Args:
        connection: The hub.
        repo_id: The repository.
        commit: The commit.
        file: What the commit's tree lists.

    Returns:
        The content.

    Raises:
        InvalidAdapter: What was sent is not what the tree lists.
        HubError: The hub did not send it.
    """
    file.check(f"{repo_id}@{commit}")
    assert file.size is not None
    size, path = file.size, f"/{quote(repo_id)}/resolve/{commit}/{quote(file.name)}"
    what = f"{file.name} of {repo_id}@{commit}"
    data = connection.read(lambda _: _fetch(connection, path, size), what)
    if not file.matches(data):
        raise InvalidAdapter(
            f"{what} is not what the hub lists: got {len(data)} bytes with SHA-256 "
            f"{sha256_of(data)}, expected {size} bytes with "
            f"{'git hash' if file.sha256 is None else 'SHA-256'} {file.digest}; "
            "try again, and if the error persists, do not trust this hub"
        )
    return data


def _fetch(connection: Connection, path: str, size: int) -> bytes:
    """Follow redirects by hand, so that the token stays with its host and http is refused."""
    from huggingface_hub import get_session
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, but not in __all__
        build_hf_headers,
        hf_raise_for_status,
    )

    from softhub.hub.remote.transport import origin_of

    url = connection.endpoint + path
    for _ in range(MAX_REDIRECTS + 1):
        token = connection.token if origin_of(url) == origin_of(connection.endpoint) else False
        headers = {**build_hf_headers(token=token), "Accept-Encoding": "identity"}
        with get_session().stream(
            "GET", url, headers=headers, timeout=_READ_SECONDS, follow_redirects=False
        ) as response:
            if response.is_redirect:
                url = _redirected(url, response.headers.get("Location", ""))
                continue
            if response.status_code >= 400:
                response.read()
            hf_raise_for_status(response)
            return _read(response, size)
    raise HubError(
        f"{connection.endpoint} redirects more than {MAX_REDIRECTS} times; expected a file"
    )


def _read(response: Any, size: int) -> bytes:
    """Read a body, and no more of it than the tree lists; raw, so that nothing is unpacked."""
    deadline = time.monotonic() + FILE_SECONDS
    data = bytearray()
    for piece in response.iter_raw():
        data += piece
        if len(data) > size:
            raise InvalidAdapter(
                f"{response.url} sends more than the {size} bytes that the hub lists; stopped"
            )
        if time.monotonic() > deadline:
            raise HubUnavailable(
                f"{response.url} sent {len(data)} of {size} bytes in {FILE_SECONDS:.0f} s; "
                "try again later"
            )
    return bytes(data)


def _redirected(url: str, location: str) -> str:
    target = urljoin(url, location)
    host, parts = urlsplit(url).hostname or "", urlsplit(target)
    within_machine = is_loopback(host) and is_loopback(parts.hostname or "")
    allowed = parts.scheme == "https" or (parts.scheme == "http" and within_machine)
    if not parts.hostname or not allowed:
        raise HubError(
            f"{host} redirects to {target[:200]!r}; expected https, so it was not followed"
        )
    return target
