"""Limits on requests, and the middleware that reads no more of a body than they allow."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import ceil
from typing import TYPE_CHECKING

from softhub.errors import ConfigError
from softhub.serving.errors import ApiError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from softhub.tasks import Task


_WORDS = 128
"""Label words that count as one row."""

_DISCARDED = 8
"""How many times the limit is read and discarded of a body that is too large."""


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Attributes:
        body_bytes: Maximum size of a body.
        rows: Maximum number of rows: inputs, times `n`, times the beams of the prompt's task; to
            classify more than one, times `rows_of_labels`.
        new_tokens: Maximum of `max_tokens`, and of what a request that names none gets.
        seconds: Maximum time until the answer is complete.
        queue: Maximum number of rows that wait for the engine, of all requests together.
    """

    body_bytes: int = 2**20
    rows: int = 128
    new_tokens: int = 1024
    seconds: int = 300
    queue: int = 512

    def __post_init__(self) -> None:
        """Check all numbers.

        Raises:
            ConfigError: One is not positive.
        """
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise ConfigError(
                    f"The limit {field.name} is {getattr(self, field.name)}; expected 1 or more."
                )

    def check_rows(self, texts: int, field: str, *, each: int = 1, why: str = "") -> None:
        """Refuse a request of too many rows.

        Args:
            texts: Number of texts.
            field: The field of the request that has them.
            each: How many rows each text counts as.
            why: Which part of the prompt's task makes it more than one.

        Raises:
            ApiError: It has more than the limit.
        """
        if texts * each > self.rows:
            found = f"{texts * each} rows"
            if each > 1:
                found += f", {each} for each text ({why} of the prompt's task)"
            raise ApiError(
                400,
                f"The request has {found}, and the limit is {self.rows}; divide the request, or "
                "start the server with a larger --max-rows.",
                param=field,
            )

    def check_labels(self, task: Task | None, texts: int, field: str) -> None:
        """Refuse to classify texts that take longer than the rows of a request; one never does.

        Args:
            task: The task of the prompt.
            texts: Number of texts.
            field: The field of the request that has them.

        Raises:
            ApiError: They do.
        """
        if task is not None and texts > 1:
            self.check_rows(texts, field, each=rows_of_labels(task), why="the label words")

    def new_tokens_of(self, asked: int | None, resolved: int, field: str) -> int:
        """Return how long a text may be: a default above the limit is lowered to it.

        Args:
            asked: What the request itself asks for.
            resolved: The same, or the default.
            field: The field of the request that asks for them.

        Raises:
            ApiError: The request itself asks for more tokens than the limit.
        """
        if asked is not None and asked > self.new_tokens:
            raise ApiError(
                400,
                f"{field} is {asked}, and the limit is {self.new_tokens}; ask for fewer tokens, "
                "or start the server with a larger --max-new-tokens.",
                param=field,
            )
        return min(resolved, self.new_tokens)


def rows_of_labels(task: Task) -> int:
    """Return how many rows a text to classify counts as, because the label words run after it.

    `_WORDS` words of up to 32 characters count as one.
    """
    if task.verbalizer is None:
        return 1
    words = [word for _, each in task.verbalizer.words for word in each]
    answers = len(task.yes_no) if task.multilabel else 1
    size = max(len(words), sum(map(len, words)) / 32) / _WORDS
    return max(1, ceil(size * answers))


class BodyLimit:
    """Refuses a body that is larger than the limit, before all of it has been read.

    Args:
        app: The application.
        most: Maximum number of bytes.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                await self._refuse(receive, message.get("more_body", False))
            return message

        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._most:
            await self._refuse(receive, True)
        await self._app(scope, limited, send)

    async def _refuse(self, receive: Receive, more: bool) -> None:
        """Discard some more of the body, since a client that still sends reads no answer."""
        read = 0
        while more and read <= _DISCARDED * self._most:
            message = await receive()
            read += len(message.get("body", b""))
            more = message.get("more_body", False)
        raise ApiError(
            413, f"The body is larger than the limit of {self._most} bytes; divide the request."
        )
