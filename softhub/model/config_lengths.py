"""Read from a config how long rows may be, and beyond which lengths other things are computed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_WINDOW = re.compile(
    r"(window|window_size|original_max_position_embeddings|chunk_size|chunk_length|compress_rates"
    r"|index_topk|expert_capacity)$"
)

_POSITIONS = ("max_{}_position_embeddings", "max_position_embeddings", "max_seq_len")
"""Names of the limit, to which transformers maps further ones (`n_positions`)."""


def position_limit(config: Any, *, part: str = "encoder") -> int | None:
    """Return the maximum number of tokens of a transformers configuration; None if unlimited.

    Args:
        config: The configuration.
        part: Of an encoder-decoder the part that is meant: `"encoder"`, which reads the text, or
            `"decoder"`, which reads the answer.
    """
    if config.is_encoder_decoder:
        # T5Gemma has a config for each part, of which transformers returns only the decoder's.
        config = getattr(config, part, None) or config.get_text_config(**{part: True})
    config = config.get_text_config()
    if "relative_attention_num_buckets" in config.to_dict():
        return None  # relative positions (T5): `n_positions` is only the training length
    limits = [getattr(config, name.format(part), None) for name in _POSITIONS]
    return next((int(limit) for limit in limits if isinstance(limit, int) and limit > 0), None)


def named_windows(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the lengths that a config names, in order."""
    return tuple(sorted(_lengths(config)))


def _lengths(config: Mapping[str, Any]) -> set[int]:
    """Return the lengths in a config, also in nested entries such as those of rotary positions."""
    found: set[int] = set()
    for name, value in config.items():
        values = [*value.values()] if isinstance(value, Mapping) else value
        if _WINDOW.search(str(name)):
            lengths = values if isinstance(values, list | tuple) else [values]
            found |= {length for length in lengths if type(length) is int and length > 0}
        elif isinstance(value, Mapping):
            found |= _lengths(value)
    return found
