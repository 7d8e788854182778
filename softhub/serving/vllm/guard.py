"""Middleware that refuses tensors, and softhub's cache salts, in every body of a request.

`--enable-prompt-embeds` lets vLLM's own routes accept serialized tensors from clients, which have
led to the execution of code (CVE-2025-62164). Prompt vectors never come from a request here.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from softhub.serving.vllm.rows import SALT

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

MOST_BYTES = 64 * 2**20
"""Maximum size of a body that is checked; a larger one is refused."""
_TENSORS = ("_embeds", "kwargs_data", "mm_metadata")
"""Ends of the names of vLLM's fields, and of types of content, that carry serialized tensors."""


class BodyGuard:
    """An ASGI middleware.

    Args:
        app: The application.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return await self._app(scope, receive, send)
        body = await _read(receive)
        if body is None:
            return await _refuse(send, 413, f"The body has more than {MOST_BYTES} bytes.", None)
        found = forbidden_field(body)
        if found is not None:
            message = (
                f"The field {found!r:.100} is not accepted: this server takes no tensors from "
                f"requests, and no cache_salt that begins with {SALT!r}. Leave it out."
            )
            return await _refuse(send, 400, message, found[:100])
        await self._app(scope, _replay(body, receive), send)


def forbidden_field(body: bytes) -> str | None:
    """Return the name of the first field of a JSON body that is refused; None if there is none.

    A body that is not JSON, such as the upload of a file, has no fields. What the client says of
    its type does not matter, because not every route of vLLM asks for it.
    """
    found: list[str] = []

    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # Sees a key that is given twice, too. An empty value of a tensor field carries nothing.
        for key, value in pairs:
            if key.endswith(_TENSORS) and value is not None:
                found.append(key)
            elif key == "type" and isinstance(value, str) and value.endswith(_TENSORS):
                found.append(value)
            elif key == "cache_salt" and str(value).startswith(SALT):
                found.append(key)
        return dict(pairs)

    try:
        # Other parsers take integers of any length, which Python's refuses.
        json.loads(body, object_pairs_hook=check, parse_int=len)
    except RecursionError:
        return "(nested too deeply)"
    except ValueError:
        return None
    return found[0] if found else None


async def _read(receive: Receive) -> bytes | None:
    """Return the body; None if it is too large."""
    parts, size = [], 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            return None
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return what gives the application the body that was read, then what follows it."""
    waiting = [body]

    async def replayed() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replayed


async def _refuse(send: Send, status: int, message: str, param: str | None) -> None:
    error = {"message": message, "type": "BadRequestError", "param": param, "code": status}
    data = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(data))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})
