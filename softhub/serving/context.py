"""What routes share: the engine, the names, the limits, and how an answer is awaited."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from softhub.inference.streaming import StreamedText
from softhub.serving.errors import as_api_error
from softhub.serving.limits import Limits
from softhub.serving.metrics import ServerMetrics
from softhub.serving.names import ServedNames
from softhub.serving.protocol import Engine, Generation, ServedPrompt

_log = logging.getLogger("softhub.serving")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Context:
    """What a server consists of."""

    engine: Engine
    names: ServedNames
    limits: Limits
    metrics: ServerMetrics

    async def wait(self, request: Request, answer: Coroutine[Any, Any, _Answer]) -> _Answer:
        """Wait for an answer, as long as the client does and the time limit allows.

        Raises:
            ClientDisconnect: The client has left.
            TimeoutError: The limit has passed.
        """
        work = asyncio.ensure_future(answer)
        leaving = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait(
                {work, leaving},
                timeout=self.limits.seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if work.done():
                return work.result()
            if leaving.done():
                raise ClientDisconnect
            raise TimeoutError
        finally:
            for task in (work, leaving):
                task.cancel()

    def limited(
        self,
        prompt: ServedPrompt,
        options: Mapping[str, Any],
        rows: int,
        *,
        rows_field: str = "prompt",
        length_field: str = "max_tokens",
    ) -> dict[str, Any]:
        """Return options of `generate` within the limits, also where defaults exceed them.

        Args:
            prompt: The prompt of the rows.
            options: What the request itself asks for.
            rows: Number of rows.
            rows_field: The field of the request that has them.
            length_field: The field that sets the maximum number of new tokens.

        Raises:
            ApiError: The request is above a limit.
        """
        resolved = self.engine.resolved(prompt, options)
        self.limits.check_rows(rows, rows_field, each=resolved.get("num_beams", 1), why="num_beams")
        asked, resolved_length = options.get("max_new_tokens"), resolved["max_new_tokens"]
        length = self.limits.new_tokens_of(asked, resolved_length, length_field)
        return {**options, "max_new_tokens": length}

    async def texts(
        self, generation: Generation, started: float
    ) -> AsyncGenerator[StreamedText, None]:
        """Yield the texts of a request until its time limit; its rows end when this is closed.

        Raises:
            TimeoutError: The limit has passed.
        """
        try:
            while True:
                left = started + self.limits.seconds - time.monotonic()
                try:
                    yield await asyncio.wait_for(generation.__anext__(), max(left, 0.001))
                except StopAsyncIteration:
                    return
                except asyncio.TimeoutError:  # is TimeoutError since Python 3.11
                    raise TimeoutError from None
        finally:
            generation.close()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def log_failure(error: Exception, fields: Mapping[str, Any]) -> None:
    """Log an internal error that the client is told of in an answer that has begun.

    Args:
        error: The error; others than internal ones are not logged.
        fields: Fields of the log line.
    """
    if as_api_error(error).status_code == 500:
        _log.error("A request failed", exc_info=error, extra={"fields": dict(fields)})


def log_fields(request: Request, **fields: Any) -> None:
    """Add fields to the request's log line; never texts."""
    request.state.log.update(fields)
