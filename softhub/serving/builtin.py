"""The built-in engine: one thread owns the model, and answers what has arrived as mixed batches.

While a batch runs, further rows arrive and make up the next one, so nothing waits for a batch to
fill. Between two batches of rows to score, the running texts advance by one token.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from softhub.adapter.adapter import Adapter
from softhub.errors import ConfigError
from softhub.inference.continuous_batch import ContinuousBatch
from softhub.inference.engine import PromptModel
from softhub.inference.options import resolve_options
from softhub.inference.requests import Request, with_seeds
from softhub.inference.scheduling import PassCost, choose_batch
from softhub.inference.scored_batches import computed_tokens
from softhub.inference.streaming import StreamedText
from softhub.model.prompt import SoftPrompt
from softhub.serving.protocol import (
    Classified,
    EngineState,
    QueueFull,
    Row,
    Scored,
    ServedPrompt,
)

_log = logging.getLogger("softhub.serving")

_WINDOW = 4
"""Batches of waiting rows from which the next batch is chosen."""


@dataclass(eq=False)
class _Scoring:
    """A row to classify or to score."""

    request: Request
    answer: Callable[[Sequence[Request]], Sequence[Any]]
    future: Future[Any]


@dataclass(eq=False)
class _Continuing:
    """A row to continue."""

    request: Request
    key: int
    generation: BuiltInGeneration


class BuiltInGeneration:
    """Texts of one request, read on an event loop while the engine's thread writes them."""

    def __init__(self, engine: BuiltInEngine, keys: Sequence[int], prompt_tokens: int):
        self.prompt_tokens = prompt_tokens
        self._engine = engine
        self._index = {key: index for index, key in enumerate(keys)}
        self._open = len(keys)
        self._texts: asyncio.Queue[StreamedText | Exception] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def __aiter__(self) -> BuiltInGeneration:
        """Return itself."""
        return self

    async def __anext__(self) -> StreamedText:
        """Return new text of one row, or raise what went wrong."""
        if not self._open:
            raise StopAsyncIteration
        text = await self._texts.get()
        if isinstance(text, Exception):
            self._open = 0
            raise text
        self._open -= text.finish_reason is not None
        return text

    def close(self) -> None:
        """Stop the rows that have not ended."""
        if self._open:
            self._engine.cancel(self._index)
        self._open = 0

    def deliver(self, text: StreamedText | Exception) -> None:
        """Hand over new text; called by the engine's thread."""
        if isinstance(text, StreamedText):
            row = self._index[text.row]
            text = StreamedText(row, text.text, text.logprobs, text.tokens, text.finish_reason)
        try:
            self._loop.call_soon_threadsafe(self._texts.put_nowait, text)
        except RuntimeError:  # the loop is closed, so nobody reads
            self._engine.cancel(self._index)


