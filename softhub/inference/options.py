"""The options of `generate`: which of transformers' are exact here, and which are refused.

A row must not depend on its neighbors, on pads, or on how its prompt is fed to the model. Options
that keep this promise are listed with the type of their values; all others are listed with the
reason why they are refused. Options that are in neither list, such as those of a later version of
transformers, are refused as unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import GenerationConfig

from softhub.errors import ConfigError, did_you_mean, expected_instead
from softhub.model.base import BaseModel

Options = Mapping[str, Any]
"""Names and values of options; a value of None means that the option was not given."""

NEW_TOKENS = 64
"""Default of `max_new_tokens`."""

_SAMPLING: dict[str, type] = {
    "epsilon_cutoff": float,
    "eta_cutoff": float,
    "min_p": float,
    "temperature": float,
    "top_h": float,
    "top_k": int,
    "top_p": float,
    "typical_p": float,
}
_BEAMS: dict[str, type] = {"early_stopping": object, "length_penalty": float}
EXACT: dict[str, type] = {
    **_SAMPLING,
    **_BEAMS,
    "bad_words_ids": object,
    "begin_suppress_tokens": object,
    "bos_token_id": object,
    "decoder_start_token_id": object,
    "do_sample": bool,
    "encoder_no_repeat_ngram_size": int,
    "encoder_repetition_penalty": float,
    "eos_token_id": object,
    "exponential_decay_length_penalty": object,
    "forced_bos_token_id": object,
    "forced_eos_token_id": object,
    "max_new_tokens": int,
    "min_length": int,
    "min_new_tokens": int,
    "no_repeat_ngram_size": int,
    "num_beams": int,
    "remove_invalid_values": bool,
    "renormalize_logits": bool,
    "repetition_penalty": float,
    "sequence_bias": object,
    "suppress_tokens": object,
    "watermarking_config": object,
}
"""Options of GenerationConfig that give each row what it gets alone, and types of their values."""

_CACHE = "softhub chooses the cache"
_COMPILED = "softhub does not compile the base"
_OUTPUT = "generate returns texts; use target_logprobs for probabilities"
_PROPOSED = "tokens would be proposed without the soft prompt"
_ROWS = "generate returns one text for each row; repeat a text to get several"
_REMOTE = "transformers loads code for it from the Hub"
WITHOUT_EFFECT: dict[str, str] = {
    "assistant_confidence_threshold": _PROPOSED,
    "assistant_early_exit": _PROPOSED,
    "assistant_ensemble_weight": _PROPOSED,
    "assistant_lookbehind": _PROPOSED,
    "assistant_model": _PROPOSED,
    "assistant_tokenizer": _PROPOSED,
    "cache_config": _CACHE,
    "cache_implementation": _CACHE,
    "compile_config": _COMPILED,
    "continuous_batching_config": "use batch_size",
    "disable_compile": _COMPILED,
    "is_assistant": _PROPOSED,
    "low_memory": _REMOTE,
    "max_cache_len": _CACHE,
    "max_length": "it counts the text too; use max_new_tokens",
    "max_matching_ngram_size": _PROPOSED,
    "num_assistant_tokens": _PROPOSED,
    "num_assistant_tokens_schedule": _PROPOSED,
    "num_return_sequences": _ROWS,
    "output_attentions": _OUTPUT,
    "output_hidden_states": _OUTPUT,
    "output_logits": _OUTPUT,
    "output_scores": _OUTPUT,
    "pad_token_id": "rows are padded with a token that is not shown",
    "prefill_chunk_size": _CACHE,
    "prompt_lookup_num_tokens": _PROPOSED,
    "return_dict_in_generate": _OUTPUT,
    "speculation_type": _PROPOSED,
    "target_lookbehind": _PROPOSED,
    "transformers_version": "it does not affect generated texts",
    "use_cache": _CACHE,
    "use_mtp": _PROPOSED,
}
"""Refused, but ignored in the base's own generation config: texts would be the same."""

REFUSED: dict[str, str] = {
    "constraints": _REMOTE,
    "custom_generate": "softhub would not know what it does; call it on base.model",
    "diversity_penalty": _REMOTE,
    "dola_layers": _REMOTE,
    "force_words_ids": _REMOTE,
    "guidance_scale": "it runs the base a second time, without the soft prompt",
    "logits_processor": "it would see all rows of a batch, with the pads between them",
    "max_time": "texts would depend on the speed of the machine; use max_new_tokens",
    "negative_prompt_attention_mask": "it belongs to guidance_scale, which is not supported",
    "negative_prompt_ids": "it belongs to guidance_scale, which is not supported",
    "num_beam_groups": _REMOTE,
    "penalty_alpha": _REMOTE,
    "prefix_allowed_tokens_fn": "it would see all rows of a batch, with the pads between them",
    "stop_strings": "they would be looked for in the text to continue too; use stop",
    "stopping_criteria": "they would see all rows of a batch, with the pads between them; use stop",
    "streamer": "it would show pads and tokens of all rows; use PromptModel.stream",
    "synced_gpus": "transformers determines it",
    "token_healing": "it changes the tokens of the text",
    "tokenizer": "softhub uses that of the base",
    "trust_remote_code": "code from the Hub is never run",
}
"""Refused, and also if the base's own generation config asks for it: texts would be different."""


