"""The text of one row as its tokens come: only what later tokens cannot change is released."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from softhub.inference.generation import before_stop
from softhub.inference.options import end_tokens
from softhub.inference.processors import Row, RowProcessors
from softhub.inference.requests import Request
from softhub.model.base import BaseModel

REPLACEMENT = "�"
"""What a tokenizer decodes the first bytes of a character to."""


@dataclass(frozen=True)
class TokenLogprob:
    """A generated token and its log-probability, before temperature and the like.

    Attributes:
        token: Token id.
        text: Its text; those of a text's tokens, joined, are the text, except within characters
            of several tokens.
        logprob: Its log-probability.
        top: The most probable tokens at this position, as pairs of text and log-probability.
    """

    token: int
    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class StreamedText:
    """New text of one row.

    Attributes:
        row: Index of the row.
        text: What follows the texts before; may be empty.
        logprobs: The tokens generated since, if `logprobs` was requested. At the end of a row they
            may include tokens whose text is not shown, such as those of a stop string.
        tokens: Number of tokens generated for the row so far.
        finish_reason: `"stop"` after the end-of-sequence token or a stop string, `"length"` after
            `max_new_tokens`; None if the row goes on.
    """

    row: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    tokens: int = 0
    finish_reason: str | None = None


class TextStream:
    """One row of a running batch: its tokens so far, and how much of its text is released.

    Args:
        base: The base model.
        request: The row.
        key: Number of the row in what is streamed.

    Raises:
        ConfigError: transformers rejects the value of an option.
    """

    def __init__(self, base: BaseModel, request: Request, key: int) -> None:
        self.request = request
        self.key = key
        self.options = dict(request.options)
        self.tokens: list[int] = []
        self.finish_reason: str | None = None
        self._encoder = base.encoder
        self._stop: tuple[str, ...] = self.options.get("stop", ())
        self._ends = end_tokens(self.options)
        self._ids = request.shown_ids
        row = Row(self._ids, request.seed)
        self._processors = RowProcessors(base, [row], self.options, len(self._ids))
        self._released = 0  # characters
        self._logprobs: list[TokenLogprob] = []

    def advance(self, best: int, logits: torch.Tensor) -> StreamedText | None:
        """Add the row's next token; return new text, if there is any or the row has ended.

        Args:
            best: The most probable token.
            logits: `[V]`, float32.
        """
        token = self._chosen(logits) if self._processors.have_effect else best
        self.tokens.append(token)
        if self.request.logprobs is not None:
            self._logprobs.append(self._logprob(token, logits, self.request.logprobs))
        text = self._text()[self._released :]  # no stop string begins before
        if token in self._ends or any(string in text for string in self._stop):
            self.finish_reason = "stop"
        elif len(self.tokens) >= self.options["max_new_tokens"]:
            self.finish_reason = "length"
        return self._release(text)

    def finish(self, tokens: Sequence[int]) -> StreamedText:
        """Return the text of a row that `generate` has continued as a whole.

        Args:
            tokens: The new tokens.
        """
        self.tokens = list(tokens)
        text = self._text()
        ended = not self._ends.isdisjoint(self.tokens[-1:])
        stopped = ended or any(string in text for string in self._stop)
        self.finish_reason = "stop" if stopped else "length"
        shown = before_stop(self._stop, text)
        return StreamedText(self.key, shown, (), len(self.tokens), self.finish_reason)

    def _text(self) -> str:
        return self._encoder.decode([self.tokens])[0]

    def _chosen(self, logits: torch.Tensor) -> int:
        ids: Any = torch.tensor([[*self._ids, *self.tokens]], device=logits.device)  # [1, L]
        return int(self._processors(ids, logits.unsqueeze(0)).argmax())

    def _release(self, text: str) -> StreamedText | None:
        """Release of a text that was held back what later tokens cannot change."""
        new = before_stop(self._stop, text)
        if not self.finish_reason:
            new = new.rstrip(REPLACEMENT)
            new = new[: len(new) - _possible_stop(self._stop, new)]
        if not (new or self.finish_reason):
            return None
        self._released += len(new)
        logprobs, self._logprobs = tuple(self._logprobs), []
        return StreamedText(self.key, new, logprobs, len(self.tokens), self.finish_reason)

    def _logprob(self, token: int, logits: torch.Tensor, count: int) -> TokenLogprob:
        logprobs = logits.log_softmax(dim=-1)  # [V]
        most = logprobs.topk(min(count, logprobs.shape[0]))
        tokens = [token, *most.indices.tolist()]
        text, *texts = self._encoder.shown(tokens, first=len(self.tokens) == 1)
        top = tuple(zip(texts, most.values.tolist(), strict=True))
        return TokenLogprob(token, text, float(logprobs[token]), top)


def _possible_stop(stop: Sequence[str], text: str) -> int:
    """Return the length of the longest end of a text with which a stop string may begin."""
    longest = max(map(len, stop), default=0)
    for start in range(max(0, len(text) - longest + 1), len(text)):
        end = text[start:]
        if any(string.startswith(end) for string in stop):
            return len(end)
    return 0
