"""Continue a batch of rows with transformers' own `generate`.

A decoder that can share prefixes receives each prompt's keys and values, computed once, as a filled
cache; other models receive the prompts as embeddings before each row. Both give the same text.
transformers chooses the next tokens, by beams or not; what options do to the logits before that is
done row by row, see `processors`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria

from softhub.inference.batching import answer_apart, widest
from softhub.inference.options import Options, end_tokens
from softhub.inference.processors import Row, RowProcessors, generate_with
from softhub.inference.requests import Request, is_prefix, prepared_prompts
from softhub.model.assembly import group_rows, pad_rows
from softhub.model.base import BaseModel
from softhub.model.encoding import Encoder
from softhub.model.generation_inputs import generation_inputs

# The options by which transformers itself runs a batch; all others belong to the processors.
_OF_THE_BATCH = (
    "bos_token_id",
    "decoder_start_token_id",
    "early_stopping",
    "eos_token_id",
    "length_penalty",
    "max_new_tokens",
    "num_beams",
)


@torch.no_grad()
def continue_rows(
    base: BaseModel,
    requests: Sequence[Request],
    *,
    is_cancelled: Callable[[Request], bool] | None = None,
) -> list[list[int]]:
    """Continue rows until the end-of-sequence token, a stop string, or `max_new_tokens`.

    Args:
        base: The base model.
        requests: Rows with equal options, from `resolve_options`.
        is_cancelled: Asked after each token whether a row may end now, since nobody waits for it.

    Returns:
        The new tokens of each row, with the one that ends it.

    Raises:
        ConfigError: transformers rejects the value of an option.
        BaseModelError: The base continues such rows exactly in no way.
    """
    prompted = any(request.prompt for request in requests)
    lengths = [request.length for request in requests]
    answers = base.capabilities.texts(min(lengths), widest(requests), prompted=prompted)
    apart = not answers.from_cache and any(is_prefix(request.prompt) for request in requests)
    if apart and len(requests) > 1:
        return answer_apart(requests, partial(continue_rows, base, is_cancelled=is_cancelled))
    found: dict[int, list[int]] = {}
    for group in group_rows(lengths, answers.batching):
        batch = [requests[row] for row in group]
        tokens = _continue_batch(base, batch, answers.from_cache, is_cancelled)
        found.update(zip(group, tokens, strict=True))
    return [found[row] for row in range(len(requests))]


def _continue_batch(
    base: BaseModel,
    requests: Sequence[Request],
    from_cache: bool,
    is_cancelled: Callable[[Request], bool] | None,
) -> list[list[int]]:
    options = dict(requests[0].options)
    stop = options.get("stop", ())
    prompts = prepared_prompts(base, [each.prompt for each in requests], as_keys=from_cache)
    rows = pad_rows([request.text.ids for request in requests]).to(base.device)  # [B, T]
    own = [Row(request.shown_ids, request.seed) for request in requests]
    inputs = generation_inputs(
        base,
        prompts,
        rows,
        shown=pad_rows([row.ids for row in own]).ids.to(base.device),
        beams=options.get("num_beams", 1),
    )
    # `shown` is where the new tokens begin in what `generate` returns.
    shown = 1 if base.is_encoder_decoder else inputs["attention_mask"].shape[1]
    processors = RowProcessors(base, own, options, shown)
    if processors.have_effect:
        inputs["logits_processor"] = [processors]
    if criteria := [
        *([_StopStrings(base, stop, shown)] if stop else []),
        *([_Cancelled(requests, is_cancelled)] if is_cancelled else []),
    ]:
        inputs["stopping_criteria"] = criteria
    tokens = generate_with(base, _config(base, options), **inputs)  # [B, shown + new]
    return [_up_to_end(base.encoder, row, options) for row in tokens[:, shown:].tolist()]


def _config(base: BaseModel, options: Options) -> GenerationConfig:
    """Return the configuration of a batch, for which transformers adds no processors."""
    tokenizer = base.encoder.tokenizer
    # Rows that end early are padded with a token that decoding skips.
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    chosen = {name: options[name] for name in _OF_THE_BATCH if name in options}
    return GenerationConfig(**chosen, pad_token_id=pad, do_sample=False, use_cache=True)


class _StopStrings(StoppingCriteria):
    """Ends a row when its new text contains a stop string, however the tokens divide it."""

    def __init__(self, base: BaseModel, stop: Sequence[str], shown: int) -> None:
        self._encoder = base.encoder
        self._stop = stop
        self._shown = shown

    def __call__(
        self, input_ids: torch.LongTensor, scores: Any, **options: Any
    ) -> torch.BoolTensor:
        """Return whether each row of `[B, L]` has ended, `[B]`, bool."""
        texts = self._encoder.decode(input_ids[:, self._shown :].tolist())
        ended = [_contains(text, self._stop) for text in texts]
        return torch.BoolTensor(ended).to(input_ids.device)  # type: ignore[return-value]


class _Cancelled(StoppingCriteria):
    """Ends the rows that nobody waits for; the other rows of the batch go on."""

    def __init__(
        self, requests: Sequence[Request], is_cancelled: Callable[[Request], bool]
    ) -> None:
        self._requests = requests
        self._is_cancelled = is_cancelled

    def __call__(
        self, input_ids: torch.LongTensor, scores: Any, **options: Any
    ) -> torch.BoolTensor:
        """Return whether each row of `[B * beams, L]` has ended, `[B * beams]`, bool."""
        ended = torch.tensor([self._is_cancelled(each) for each in self._requests])  # [B]
        beams = input_ids.shape[0] // len(self._requests)
        return ended.repeat_interleave(beams).to(input_ids.device)  # type: ignore[return-value]


def _up_to_end(encoder: Encoder, tokens: list[int], options: Options) -> list[int]:
    """Leave out what fills a row after its end; among beams this may be the end token again."""
    ends, stop = end_tokens(options), options.get("stop", ())
    last = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    tokens = tokens[: last + 1]

    def stops(size: int) -> bool:
        (text,) = encoder.decode([tokens[:size]])
        return _contains(text, stop)

    if not stop or not stops(len(tokens)):
        return tokens
    # The fewest tokens whose text contains a stop string: the row ended there.
    return tokens[: bisect_left(range(len(tokens)), True, key=stops)]


def _contains(text: str, stop: Sequence[str]) -> bool:
    return any(string in text for string in stop)


def generate_batch(base: BaseModel, requests: Sequence[Request]) -> list[str]:
    """Return the new text of each row, up to the first stop string; see `continue_rows`."""
    tokens = continue_rows(base, requests)
    stop = dict(requests[0].options).get("stop", ())
    return [before_stop(stop, text) for text in base.encoder.decode(tokens)]


def before_stop(stop: Sequence[str], text: str) -> str:
    """Return a text up to the first stop string."""
    ends = (text.find(string) for string in stop)
    return text[: min((end for end in ends if end >= 0), default=len(text))]