class BuiltInEngine:
    """Implements `softhub.serving.protocol.Engine` with a `PromptModel`.

    Args:
        model: The model; only the engine's thread runs it.
        batch_size: Maximum number of rows in a batch, and of rows that are continued at a time.
        queue: Maximum number of rows that wait.
    """

    def __init__(self, model: PromptModel, *, batch_size: int = 32, queue: int = 512) -> None:
        if batch_size < 1 or queue < 1:
            raise ConfigError(f"batch_size is {batch_size} and queue {queue}; expected 1 or more.")
        self.model = model
        self._batch_size = batch_size
        self._queue = queue
        self._keys = count()
        self._changed = threading.Condition()  # guards the four below
        self._to_score: deque[_Scoring] = deque()
        self._to_continue: deque[_Continuing] = deque()
        self._cancelled: set[int] = set()
        self._closing = False
        # Only the engine's thread changes these.
        self._window: list[_Scoring] = []
        self._scoring = 0  # rows of the batch that is being scored
        self._pass_cost = PassCost()
        self._batch = self._new_batch()
        self._running: dict[int, _Continuing] = {}
        self._rate = 0.0  # rows answered per second, smoothed
        # One thread tokenizes, so that long texts do not hold up the event loop.
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="softhub-tokenizer")
        self._thread = threading.Thread(target=self._run, name="softhub-engine", daemon=True)
        self._thread.start()

    @property
    def base_name(self) -> str:
        """The base model's canonical name."""
        return self.model.base.name

    @property
    def prompts(self) -> tuple[str, ...]:
        """Names of the loaded prompts."""
        return self.model.prompts

    def find(self, name: str | None, shown: str) -> ServedPrompt:
        """Return the prompt that is loaded under a name now; None is the bare base.

        Raises:
            PromptNotLoaded: There is none.
        """
        loaded = self.model.find(name)
        prepared = loaded.prepared if loaded else None
        return ServedPrompt(shown, loaded, prepared.task if prepared else None)

    def load(self, name: str, adapter: Adapter, *, force: bool = False) -> None:
        """Load a checked adapter; requests under way keep the prompt that it replaces."""
        self.model.load_prompt(SoftPrompt.from_adapter(adapter), name=name, force=force)

    def unload(self, name: str) -> None:
        """Unload a prompt; requests under way keep it."""
        self.model.unload_prompt(name)

    def state(self) -> EngineState:
        """Return how busy it is."""
        with self._changed:
            waiting = self._waiting()
            ready = self._thread.is_alive() and not self._closing
        running = len(self._running) + self._scoring
        return EngineState(waiting, running, ready, self.model.memory())

    # --- what requests call, on the event loop ---

    async def classify(
        self, rows: Sequence[Row], *, abstain_below: float | None = None
    ) -> list[Classified]:
        """Classify rows, in batches with those of other requests."""
        requests = await self._tokenized(
            lambda row: self.model.requests.classification(
                row.text, row.prompt.handle, None, abstain_below=abstain_below
            ),
            rows,
        )
        found = await self._scored(requests, self.model.predict_batch)
        return [
            Classified(prediction, request.length, request.text.truncated)
            for prediction, request in zip(found, requests, strict=True)
        ]

    async def score(self, rows: Sequence[Row], targets: Sequence[str]) -> list[Scored]:
        """Score a reference text after each row."""
        requests = await self._tokenized(
            lambda pair: self.model.requests.reference(
                pair[0].text, pair[1], pair[0].prompt.handle, None
            ),
            list(zip(rows, targets, strict=True)),
        )
        found = await self._scored(requests, self.model.score_batch)
        return [
            Scored(logprobs, request.length, request.text.truncated)
            for logprobs, request in zip(found, requests, strict=True)
        ]

    def resolved(self, prompt: ServedPrompt, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return options of `generate` with those of the prompt and the base, and defaults.

        Raises:
            ConfigError: An option is not supported.
        """
        task = prompt.task.generation if prompt.task else {}
        return resolve_options(self.model.base, task, options)

    async def generate(
        self,
        rows: Sequence[Row],
        options: Sequence[Mapping[str, Any]],
        *,
        n: int = 1,
        seed: int | None = None,
        logprobs: int | None = None,
    ) -> BuiltInGeneration:
        """Accept rows to continue, each with its options, and return their texts as a stream.

        With `n` answers for each row, text `i * n + j` is answer j of row i.

        Raises:
            TextTooLong: A text does not fit with its prompt and its answer.
        """
        encoded = await self._tokenized(
            lambda pair: self.model.requests.generation(
                pair[0].text, pair[0].prompt.handle, None, pair[1], truncate=False
            ),
            list(zip(rows, options, strict=True)),
        )
        requests = with_seeds([request for request in encoded for _ in range(n)], seed)
        keys = [next(self._keys) for _ in requests]
        generation = BuiltInGeneration(self, keys, sum(request.length for request in encoded))
        rows_of = [
            _Continuing(replace(request, logprobs=logprobs), key, generation)
            for request, key in zip(requests, keys, strict=True)
        ]
        with self._changed:
            self._admit(len(rows_of))
            self._to_continue.extend(rows_of)
            self._changed.notify()
        return generation

    def cancel(self, keys: Mapping[int, Any]) -> None:
        """Stop rows that nobody waits for."""
        with self._changed:
            self._cancelled.update(keys)
            self._changed.notify()

    def close(self) -> None:
        """Answer what was accepted, and stop."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._tokenizing.shutdown()

    async def _tokenized(
        self, encode: Callable[[Any], Request], rows: Sequence[Any]
    ) -> list[Request]:
        """Tokenize rows one by one, so that a request that is cancelled ends between two."""
        loop = asyncio.get_running_loop()
        return [await loop.run_in_executor(self._tokenizing, encode, row) for row in rows]

    async def _scored(
        self, requests: Sequence[Request], answer: Callable[[Sequence[Request]], Sequence[Any]]
    ) -> list[Any]:
        rows = [_Scoring(request, answer, Future()) for request in requests]
        with self._changed:
            self._admit(len(rows))
            self._to_score.extend(rows)
            self._changed.notify()
        return list(await asyncio.gather(*(asyncio.wrap_future(row.future) for row in rows)))

    def _waiting(self) -> int:
        return len(self._to_score) + len(self._window) + len(self._to_continue)

    def _admit(self, rows: int) -> None:
        """Refuse rows for which the queue has no room."""
        waiting = self._waiting()
        if not (self._closing or self._thread.is_alive()):
            raise RuntimeError(
                "The engine's thread has ended after an error that the log shows, so nothing can "
                "be answered; restart the server."
            )
        if self._closing:
            raise QueueFull("The server is shutting down; send the request to another.", 5)
        if rows > self._queue:
            raise ConfigError(
                f"The request has {rows} rows, and the queue holds {self._queue}; divide the "
                "request, or start the server with a larger --queue."
            )
        if waiting + rows > self._queue:
            seconds = waiting / self._rate if self._rate else 1.0
            raise QueueFull(
                f"The queue is full: {waiting} of at most {self._queue} rows are waiting, and this "
                f"request has {rows}. Retry later, or send fewer rows.",
                retry_after=max(1, min(60, round(seconds))),
            )

    # --- the engine's thread ---

    def _run(self) -> None:
        while self._has_work():
            started, answered = time.monotonic(), 0
            try:
                self._drop_cancelled()
                answered += self._score_next()
                answered += self._continue()
            except Exception as error:
                self._fail(error)
            elapsed = max(time.monotonic() - started, 1e-6)
            self._rate = 0.9 * self._rate + 0.1 * answered / elapsed

    def _has_work(self) -> bool:
        """Wait for rows, and move those to score to the window; return whether there are any."""
        with self._changed:
            while not (self._waiting() or self._running or self._closing):
                self._changed.wait()
            size = min(len(self._to_score), _WINDOW * self._batch_size - len(self._window))
            self._window += [self._to_score.popleft() for _ in range(size)]
            return bool(self._waiting() or self._running)

    def _drop_cancelled(self) -> None:
        with self._changed:
            keys, self._cancelled = self._cancelled, set()
            if keys:
                self._to_continue = deque(row for row in self._to_continue if row.key not in keys)
        running = [key for key in keys if self._running.pop(key, None)]
        self._batch.cancel(running)

    def _score_next(self) -> int:
        """Answer one batch of the window; return the number of its rows."""
        if not self._window:
            return 0
        answer = self._window[0].answer
        alike = [row for row in self._window if row.answer == answer]
        lengths = self._lengths([row.request for row in alike])
        chosen = choose_batch(lengths, self._batch_size, self._pass_cost.tokens)
        batch = {alike[index]: lengths[index] for index in chosen}
        self._window = [row for row in self._window if row not in batch]
        rows = [row for row in batch if row.future.set_running_or_notify_cancel()]
        if rows:
            started = time.monotonic()
            self._scoring = len(rows)
            _answer(rows)
            self._scoring = 0
            columns = max(batch[row] for row in rows)
            self._pass_cost.observe(len(rows) * columns, time.monotonic() - started)
        return len(rows)

    def _lengths(self, requests: Sequence[Request]) -> list[int]:
        try:
            return computed_tokens(self.model.base, requests)
        except Exception:  # asking the base failed, which these rows will report when they run
            return [request.length for request in requests]

    def _continue(self) -> int:
        """Advance all rows by a token, and let others join; return how many have ended."""
        ended, free = 0, self._batch_size - len(self._batch)
        # A step of few rows would delay many that join.
        if min(len(self._to_continue), free) <= len(self._batch):
            ended += self._deliver(self._batch.step())
        with self._changed:
            free = min(len(self._to_continue), self._batch_size - len(self._batch))
            joining = [self._to_continue.popleft() for _ in range(free)]
        self._running.update({row.key: row for row in joining})
        return ended + self._deliver(self._add(joining))

    def _deliver(self, texts: Sequence[StreamedText]) -> int:
        """Hand over new texts; return the number of rows that ended."""
        ended = [text.row for text in texts if text.finish_reason]
        for text in texts:
            self._running[text.row].generation.deliver(text)
        for key in ended:
            del self._running[key]
        return len(ended)

    def _add(self, rows: Sequence[_Continuing]) -> list[StreamedText]:
        if not rows:
            return []
        before = len(self._batch)
        try:
            return self._batch.add([row.request for row in rows], [row.key for row in rows])
        except Exception as error:
            if len(self._batch) > before:  # they have joined, and could not be removed
                raise
            if len(rows) > 1:  # one of them is at fault, and not the others
                return [text for row in rows for text in self._add([row])]
            del self._running[rows[0].key]
            rows[0].generation.deliver(error)
            return []

    def _fail(self, error: Exception) -> None:
        """Give up all rows that were taken, e.g. when memory is exhausted; start a new batch."""
        taken = len(self._running) + len(self._window)
        _log.error("The engine gave up %d rows", taken, exc_info=error)
        for row in self._running.values():
            row.generation.deliver(error)
        for waiting in self._window:
            if waiting.future.set_running_or_notify_cancel():
                waiting.future.set_exception(error)
        self._running.clear()
        self._window.clear()
        self._batch = self._new_batch()

    def _new_batch(self) -> ContinuousBatch:
        # Read without the lock: a key that is seen a token later costs no more than that token.
        return ContinuousBatch(self.model.base, is_cancelled=lambda key: key in self._cancelled)


def _answer(rows: Sequence[_Scoring]) -> None:
    """Answer rows as one batch; if it fails, each alone, so that only the row at fault fails."""
    try:
        answers = rows[0].answer([row.request for row in rows])
    except Exception as error:
        if len(rows) == 1:
            rows[0].future.set_exception(error)
            return
        for row in rows:
            _answer([row])
        return
    for row, found in zip(rows, answers, strict=True):
        row.future.set_result(found)
