"""`/v1/completions` and `/v1/chat/completions`, whole and as streams."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any

import anyio
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from starlette.responses import JSONResponse, Response
from starlette.types import Send

from softhub.inference.requests import Conversation, Text
from softhub.serving.answers import AnswerFormat, Choice
from softhub.serving.api_types import ChatBody, CompletionBody, Sampling, as_rows
from softhub.serving.context import Context, log_failure, log_fields
from softhub.serving.errors import ApiError, as_api_error
from softhub.serving.protocol import Generation, Row, ServedPrompt

_SECONDS_TO_READ = 5.0
"""How long a client may read its stream after the time limit, which is an event of it."""


class EventStream(StreamingResponse):
    """A stream that ends some time after the request's limit, even if its client reads nothing.

    Args:
        events: The events.
        deadline: When it ends, in seconds of `time.monotonic`.
    """

    def __init__(self, events: AsyncGenerator[bytes, None], deadline: float) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._events = events
        self._deadline = deadline

    async def stream_response(self, send: Send) -> None:
        """Send the events."""
        left = max(self._deadline - time.monotonic(), 0.001)
        async with aclosing(self._events):
            with anyio.move_on_after(left):  # uvicorn then closes the connection
                await super().stream_response(send)


def generation_routes(context: Context) -> APIRouter:
    """Return the routes that generate text."""
    router = APIRouter()

    @router.post("/v1/completions")
    async def completions(body: CompletionBody, request: Request) -> Response:
        texts: Sequence[Text | Conversation] = as_rows(body.prompt, "prompt")
        prompt = await context.names.find(body.model)
        shape = AnswerFormat(body.model, False, body.logprobs is not None)
        return await _answer(context, request, body, texts, prompt, shape, body.logprobs)

    @router.post("/v1/chat/completions")
    async def chat(body: ChatBody, request: Request) -> Response:
        prompt = await context.names.find(body.model)
        if prompt.task is not None and prompt.task.kind == "classification":
            raise ApiError(
                400,
                f"The model {body.model!r:.200} classifies texts and does not chat: send the text "
                "to /v1/classify.",
                param="model",
            )
        shape = AnswerFormat(body.model, True, bool(body.logprobs))
        top = (body.top_logprobs or 0) if body.logprobs else None
        messages: Conversation = [message.plain() for message in body.messages]
        return await _answer(context, request, body, [messages], prompt, shape, top)

    return router


async def _answer(
    context: Context,
    request: Request,
    body: Sampling,
    texts: Sequence[Text | Conversation],
    prompt: ServedPrompt,
    shape: AnswerFormat,
    logprobs: int | None,
) -> Response:
    started = time.monotonic()
    count = len(texts) * body.n
    options = context.limited(
        prompt,
        body.options(prompt.task.generation if prompt.task else {}),
        count,
        rows_field="n" if body.n > 1 else "messages" if shape.chat else "prompt",
        length_field=body.length_field,
    )
    log_fields(request, model=body.model, rows=count, stream=bool(body.stream))
    accepted = context.engine.generate(
        [Row(text, prompt) for text in texts],
        [options] * len(texts),
        n=body.n,
        seed=body.seed,
        logprobs=logprobs,
    )
    if body.stream:
        generation = await context.wait(request, accepted)
        events = _events(context, request, generation, shape, count, body, started)
        return EventStream(events, started + context.limits.seconds + _SECONDS_TO_READ)
    return await context.wait(request, _whole(context, request, accepted, shape, count))


async def _whole(
    context: Context,
    request: Request,
    accepted: Coroutine[Any, Any, Generation],
    shape: AnswerFormat,
    rows: int,
) -> Response:
    choices = [Choice() for _ in range(rows)]
    generation = await accepted
    try:
        async for new in generation:
            choices[new.row].add(new)
    finally:
        generation.close()
    usage = _usage(context, request, generation, shape, choices)
    return JSONResponse(shape.whole(choices, usage))


async def _events(
    context: Context,
    request: Request,
    generation: Generation,
    shape: AnswerFormat,
    rows: int,
    body: Sampling,
    started: float,
) -> AsyncGenerator[bytes, None]:
    """Yield the events of a stream; an error after its beginning is an event too."""
    choices = [Choice() for _ in range(rows)]
    try:
        if shape.chat:
            for index in range(rows):
                yield _event(shape.first_chunk(index))
        async with aclosing(context.texts(generation, started)) as texts:
            async for new in texts:
                choices[new.row].add(new)
                yield _event(shape.chunk(new))
    except Exception as error:
        log_failure(error, request.state.log)
        failed = as_api_error(error)
        log_fields(request, status=failed.status_code)
        yield _event(failed.body)
        return
    finally:
        generation.close()  # also where the client left before the first text
        usage = _usage(context, request, generation, shape, choices)
    if body.includes_usage:
        yield _event(shape.usage_chunk(usage))
    yield b"data: [DONE]\n\n"


def _event(record: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(record)}\n\n".encode()


def _usage(
    context: Context,
    request: Request,
    generation: Generation,
    shape: AnswerFormat,
    choices: Sequence[Choice],
) -> dict[str, int]:
    prompt, completion = generation.prompt_tokens, sum(choice.tokens for choice in choices)
    context.metrics.count_tokens(shape.model, prompt, completion)
    log_fields(request, prompt_tokens=prompt, completion_tokens=completion)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