def resolve_options(base: BaseModel, task: Options, call: Options) -> dict[str, Any]:
    """Merge and check the options of a row.

    Those of the call override those of `generation_config` in the call, these override the task's,
    and these the base's own. Two things are never taken from the base: whether to sample, and how
    long a text may be.

    Args:
        base: The base model.
        task: Options of the row's task.
        call: Options of the call.

    Returns:
        Options of `EXACT`, all with a value, and `stop` if it was given.

    Raises:
        ConfigError: An option is unknown, not supported, of the wrong type, or has no effect.
    """
    given = {**_given(task), **_from_config(call), **_given(call)}
    given.pop("generation_config", None)
    if given.get("num_return_sequences") == 1:
        del given["num_return_sequences"]
    given = {name: _checked(name, value) for name, value in given.items()}
    options = {"max_new_tokens": NEW_TOKENS, **_own(base), **_ends(base), **given}
    if options.get("do_sample") and options.get("num_beams", 1) > 1:
        raise ConfigError(
            f"do_sample=True with num_beams={options['num_beams']} is not supported: beams would "
            "share random numbers. Leave out the options of sampling, such as temperature, or use "
            "a single beam (num_beams=1)."
        )
    unused = _unused(options)
    for name, needed in unused.items():
        if call.get(name) is not None:
            raise ConfigError(
                f"The generation option {name} has no effect without {needed}: pass {needed}, or "
                f"leave out {name}."
            )
    return {name: value for name, value in options.items() if name not in unused}


def end_tokens(options: Options) -> frozenset[int]:
    """Return the tokens that end a row, from options of `resolve_options`."""
    ends = options.get("eos_token_id")
    return frozenset([ends] if isinstance(ends, int) else ends or ())


def _given(options: Options) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _from_config(call: Options) -> dict[str, Any]:
    """Return the options of a GenerationConfig that was passed to `generate`."""
    config = call.get("generation_config")
    if config is None:
        return {}
    if not isinstance(config, GenerationConfig):
        raise ConfigError(
            f"generation_config is {config!r:.80}; expected a transformers.GenerationConfig, or "
            "its options as arguments of their own."
        )
    options = _given(config.to_diff_dict())
    options.pop("transformers_version", None)
    return {name: value for name, value in options.items() if not name.startswith("_")}


def _own(base: BaseModel) -> dict[str, Any]:
    """Return the base's own options that apply to every text.

    Raises:
        ConfigError: One of them is not supported and would change the texts.
    """
    config = base.model.generation_config
    own = _given(config.to_diff_dict())
    neutral = {"guidance_scale": 1, "num_beam_groups": 1, "diversity_penalty": 0}
    for name in REFUSED.keys() & own.keys():
        if own[name] and own[name] != neutral.get(name):
            raise ConfigError(
                f"The base's own generation config sets {name}={own[name]!r:.80}, which is not "
                f"supported: {REFUSED[name]}. Set base.model.generation_config.{name} = None."
            )
    asked = {"do_sample", "max_new_tokens", "eos_token_id"}
    return {name: value for name, value in own.items() if name in EXACT.keys() - asked}


def _ends(base: BaseModel) -> dict[str, Any]:
    """Return the tokens that end a text: the base's own, and the one that training uses."""
    own = base.model.generation_config.eos_token_id
    ends = {*(own if isinstance(own, list) else [own]), base.tokenizer.eos_token_id} - {None}
    return {"eos_token_id": sorted(ends)} if ends else {}


def _checked(name: str, value: Any) -> Any:
    """Return the value of an option as the type that transformers expects."""
    if name == "stop":
        return _stop_strings(value)
    reason = {**WITHOUT_EFFECT, **REFUSED}.get(name)
    if reason is not None:
        raise ConfigError(f"The generation option {name} is not supported: {reason}.")
    if name not in EXACT:
        raise ConfigError(
            f"Unknown generation option {name!r}{did_you_mean(name, {*EXACT, 'stop', 'seed'})}"
        )
    kind = EXACT[name]
    if kind is object:
        return value
    least = 1 if name in ("max_new_tokens", "num_beams") else 0
    if expected := expected_instead(value, kind, least if kind is int else None):
        raise ConfigError(f"The generation option {name} is {value!r:.80}; expected {expected}.")
    return kind(value)


def _stop_strings(stop: Any) -> tuple[str, ...]:
    strings = [stop] if isinstance(stop, str) else stop
    texts = isinstance(strings, list | tuple) and all(isinstance(text, str) for text in strings)
    if not texts or "" in strings:
        raise ConfigError(f"stop is {stop!r:.80}; expected strings to stop at, e.g. ['\\n'].")
    return tuple(strings)


def _unused(options: Options) -> dict[str, str]:
    """Return the options that have no effect on these, and what each would need."""
    unused = {} if options.get("do_sample") else dict.fromkeys(_SAMPLING, "do_sample=True")
    if options.get("num_beams", 1) == 1:
        unused |= dict.fromkeys(_BEAMS, "num_beams=2 or more")
    return unused
