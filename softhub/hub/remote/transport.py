"""The one transport for every byte that a hub sends, and every token that goes to one.

huggingface_hub gives all its requests to one HTTP client. This module puts a transport in front
of that client, which guards the requests of softhub's own calls and passes all others through.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2  # the HTTP library of huggingface_hub
from huggingface_hub import set_client_factory
from huggingface_hub.utils import _http

from softhub.errors import HubError, HubUnavailable
from softhub.hub.names import is_loopback

MAX_CALL_BYTES = 64 * 1024 * 1024
"""Maximum number of bytes that all the answers to one call may have, on the wire and unpacked."""
_PIECE_BYTES = 64 * 1024
_GZIP = 16 + zlib.MAX_WBITS


@dataclass
class Call:
    """Remaining limits of one call to a hub.

    Attributes:
        endpoint: The hub; no other address gets the token.
        deadline: The time, by `time.monotonic`, after which nothing more is sent or read.
        bytes_left: How many bytes of answers may still be read.
    """

    endpoint: str
    deadline: float
    bytes_left: int = MAX_CALL_BYTES

    def check_request(self, request: httpx2.Request) -> None:
        """Refuse to send the token to another address, or anything over plain http.

        Raises:
            HubError: The request would do that.
        """
        self._check_time()
        url, host = str(request.url), request.url.host
        if "authorization" in request.headers and origin_of(url) != origin_of(self.endpoint):
            raise HubError(
                f"{self.endpoint} names an address on {host!r} for the next request; the access "
                "token is only for the hub, so the address was not followed"
            )
        is_local = is_loopback(host) and is_loopback(urlsplit(self.endpoint).hostname or "")
        if request.url.scheme != "https" and not is_local:
            raise HubError(
                f"{self.endpoint} leads to {request.url.scheme}://{host}; expected https, so it "
                "was not followed"
            )

    def take(self, size: int) -> None:
        """Count bytes of an answer.

        Raises:
            HubError: There are more than one call may have.
            HubUnavailable: The call has lasted too long.
        """
        self._check_time()
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise HubError(
                f"{self.endpoint} sends more than {MAX_CALL_BYTES // 1024**2} MiB in answer to one "
                "call; expected much less, so reading was stopped"
            )

    def _check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise HubUnavailable(f"{self.endpoint} did not finish its answer in time; try again")


_CALL: ContextVar[Call | None] = ContextVar("softhub_hub_call", default=None)


@contextmanager
def guarded(endpoint: str, seconds: float) -> Iterator[None]:
    """Guard what this thread asks of a hub: the token, the number of bytes, the time."""
    _install()
    token = _CALL.set(Call(endpoint, time.monotonic() + seconds))
    try:
        yield
    finally:
        _CALL.reset(token)


def origin_of(url: str) -> tuple[str, str | None, int | None]:
    """Return what identifies a server: scheme, host and port."""
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, parts.hostname, port


class GuardedTransport(httpx2.BaseTransport):
    """Sends requests by the client that huggingface_hub would use, if need be under guard."""

    def __init__(self, make_client: Callable[[], httpx2.Client]) -> None:
        """Make the client later: the environment may name a proxy that cannot be used."""
        self._make_client = make_client
        self._clients: dict[bool, httpx2.Client] = {}

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; count and unpack the answer if it belongs to a call of softhub's."""
        call = _CALL.get()
        if call is None:
            return self._client(direct=False).send(request, stream=True, follow_redirects=False)
        call.check_request(request)
        packable = request.headers.get("Accept-Encoding") != "identity"
        request.headers["Accept-Encoding"] = "gzip" if packable else "identity"
        client = self._client(direct=is_loopback(request.url.host))
        response = client.send(request, stream=True, follow_redirects=False)
        packed = packable and response.headers.get("Content-Encoding", "") == "gzip"
        if packable:
            _expect_readable(response, call)
        response.stream = _CountedStream(response.stream, call, packed=packed)
        return response

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            client.close()

    def _client(self, *, direct: bool) -> httpx2.Client:
        """Return the client that goes through the environment's proxies, or the one that never."""
        if direct not in self._clients:
            self._clients[direct] = (
                httpx2.Client(trust_env=False, timeout=None) if direct else self._from_environment()
            )
        return self._clients[direct]

    def _from_environment(self) -> httpx2.Client:
        try:
            return self._make_client()
        except (ImportError, OSError, ValueError) as error:
            raise HubUnavailable(
                "the network settings of the environment cannot be used (HTTPS_PROXY, ALL_PROXY, "
                f"SSL_CERT_FILE, SSL_CERT_DIR): {error}; correct or unset them"
            ) from error


class _CountedStream(httpx2.SyncByteStream):
    """The body of an answer, counted as it comes and as it is unpacked."""

    def __init__(self, stream: Any, call: Call, *, packed: bool) -> None:
        self._stream = stream
        self._call = call
        self._unpacker = zlib.decompressobj(_GZIP) if packed else None

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            self._call.take(len(piece))
            if self._unpacker is None:
                yield piece
            else:
                yield from self._unpacked(piece)

    def _unpacked(self, piece: bytes) -> Iterator[bytes]:
        assert self._unpacker is not None
        while piece:
            try:
                data = self._unpacker.decompress(piece, _PIECE_BYTES)
            except zlib.error as error:
                raise HubError(
                    f"{self._call.endpoint} sent an answer that cannot be unpacked: {error}; "
                    "try again"
                ) from error
            piece = self._unpacker.unconsumed_tail
            self._call.take(len(data))
            yield data

    def close(self) -> None:
        self._stream.close()


class _GuardedFactory:
    """Makes the client of huggingface_hub, with the transport in front of the one it replaces."""

    def __init__(self, replaced: Callable[[], httpx2.Client]) -> None:
        self._replaced = replaced

    def __call__(self) -> httpx2.Client:
        transport = GuardedTransport(self._replaced)
        return httpx2.Client(transport=transport, follow_redirects=True, timeout=None)


def _install() -> None:
    """Put the transport in front of the client that huggingface_hub is configured to use."""
    if not isinstance(_http._GLOBAL_CLIENT_FACTORY, _GuardedFactory):
        set_client_factory(_GuardedFactory(_http._GLOBAL_CLIENT_FACTORY))


def _expect_readable(response: httpx2.Response, call: Call) -> None:
    """Reject a content encoding that was not requested; unpacked content has none left."""
    packing = response.headers.pop("Content-Encoding", "identity")
    if packing not in ("gzip", "identity", ""):
        response.close()
        raise HubError(
            f"{call.endpoint} packed its answer as {packing[:40]!r}; expected gzip or none"
        )


def _is_wanted(record: logging.LogRecord) -> bool:
    """Drop the client's log records of softhub's own calls, whose answers softhub checks."""
    return _CALL.get() is None or record.levelno >= logging.ERROR


logging.getLogger("huggingface_hub._commit_api").addFilter(_is_wanted)
logging.getLogger("huggingface_hub.utils._http").addFilter(_is_wanted)
