"""Ask several prompts the same text in one mixed batch, and follow their answers."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from softhub.inference.prediction import Prediction
from softhub.serving.context import Context, log_failure
from softhub.serving.errors import ApiError, as_api_error
from softhub.serving.protocol import Row, ServedPrompt

MOST_PROMPTS = 6
_MOST_TRY_OUTS = 200
_LONGEST_WAIT = 10.0
"""Seconds for which a page waits for new text before it asks again."""


@dataclass
class Column:
    """The answer of one prompt as it grows.

    Attributes:
        name: The name of the prompt.
        text: Generated text so far; None for a classification.
        prediction: Label and probabilities of a classification.
        done: Whether the answer is complete.
    """

    name: str
    text: str | None = None
    prediction: Prediction | None = None
    done: bool = False

    @property
    def bars(self) -> list[tuple[str, float]]:
        """Labels and probabilities, most probable first."""
        found = self.prediction.probabilities if self.prediction else {}
        return sorted(found.items(), key=lambda item: -item[1])


@dataclass
class TryOut:
    """The answers to one text.

    Attributes:
        text: The text.
        columns: The answer of each prompt.
        error: Why there are no answers.
        id: Under which the page follows it.
        version: Number of changes so far.
    """

    text: str
    columns: list[Column]
    error: str | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    version: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def done(self) -> bool:
        """Whether all answers are complete."""
        return self.error is not None or all(column.done for column in self.columns)

    def change(self) -> None:
        """Let those go on that wait for a change."""
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed_since(self, version: int) -> None:
        """Wait until there is a later version than one that was seen, but not for ever."""
        if self.version <= version and not self.done:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _LONGEST_WAIT)


class TryOuts:
    """Runs try-outs, and keeps the latest so that the page can follow them.

    Args:
        context: The server.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._latest: OrderedDict[str, tuple[TryOut, asyncio.Task[None]]] = OrderedDict()

    async def start(self, text: str, names: Sequence[str]) -> TryOut:
        """Send a text to each prompt.

        Raises:
            ApiError: There is no text, or there are too few or too many prompts.
        """
        if not text.strip():
            raise ApiError(400, "There is no text: write one to try the prompts on.")
        if not 1 <= len(names) <= MOST_PROMPTS:
            raise ApiError(400, f"Choose from 1 to {MOST_PROMPTS} prompts.")
        prompts = [await self._context.names.find(name) for name in names]
        try_out = TryOut(text, [_column(prompt) for prompt in prompts])
        task = asyncio.ensure_future(self._run(try_out, prompts))
        self._latest[try_out.id] = (try_out, task)
        while len(self._latest) > _MOST_TRY_OUTS:
            self._latest.popitem(last=False)[1][1].cancel()
        return try_out

    async def finish(self, try_out: TryOut) -> None:
        """Wait until a try-out is complete."""
        await self._latest[try_out.id][1]

    def find(self, id: str) -> TryOut:
        """Return a try-out.

        Raises:
            ApiError: It is no longer kept.
        """
        if id not in self._latest:
            raise ApiError(404, "These answers have expired; submit the text again.")
        return self._latest[id][0]

    async def _run(self, try_out: TryOut, prompts: Sequence[ServedPrompt]) -> None:
        pairs = list(zip(try_out.columns, prompts, strict=True))
        labels = [pair for pair in pairs if pair[0].text is None]
        texts = [pair for pair in pairs if pair[0].text is not None]
        work = asyncio.gather(self._classify(try_out, labels), self._write(try_out, texts))
        try:
            await asyncio.wait_for(work, self._context.limits.seconds)
        except Exception as error:
            log_failure(error, {"route": "/try"})
            try_out.error = as_api_error(error).detail
            try_out.change()

    async def _classify(
        self, try_out: TryOut, pairs: Sequence[tuple[Column, ServedPrompt]]
    ) -> None:
        if not pairs:
            return
        rows = [Row(try_out.text, prompt) for _, prompt in pairs]
        found = await self._context.engine.classify(rows)
        for (column, _), answer in zip(pairs, found, strict=True):
            column.prediction, column.done = answer.prediction, True
        try_out.change()

    async def _write(self, try_out: TryOut, pairs: Sequence[tuple[Column, ServedPrompt]]) -> None:
        if not pairs:
            return
        rows = [Row(try_out.text, prompt) for _, prompt in pairs]
        options = [self._context.limited(prompt, {}, 1) for _, prompt in pairs]
        generation = await self._context.engine.generate(rows, options)
        try:
            async for new in generation:
                column = pairs[new.row][0]
                column.text = (column.text or "") + new.text
                column.done = new.finish_reason is not None
                try_out.change()
        finally:
            generation.close()


def _column(prompt: ServedPrompt) -> Column:
    classifies = prompt.task is not None and prompt.task.kind == "classification"
    return Column(prompt.name, None if classifies else "")
