"""The server: three listeners on the loopback, and what happens to each request."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from . import commits, files, models, repos, xet_tokens
from .hub import Hub
from .routing import find
from .wire import HubError, Request, Response, parse_query

ROUTES_FROM = (repos, files, commits, xet_tokens, models)  # models last: its pattern is the widest
ON_CDN = ("cdn", "lfs_upload")


class HubServer(Hub):
    """The Hugging Face Hub, on the loopback, in memory, for tests.

    Listens at three addresses: `endpoint` (the Hub), `cdn` (where LFS bytes are; refuses tokens
    as storage does) and `elsewhere` (a stranger to redirect to, who answers as the Hub would).
    There is one user, "me", with `token`; more by `add_user`. Arguments are `Hub`'s.

    Example:
        >>> with HubServer(uploads="lfs") as server:
        ...     api = HfApi(endpoint=server.endpoint, token=server.token)
        ...     api.create_repo("me/prompt")
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._listeners = [Listener(self, host) for host in ("hub", "cdn", "elsewhere")]
        self.endpoint, self.cdn, self.elsewhere = (each.address for each in self._listeners)
        self.token = self.add_user("me")

    def __enter__(self) -> HubServer:
        for listener in self._listeners:
            listener.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop listening and cut every connection: from now on the endpoint is dead."""
        self.faults.over.set()
        for listener in self._listeners:
            listener.stop()
        self.xet.close()

    def environment(self, *, token: bool = True) -> dict[str, str]:
        """The environment in which a subprocess finds the hub, with or without a token."""
        environment = {
            **os.environ,
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": str(int(self.uploads != "xet")),
        }
        return {**environment, "HF_TOKEN": self.token} if token else environment

    def sent_to(self, *routes: str) -> list[Request]:
        """The requests that came to these routes so far."""
        return [request for request in self.requests if request.route in routes]

    def leaks(self) -> list[Request]:
        """The requests that carried a token to a host that it does not belong to."""
        return [
            request
            for request in self.requests
            if request.host != "hub" and "authorization" in request.headers
        ]

    def answer(self, request: Request) -> Response:
        """Record a request, answer it, misbehave if a fault says so."""
        handler = find(request)
        self.requests.append(request)
        faults = self.faults.claim(request) if request.host != "elsewhere" else []
        for fault in faults:
            answer = fault.before(request) if fault.before else None
            if answer is not None:
                return answer
        try:
            if handler is None or not self._serves(request):
                raise HubError(404, "Sorry, we can't find the page you are looking for.")
            if request.host == "cdn" and "authorization" in request.headers:
                raise HubError(400, "Only one auth mechanism allowed")
            with self.store.lock:
                answer = handler(self, request)
        except HubError as error:
            answer = error.response()
        except Exception:
            traceback.print_exc()
            answer = HubError(500).response()
        for fault in faults:
            answer = fault.after(request, answer) if fault.after else answer
        return answer

    def _serves(self, request: Request) -> bool:
        return request.host == "elsewhere" or (request.host == "cdn") == (request.route in ON_CDN)


class Listener(ThreadingHTTPServer):
    """One address on the loopback; remembers its connections, to cut them at the end."""

    request_queue_size = 128

    def __init__(self, hub: HubServer, name: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub
        self.name = name
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def start(self) -> None:
        """Listen, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening, cut what is open."""
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
        self.server_close()
        for connection in list(self._open):
            _cut(connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection, in a thread, and note that it is open."""
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection that has been served."""
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error of ours; anything else is, and is printed."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Reads requests off one connection and delivers the answers."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body leave together
    server: Listener

    def answer(self) -> None:
        """One request, one answer."""
        path, _, query = self.path.partition("?")
        request = Request(
            self.server.name,
            self.command,
            path,
            parse_query(query),
            {name.lower(): value for name, value in self.headers.items()},
            self._body(),
        )
        self._deliver(self.server.hub.answer(request))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: requests are recorded."""

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def _chunks(self) -> Iterable[bytes]:
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _deliver(self, answer: Response) -> None:
        if answer.lost:
            self._hang_up()
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if not answer.sized:
            self.send_header("Connection", "close")
        elif "Content-Length" not in answer.headers:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(answer)

    def _send_body(self, answer: Response) -> None:
        body = answer.body if answer.keep is None else answer.body[: answer.keep]
        step = answer.piece if answer.pause else max(len(body), 1)
        for at in range(0, len(body), step):
            self.wfile.flush()
            time.sleep(answer.pause)
            self.wfile.write(body[at : at + step])
        self.wfile.flush()
        if answer.keep is not None or "Content-Length" in answer.headers:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        _cut(self.connection)


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
