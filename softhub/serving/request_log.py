"""Middleware around every request: its key, its log line, its metrics, and its errors as JSON.

A log line is a JSON object without texts: route, status, time, model and numbers.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from softhub.hub.names import is_loopback
from softhub.serving.errors import ApiError, as_api_error
from softhub.serving.keys import Keys
from softhub.serving.metrics import ServerMetrics

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("softhub.serving")

OPEN_PATHS = ("/health", "/ready")
"""Paths that need no key."""


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON; the fields of a request are in `record.fields`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


class RequestLog:
    """Checks the key, counts and logs a request, and answers with an error where one is raised.

    Args:
        app: The application.
        keys: Keys of clients; without any, none is needed, and only requests for a loopback
            address are answered.
        metrics: Where requests are counted.
        routes: Paths that are counted under their own name, such as `/v1/models/{name}`.
    """

    def __init__(
        self, app: ASGIApp, keys: Keys, metrics: ServerMetrics, routes: frozenset[str]
    ) -> None:
        self._app = app
        self._keys = keys
        self._metrics = metrics
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started = time.monotonic()
        state: dict[str, Any] = scope.setdefault("state", {})
        state["log"] = fields = {"request": uuid.uuid4().hex}
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message["headers"], (b"x-request-id", fields["request"].encode())]
                message = {**message, "headers": headers}
            await send(message)

        try:
            self._check_key(scope)
            await self._app(scope, receive, watched)
        except Exception as error:
            found = as_api_error(error)
            if found.status_code >= 500:
                log.error("A request failed", exc_info=error, extra={"fields": fields})
            if status == 0:  # else the answer has begun, and its connection is closed
                await _send(found, watched)
        finally:
            self._done(scope, status or 499, time.monotonic() - started, fields)

    def _check_key(self, scope: Scope) -> None:
        if scope["path"] in OPEN_PATHS:
            return
        headers = dict(scope["headers"])
        if not self._keys:
            return _check_host(headers.get(b"host", b"localhost").decode("latin-1"))
        header = headers.get(b"authorization", b"").decode("latin-1")
        if not self._keys.accept(header):
            raise ApiError(
                401,
                "This server requires an API key: send 'Authorization: Bearer KEY'.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": 'Basic realm="softhub", charset="UTF-8"'},
            )

    def _done(self, scope: Scope, status: int, seconds: float, fields: dict[str, Any]) -> None:
        status = fields.get("status", status)  # of an answer that failed after it had begun
        path = getattr(scope.get("route"), "path_format", scope["path"])  # no route before the key
        path = path if path in self._routes else "(other)"
        self._metrics.count_request(path, status, seconds)
        fields = {
            **fields,
            "method": scope["method"],
            "route": path,
            "status": status,
            "seconds": round(seconds, 4),
        }
        log.info("request", extra={"fields": fields})


def _check_host(header: str) -> None:
    """Refuse a request that a web site makes to this machine under its own name (DNS rebinding).

    A server without keys listens on a loopback address only, but the browser on this machine would
    send such requests, and let the site read the answers.
    """
    try:
        host = urlsplit(f"//{header}").hostname
    except ValueError:
        host = None
    host = (host or "").rstrip(".")
    if not (is_loopback(host) or host.endswith(".localhost")):
        raise ApiError(
            403,
            f"The request is for the host {header!r:.200}, and a server without an API key answers "
            "requests for localhost and loopback addresses only, so that no web site can use it "
            "through a browser. Set SOFTHUB_API_KEY or pass --api-keys FILE; or let the reverse "
            "proxy in front of the server send the header 'Host: localhost'.",
        )


async def _send(error: ApiError, send: Send) -> None:
    body = json.dumps(error.body).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **(error.headers or {}),
    }
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status_code, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
