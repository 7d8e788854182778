"""The text of one row as its tokens come: only what later tokens cannot change is released."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from softhub.inference.generation import before_stop, decode_literally, stop_strings
from softhub.inference.requests import Request
from softhub.inference.sampling import Sampler, TokenLogprob
from softhub.model.base import BaseModel

_INCOMPLETE = "�"
"""What a tokenizer decodes the first bytes of a character to."""


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
        options: Its options, with the tokens that end a row.
    """

    def __init__(
        self, base: BaseModel, request: Request, key: int, options: Mapping[str, Any]
    ) -> None:
        self.request = request
        self.key = key
        self.options = options
        self.tokens: list[int] = []
        self.finish_reason: str | None = None
        self._tokenizer = base.tokenizer
        self._stop = stop_strings(options.get("stop") or ())
        self._ends = frozenset(_as_list(options.get("eos_token_id")))
        self._sampler = Sampler.of(options, base.device)
        self._released = ""
        self._logprobs: list[TokenLogprob] = []

    def advance(self, best: int, logits: torch.Tensor) -> StreamedText | None:
        """Add the row's next token; return new text, if there is any or the row has ended.

        Args:
            best: The most probable token.
            logits: `[V]`, float32.
        """
        token = best
        if self._sampler.do_sample or self._sampler.processors:
            token = self._sampler.choose([*self.request.text.ids, *self.tokens], logits)
        self.tokens.append(token)
        if self.options.get("logprobs") is not None:
            self._logprobs.append(self._logprob(token, logits))
        text = self._text()
        if token in self._ends or any(string in text for string in self._stop):
            self.finish_reason = "stop"
        elif len(self.tokens) >= int(self.options["max_new_tokens"]):
            self.finish_reason = "length"
        return self._release(text)

    def finish(self, tokens: Sequence[int]) -> StreamedText:
        """Return the text of a row that `generate` has continued as a whole.

        Args:
            tokens: New tokens, padded after the row's end.
        """
        ends = (index for index, token in enumerate(tokens, start=1) if token in self._ends)
        self.tokens = list(tokens[: next(ends, len(tokens))])
        text = self._text()
        ended = self.tokens[-1:] and self.tokens[-1] in self._ends
        stopped = ended or any(string in text for string in self._stop)
        self.finish_reason = "stop" if stopped else "length"
        return StreamedText(
            self.key,
            before_stop(self._stop, text),
            tokens=len(self.tokens),
            finish_reason=self.finish_reason,
        )

    def _text(self) -> str:
        return decode_literally(self._tokenizer, [self.tokens])[0]

    def _release(self, text: str) -> StreamedText | None:
        sure = before_stop(self._stop, text)
        if not self.finish_reason:
            sure = sure.rstrip(_INCOMPLETE)
            sure = sure[: len(sure) - _possible_stop(self._stop, sure)]
        new = sure[len(self._released) :]
        if not (new or self.finish_reason):
            return None
        self._released += new
        logprobs, self._logprobs = tuple(self._logprobs), []
        return StreamedText(self.key, new, logprobs, len(self.tokens), self.finish_reason)

    def _logprob(self, token: int, logits: torch.Tensor) -> TokenLogprob:
        logprobs = logits.log_softmax(dim=-1)  # [V]
        most = logprobs.topk(min(int(self.options["logprobs"]), logprobs.shape[0]))
        top = zip(most.indices.tolist(), most.values.tolist(), strict=True)
        shown = tuple((self._shown(index), value) for index, value in top)
        return TokenLogprob(token, self._shown(token), float(logprobs[token]), shown)

    def _shown(self, token: int) -> str:
        return str(self._tokenizer.decode([token], clean_up_tokenization_spaces=False))


def _possible_stop(stop: Sequence[str], text: str) -> int:
    """Return the length of the longest end of a text with which a stop string may begin."""
    return max(
        (
            size
            for string in stop
            for size in range(1, min(len(string), len(text) + 1))
            if text.endswith(string[:size])
        ),
        default=0,
    )


def _as_list(value: int | Sequence[int] | None) -> Sequence[int]:
    if value is None:
        return ()
    return [value] if isinstance(value, int) else list(value)
