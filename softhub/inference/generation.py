"""Continue a batch of rows with transformers' own `generate`.

A decoder that can share prefixes receives each prompt's keys and values, computed once, as a filled
cache; other models receive the prompts as embeddings before each row. Both also receive the rows'
token ids, which repetition penalties read, and both give the same text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria
from transformers.modeling_outputs import BaseModelOutput

from softhub.errors import ConfigError
from softhub.inference.requests import LoadedPrompt, prefixes_of
from softhub.model.assembly import PaddedBatch, embed_rows, pad_rows
from softhub.model.base import BaseModel
from softhub.model.kv_cache import join_prefixes, select_rows, shares_prefixes

# Options with which `generate` makes a cache of its own, or none.
_OWN_CACHE = (
    "assistant_model",
    "cache_config",
    "cache_implementation",
    "custom_generate",
    "prefill_chunk_size",
    "prompt_lookup_num_tokens",
    "use_cache",
)

# Options that do not depend on the tokens of the text to continue.
_TOKENS_UNREAD = (
    "bos_token_id",
    "do_sample",
    "early_stopping",
    "eos_token_id",
    "length_penalty",
    "max_new_tokens",
    "min_new_tokens",
    "num_beams",
    "pad_token_id",
    "stop",
    "temperature",
    "top_k",
    "top_p",
    "transformers_version",
)


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
        options: Options of transformers' `generate`, and `stop`: a text ends before the first of
            these strings.

    Returns:
        The generated text of each row.

    Raises:
        ConfigError: An option is not supported.
    """
    stop = stop_strings(options.get("stop", ()))
    tokens = generate_tokens(base, prompts, texts, options)
    return [before_stop(stop, text) for text in decode_literally(base.tokenizer, tokens)]


@torch.no_grad()
def generate_tokens(
    base: BaseModel,
    prompts: Sequence[LoadedPrompt | None],
    texts: Sequence[Sequence[int]],
    options: Mapping[str, Any],
) -> torch.Tensor:
    """Implement `generate_texts`; return the new tokens `[B, N]`, padded after a row's end."""
    stop = stop_strings(options.get("stop", ()))
    arguments = with_ends(base, {k: v for k, v in options.items() if k != "stop"})
    rows = pad_rows(texts).to(base.device)  # [B, T]
    # `shown` is where the new tokens begin in what `generate` returns.
    if base.is_encoder_decoder:
        inputs, shown = _encoder_inputs(base, prompts, rows), 1  # after the start token
    else:
        inputs = _decoder_inputs(base, prompts, rows, arguments)
        shown = inputs["input_ids"].shape[1]
    if stop:
        criteria = [*arguments.pop("stopping_criteria", ()), _StopStrings(base, stop, shown)]
        arguments["stopping_criteria"] = criteria
    generate: Any = base.model.generate
    tokens: torch.Tensor = generate(**inputs, **arguments)  # [B, shown + N]
    return tokens[:, shown:]


