"""JSON of completions and chat completions, whole and as chunks of a stream."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from softhub.inference.streaming import REPLACEMENT, StreamedText, TokenLogprob


@dataclass
class Choice:
    """One answer as it grows."""

    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    tokens: int = 0
    finish_reason: str | None = None

    def add(self, new: StreamedText) -> None:
        """Append new text."""
        self.text += new.text
        self.logprobs += new.logprobs
        self.tokens = new.tokens
        self.finish_reason = new.finish_reason


@dataclass(frozen=True)
class AnswerFormat:
    """Builds the JSON of one request.

    Attributes:
        model: The name that the request used.
        chat: Whether it is a chat completion.
        logprobs: Whether log-probabilities were requested.
        id: Identifies the answer.
        created: Seconds since 1970.
    """

    model: str
    chat: bool
    logprobs: bool
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, choices: Sequence[Choice], usage: dict[str, int]) -> dict[str, Any]:
        """Return a complete answer."""
        kind = "chat.completion" if self.chat else "text_completion"
        return {
            **self._head(kind),
            "choices": [self._choice(index, choice) for index, choice in enumerate(choices)],
            "usage": usage,
        }

    def first_chunk(self, index: int) -> dict[str, Any]:
        """Return the chunk that begins an answer of a chat."""
        return self._chunk([_chat_chunk(index, {"role": "assistant", "content": ""}, None)])

    def chunk(self, new: StreamedText) -> dict[str, Any]:
        """Return a chunk with new text."""
        logprobs = self._logprobs(new.logprobs)
        if not self.chat:
            choice: dict[str, Any] = {"index": new.row, "text": new.text}
            choice |= {"finish_reason": new.finish_reason, "logprobs": logprobs}
            return self._chunk([choice])
        delta = {"content": new.text} if new.text else {}
        choice = _chat_chunk(new.row, delta, new.finish_reason)
        return self._chunk([{**choice, "logprobs": logprobs}])

    def usage_chunk(self, usage: dict[str, int]) -> dict[str, Any]:
        """Return the chunk that ends a stream with the number of tokens."""
        return {**self._chunk([]), "usage": usage}

    def _head(self, kind: str) -> dict[str, Any]:
        prefix = "chatcmpl" if self.chat else "cmpl"
        return {
            "id": f"{prefix}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
        }

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {**self._head(kind), "choices": choices}

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        common = {
            "index": index,
            "finish_reason": choice.finish_reason,
            "logprobs": self._logprobs(choice.logprobs),
        }
        if self.chat:
            return {**common, "message": {"role": "assistant", "content": choice.text}}
        return {**common, "text": choice.text}

    def _logprobs(self, tokens: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        if self.chat:
            return {"content": [_chat_token(token) for token in tokens]}
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [_by_text(token.top) for token in tokens],
        }


def _by_text(top: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Return log-probabilities by text; of several tokens with one text, the most probable's."""
    found: dict[str, float] = {}
    for text, logprob in top:  # most probable first
        found.setdefault(text, logprob)
    return found


def _chat_chunk(index: int, delta: dict[str, str], finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish_reason}


def _chat_token(token: TokenLogprob) -> dict[str, Any]:
    own = _shown(token.text, token.logprob)
    return {**own, "top_logprobs": [_shown(text, value) for text, value in token.top]}


def _shown(text: str, logprob: float) -> dict[str, Any]:
    # A part of a character is decoded to a replacement character, whose bytes are not its own.
    known = None if REPLACEMENT in text else list(text.encode())
    return {"token": text, "logprob": logprob, "bytes": known}
