"""Continue a batch of rows: transformers' own `generate`, told where the prompts are.

A decoder that can share prefixes gets each prompt's keys and values, computed once, as a filled
cache; other models get the prompts as embeddings before each row. Both are also told the rows'
token ids, which penalties for repetition look at, and give the same text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria
from transformers.modeling_outputs import BaseModelOutput

from softhub.errors import ConfigError
from softhub.inference.requests import LoadedPrompt
from softhub.model.assembly import Rows, embed_rows, pad_rows
from softhub.model.base import BaseModel
from softhub.model.kv_cache import join_prefixes, select_rows, shares_prefixes

# Ways of generating that keep a cache of their own making, or none.
_OWN_CACHE = (
    "assistant_model",
    "cache_config",
    "cache_implementation",
    "custom_generate",
    "prefill_chunk_size",
    "prompt_lookup_num_tokens",
    "use_cache",
)


@torch.no_grad()
def generate_texts(
    base: BaseModel,
    prompts: Sequence[LoadedPrompt | None],
    texts: Sequence[Sequence[int]],
    options: Mapping[str, Any],
) -> list[str]:
    """Continue rows until the end-of-sequence token, a stop string, or `max_new_tokens`.

    Args:
        base: The base model.
        prompts: One for each row.
        texts: Token ids of each row.
        options: As in transformers' `generate`; and `stop`, strings at the first of which a text
            ends (they are not in it).

    Returns:
        The new text of each row.

    Raises:
        ConfigError: An option makes no sense here.
    """
    stop = _stop_strings(options.get("stop", ()))
    arguments = _with_ends(base, {k: v for k, v in options.items() if k != "stop"})
    rows = pad_rows(texts).to(base.device)
    if base.is_encoder_decoder:
        inputs, shown = _encoded(base, prompts, rows), 0
    else:
        inputs = _decoder_inputs(base, prompts, rows, arguments)
        shown = inputs["input_ids"].shape[1]
    if stop:
        criteria = [*arguments.pop("stopping_criteria", ()), _StopStrings(base, stop, shown)]
        arguments["stopping_criteria"] = criteria
    generate: Any = base.model.generate
    tokens = generate(**inputs, **arguments)
    return [_before(stop, text) for text in _decoded(base.tokenizer, tokens[:, shown:])]


def _decoder_inputs(
    base: BaseModel,
    prompts: Sequence[LoadedPrompt | None],
    rows: Rows,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    if not any(prompts):
        mask = rows.mask
    elif shares_prefixes(base) and not _keeps_own_cache(base, options):
        cache, prefix_mask = join_prefixes(base, [p.prefix(base) if p else None for p in prompts])
        mask = torch.cat([prefix_mask, rows.mask], dim=1)
        beams = int(options.get("num_beams") or base.model.generation_config.num_beams or 1)
        if cache is not None and beams > 1:  # `generate` repeats rows for beams, but no cache
            index = torch.arange(len(prompts), device=base.device)
            cache = select_rows(cache, index.repeat_interleave(beams))
        inputs = {"past_key_values": cache, "use_cache": True}
    else:
        embedded, mask = embed_rows(base, [p.vectors if p else None for p in prompts], rows)
        inputs = {"inputs_embeds": embedded}
    return {**inputs, "input_ids": _shown_ids(rows, mask.shape[1]), "attention_mask": mask.long()}


def _shown_ids(rows: Rows, width: int) -> torch.Tensor:
    """Ids `[B, width]` with the row's own first token where its pads and its prompt are.

    Nothing is computed from those, but penalties for repetition count them: a token that the row
    has anyway changes nothing.
    """
    first = rows.mask.long().argmax(dim=1, keepdim=True)
    own = rows.ids.gather(1, first)
    ids = torch.where(rows.mask, rows.ids, own)
    return torch.cat([own.expand(-1, width - ids.shape[1]), ids], dim=1)


def _encoded(base: BaseModel, prompts: Sequence[LoadedPrompt | None], rows: Rows) -> dict[str, Any]:
    embedded, mask = embed_rows(base, [p.vectors if p else None for p in prompts], rows)
    hidden = base.model.get_encoder()(inputs_embeds=embedded, attention_mask=mask.long())
    return {
        "encoder_outputs": BaseModelOutput(hidden.last_hidden_state),
        "attention_mask": mask.long(),
    }


def _keeps_own_cache(base: BaseModel, options: Mapping[str, Any]) -> bool:
    chosen = {**base.model.generation_config.to_diff_dict(), **options}
    return any(chosen.get(option) not in (None, True) for option in _OWN_CACHE)


def _with_ends(base: BaseModel, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that also name the tokens which end a row, and fill it up when it has ended."""
    if int(options.get("num_return_sequences") or 1) != 1:
        raise ConfigError(
            "num_return_sequences is not 1; expected one answer for each text: give a text as "
            "often as it shall be answered."
        )
    tokenizer, own = base.tokenizer, base.model.generation_config.eos_token_id
    ends = {*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id} - {None}
    chosen = dict(options)
    if ends:  # training teaches the tokenizer's end, which a model's own list may lack
        chosen.setdefault("eos_token_id", sorted(ends))
    # What fills up the rows that end early has to be a token that decoding skips.
    filler = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    if filler is not None:
        chosen.setdefault("pad_token_id", filler)
    return chosen


def _stop_strings(stop: Any) -> tuple[str, ...]:
    strings = [stop] if isinstance(stop, str) else stop
    texts = isinstance(strings, list | tuple) and all(isinstance(text, str) for text in strings)
    if not texts or "" in strings:
        raise ConfigError(f"stop is {stop!r:.80}; expected texts to stop at, e.g. ['\\n'].")
    return tuple(strings)


class _StopStrings(StoppingCriteria):
    """Ends a row when a stop string stands in its new text, however its tokens divide it."""

    def __init__(self, base: BaseModel, stop: Sequence[str], shown: int) -> None:
        self._tokenizer = base.tokenizer
        self._stop = stop
        self._shown = shown

    def __call__(
        self, input_ids: torch.LongTensor, scores: Any, **options: Any
    ) -> torch.BoolTensor:
        """Whether each row `[B, L]` has ended, `[B]`, bool."""
        texts = _decoded(self._tokenizer, input_ids[:, self._shown :])
        ended = [any(string in text for string in self._stop) for text in texts]
        return torch.BoolTensor(ended).to(input_ids.device)  # type: ignore[return-value]


def _decoded(tokenizer: PreTrainedTokenizerBase, tokens: torch.Tensor) -> list[str]:
    """Texts as their tokens say; 'cleaning up' would change the spaces of code."""
    return tokenizer.batch_decode(
        tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )


def _before(stop: Sequence[str], text: str) -> str:
    ends = [text.find(string) for string in stop]
    return text[: min((end for end in ends if end >= 0), default=len(text))]
