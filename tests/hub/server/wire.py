"""What travels: a request as recorded, an answer as sent, an error as the Hub words it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, unquote

CODES = {
    "RepoNotFound": "Repository not found",
    "RevisionNotFound": "Invalid rev id",
    "EntryNotFound": "Entry not found",
    "GatedRepo": "Access to this model is restricted and you are not in the authorized list.",
}


@dataclass
class Request:
    """One request, kept in `HubServer.requests` in the order of arrival.

    `host` tells which listener got it: "hub", "cdn" or "elsewhere"; `route` is the name of the
    route that answered ("" when none did), `params` the unquoted parts of its path.
    """

    host: str
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    route: str = ""
    params: dict[str, str] = field(default_factory=dict)

    @property
    def token(self) -> str | None:
        """The bearer token, or None."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token if scheme.lower() == "bearer" else None

    def first(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        return self.query.get(name, [default])[0]

    def flag(self, name: str) -> bool:
        """Whether a query parameter is on, in any of the spellings clients use."""
        return self.first(name).lower() in {"1", "true"}

    def json(self) -> dict[str, Any]:
        """The body as a JSON object."""
        try:
            data = json.loads(self.body or b"{}")
        except ValueError as error:
            raise HubError(400, f"Invalid JSON in request body: {error}") from None
        if not isinstance(data, dict):
            raise HubError(400, "Request body must be a JSON object")
        return data

    def form(self) -> dict[str, list[str]]:
        """The body as fields, whether form-encoded or JSON: the Hub takes both."""
        if "json" in self.headers.get("content-type", ""):
            return {
                key: value if isinstance(value, list) else [str(value)]
                for key, value in self.json().items()
            }
        return parse_qs(self.body.decode(), keep_blank_values=True)


@dataclass
class Response:
    """An answer and the way it is delivered; faults change either."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    keep: int | None = None  # cut the connection after so many bytes of the body
    pause: float = 0.0  # seconds before each piece of the body
    piece: int = 1024  # bytes per piece when there is a pause
    lost: bool = False  # cut the connection without a word
    sized: bool = True  # tell the length; else the body ends where the connection does

    def data(self) -> Any:
        """The body as parsed JSON."""
        return json.loads(self.body)


class HubError(Exception):
    """An error answer: status, the `X-Error-Code` the client maps to an exception, a message."""

    def __init__(
        self,
        status: int,
        message: str = "",
        *,
        code: str | None = None,
        headers: dict[str, str] | None = None,
        errors: list[str] | None = None,
    ) -> None:
        self.status = status
        self.message = message or CODES.get(code or "") or HTTPStatus(status).phrase
        self.code = code
        self.headers = headers or {}
        self.errors = errors
        super().__init__(f"{status} {code or ''} {self.message}")

    def response(self) -> Response:
        """The error as an answer: code and message in headers, the message again in JSON."""
        body: dict[str, Any] = {"error": self.message}
        if self.errors is not None:
            body["errors"] = [{"message": message} for message in self.errors]
        answer = answer_json(body, status=self.status, headers=dict(self.headers))
        answer.headers["X-Error-Message"] = self.message.encode("latin-1", "replace").decode(
            "latin-1"
        )
        if self.code:
            answer.headers["X-Error-Code"] = self.code
        return answer


def answer_json(data: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    body = json.dumps(data, default=str, skipkeys=True).encode()
    return Response(
        status, body, {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
    )


def answer_bytes(request: Request, data: bytes, headers: dict[str, str]) -> Response:
    """Bytes of a file: whole, or the one range asked for, or 304 when the client has them."""
    if headers.get("ETag") and request.headers.get("if-none-match") == headers["ETag"]:
        return Response(304, b"", headers)
    headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
    wanted = request.headers.get("range", "")
    if not wanted.startswith("bytes=") or "," in wanted:
        return Response(200, data, headers)
    first, last = _bounds(wanted[len("bytes=") :], len(data))
    if first > last or first >= len(data):
        return Response(416, b"", {**headers, "Content-Range": f"bytes */{len(data)}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
    return Response(206, data[first : last + 1], headers)


def _bounds(span: str, size: int) -> tuple[int, int]:
    start, _, end = span.partition("-")
    if not start:
        return max(size - int(end), 0), size - 1
    return int(start), min(int(end), size - 1) if end else size - 1


def parse_query(query: str) -> dict[str, list[str]]:
    """Query parameters by name; `name[]` is `name`, as some clients write lists so."""
    pairs = parse_qs(query, keep_blank_values=True)
    merged: dict[str, list[str]] = {}
    for name, values in pairs.items():
        merged.setdefault(name.removesuffix("[]"), []).extend(values)
    return merged


def unquote_all(parts: dict[str, str | None]) -> dict[str, str]:
    """Path parameters, unquoted; the absent ones left out."""
    return {name: unquote(part) for name, part in parts.items() if part is not None}