def _decoder_inputs(
    base: BaseModel,
    prompts: Sequence[LoadedPrompt | None],
    rows: PaddedBatch,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    if not any(prompts):
        mask = rows.mask
    elif shares_prefixes(base) and not _keeps_own_cache(base, options):
        cache, prefix_mask = join_prefixes(base, prefixes_of(base, prompts))
        mask = torch.cat([prefix_mask, rows.mask], dim=1)  # [B, P + T]
        beams = int(options.get("num_beams") or base.model.generation_config.num_beams or 1)
        if cache is not None and beams > 1:  # `generate` repeats rows for beams, but not a cache
            index = torch.arange(len(prompts), device=base.device)
            cache = select_rows(cache, index.repeat_interleave(beams))
        inputs = {"past_key_values": cache, "use_cache": True}
    else:
        embedded, mask = embed_rows(base, _vectors(prompts), rows)
        inputs = {"inputs_embeds": embedded}  # [B, P + T, H]
    return {**inputs, "input_ids": _shown_ids(rows, mask.shape[1]), "attention_mask": mask.long()}


def _vectors(prompts: Sequence[LoadedPrompt | None]) -> list[torch.Tensor | None]:
    return [prompt.vectors if prompt else None for prompt in prompts]


def _shown_ids(rows: PaddedBatch, width: int) -> torch.Tensor:
    """Return ids `[B, width]` with each row's first token in place of its pads and its prompt.

    The model ignores those, but repetition penalties count them: a token that the row has anyway
    changes nothing.
    """
    first = rows.mask.long().argmax(dim=1, keepdim=True)  # [B, 1], index of the first real token
    own = rows.ids.gather(1, first)  # [B, 1]
    ids = torch.where(rows.mask, rows.ids, own)  # [B, T]
    return torch.cat([own.expand(-1, width - ids.shape[1]), ids], dim=1)


def _encoder_inputs(
    base: BaseModel, prompts: Sequence[LoadedPrompt | None], rows: PaddedBatch
) -> dict[str, Any]:
    embedded, mask = embed_rows(base, _vectors(prompts), rows)  # [B, P + T, H]
    hidden = base.model.get_encoder()(inputs_embeds=embedded, attention_mask=mask.long())
    return {
        "encoder_outputs": BaseModelOutput(hidden.last_hidden_state),
        "attention_mask": mask.long(),
    }


def reads_text_tokens(base: BaseModel, options: Mapping[str, Any]) -> bool:
    """Return whether an option may read the tokens of the text, as repetition penalties do."""
    return any(option not in _TOKENS_UNREAD for option in chosen_options(base, options))


def _keeps_own_cache(base: BaseModel, options: Mapping[str, Any]) -> bool:
    chosen = chosen_options(base, options)
    return any(chosen.get(option) not in (None, True) for option in _OWN_CACHE)


def chosen_options(base: BaseModel, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model's own generation options that differ from the defaults, and the call's."""
    return {**base.model.generation_config.to_diff_dict(), **options}


def with_ends(base: BaseModel, options: Mapping[str, Any]) -> dict[str, Any]:
    """Add the tokens that end a row, and the one that pads it afterwards."""
    if int(options.get("num_return_sequences") or 1) != 1:
        raise ConfigError(
            "num_return_sequences is not 1; expected one answer per text. Repeat a text to get "
            "several answers."
        )
    tokenizer, own = base.tokenizer, base.model.generation_config.eos_token_id
    ends = {*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id} - {None}
    chosen = dict(options)
    if ends:  # training uses the tokenizer's end token, which a model's own list may lack
        chosen.setdefault("eos_token_id", sorted(ends))
    # Rows that end early are padded with a token that decoding skips.
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    if pad is not None:
        chosen.setdefault("pad_token_id", pad)
    return chosen


def stop_strings(stop: Any) -> tuple[str, ...]:
    """Return the strings of the option `stop`.

    Raises:
        ConfigError: It is neither a string nor a list of strings.
    """
    strings = [stop] if isinstance(stop, str) else stop
    texts = isinstance(strings, list | tuple) and all(isinstance(text, str) for text in strings)
    if not texts or "" in strings:
        raise ConfigError(f"stop is {stop!r:.80}; expected strings to stop at, e.g. ['\\n'].")
    return tuple(strings)


class _StopStrings(StoppingCriteria):
    """Ends a row when its new text contains a stop string, however the tokens divide it."""

    def __init__(self, base: BaseModel, stop: Sequence[str], shown: int) -> None:
        self._tokenizer = base.tokenizer
        self._stop = stop
        self._shown = shown

    def __call__(
        self, input_ids: torch.LongTensor, scores: Any, **options: Any
    ) -> torch.BoolTensor:
        """Return whether each row of `[B, L]` has ended, `[B]`, bool."""
        texts = decode_literally(self._tokenizer, input_ids[:, self._shown :])
        ended = [any(string in text for string in self._stop) for text in texts]
        return torch.BoolTensor(ended).to(input_ids.device)  # type: ignore[return-value]


def decode_literally(tokenizer: PreTrainedTokenizerBase, tokens: Any) -> list[str]:
    """Decode tokens literally; cleaning up would change the spaces of code."""
    return tokenizer.batch_decode(
        tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )


def before_stop(stop: Sequence[str], text: str) -> str:
    """Return a text up to the first stop string."""
    ends = (text.find(string) for string in stop)
    return text[: min((end for end in ends if end >= 0), default=len(text))]
