"""Prefixes: soft prompts of keys and values in every layer (Li & Liang 2021, arXiv 2101.00190).

PEFT stores a prefix as a matrix with a row for each virtual token: its keys and values of the first
layer, of the second, and so on. Keys are those of the cache, with positions already applied, so a
prefix is used exactly as the keys and values of an encoded prompt are.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from softhub.adapter.manifest import PrefixShape
from softhub.errors import BaseModelError
from softhub.model.base import BaseModel, Placement
from softhub.model.kv_cache import Prefix, encode_for_reuse, shares_prefixes

_TEMPLATES: WeakKeyDictionary[BaseModel, tuple[Placement, Prefix]] = WeakKeyDictionary()


def prefix_template(base: BaseModel) -> Prefix:
    """Return the keys and values of one token: the shapes, dtypes and devices of a base's prefixes.

    Raises:
        BaseModelError: The base cannot run prefixes; says why.
    """
    if (reason := prefix_refusal(base)) is not None:
        raise BaseModelError(
            f"{base.name} cannot run a prefix: {reason}. Use a prompt of input embeddings instead "
            "(PromptTuningConfig, --prompt-type prompt)."
        )
    return _template(base)


def _template(base: BaseModel) -> Prefix:
    """Return the keys and values of one token, computed again when the base was moved or cast."""
    known = _TEMPLATES.get(base)
    if known is None or known[0] != base.placement:
        known = (base.placement, encode_for_reuse(base, base.embed(torch.tensor([1]))))
        _TEMPLATES[base] = known
    return known[1]


def require_shared_keys(base: BaseModel, width: int) -> None:
    """Refuse rows for which cached keys and values are not exact.

    Args:
        base: A base that can run prefixes.
        width: Tokens of the prefix, the longest text and what follows, together.

    Raises:
        BaseModelError: The base does not share keys and values of rows of this width.
    """
    if not shares_prefixes(base, width):
        raise BaseModelError(
            f"{base.name} cannot run a prefix with rows of {width} tokens (the prefix, the longest "
            "text and the longest answer): its answers from cached keys and values are then not "
            "those from the whole text. Shorten the texts (max_length in the task), or use a "
            "prompt of input embeddings instead (PromptTuningConfig, --prompt-type prompt)."
        )


def prefix_refusal(base: BaseModel) -> str | None:
    """Return why a base cannot start from given keys and values; None if it can."""
    if base.is_encoder_decoder:
        return "it is an encoder-decoder, and prompts belong to the encoder, which keeps no keys"
    if base.checkpoints_activations:
        return "activation checkpointing is on, with which layers read no keys and values"
    if base.is_sharded:
        return "FSDP has sharded its layers"
    if "past_key_values" not in base.forward_parameters:
        return "it takes no keys and values, as recurrent models do not"
    layers = DynamicCache(config=base.model.config).layers
    others = sorted({type(layer).__name__ for layer in layers if type(layer) is not DynamicLayer})
    if others:
        return f"it has sliding windows or recurrent states ({', '.join(others)})"
    if not layers or not shares_prefixes(base):
        return "its answers from cached keys and values are not those from the whole text"
    if len(sizes := _sizes(_template(base))) > 1:
        found = ", ".join(f"{heads} x {width}" for heads, width in sorted(sizes))
        return f"its keys and values have different sizes (heads x width: {found})"
    return None


def _sizes(prefix: Prefix) -> set[tuple[int, int]]:
    """Return the heads and the width of all keys and values."""
    return {(part.shape[1], part.shape[3]) for layer in prefix.layers for part in layer}


def prefix_shape(base: BaseModel) -> PrefixShape:
    """Return how a row of a base's prefixes is divided.

    Raises:
        BaseModelError: The base cannot run prefixes.
    """
    template = prefix_template(base)
    _, heads, _, width = template.layers[0][0].shape  # [1, heads, 1, head_dim]
    return PrefixShape(len(template.layers), heads, width)


def prefix_of(vectors: torch.Tensor, template: Prefix) -> Prefix:
    """Return the keys and values of a matrix `[P, width]`; differentiable.

    Args:
        vectors: A row for each virtual token, in PEFT's layout.
        template: From `prefix_template`.
    """
    count, (_, heads, _, width) = len(template.layers), template.layers[0][0].shape
    # [P, layers * 2 * heads * head_dim] to [layers, 2, heads, P, head_dim]
    parts = vectors.reshape(-1, count, 2, heads, width).permute(1, 2, 3, 0, 4)
    layers = tuple(
        (keys.unsqueeze(0).to(like[0]), values.unsqueeze(0).to(like[1]))  # [1, heads, P, head_dim]
        for (keys, values), like in zip(parts, template.layers, strict=True)
    )
    return Prefix(layers, vectors.shape[0])


def vectors_of(prefix: Prefix) -> torch.Tensor:
    """Return the matrix `[P, width]` of a prefix, float32 on the CPU."""
    parts = torch.stack([part[0].float().cpu() for layer in prefix.layers for part in layer])
    return parts.permute(2, 0, 1, 3).flatten(1)  # [layers * 2, heads, P, head_dim] to [P, width]


def vectors_of_prompt(base: BaseModel, embeddings: torch.Tensor) -> torch.Tensor:
    """Return the prefix `[P, width]` that acts exactly as a prompt `[P, H]`: its keys and values.

    Raises:
        BaseModelError: The base cannot run prefixes.
    """
    prefix_template(base)
    return vectors_of(encode_for_reuse(base, embeddings))


def units_of(vectors: torch.Tensor, shape: PrefixShape) -> torch.Tensor:
    """Return the root mean square of each layer's keys, and of its values, for each column.

    Layers differ in size by orders of magnitude, so one step size suits all of them only in these
    units.

    Args:
        vectors: `[P, width]`.
        shape: How a row is divided.

    Returns:
        `[width]`, positive.
    """
    parts = vectors.unflatten(1, (-1, shape.layer_width))  # [P, layers * 2, layer width]
    sizes = parts.square().mean(dim=(0, 2)).sqrt()  # [layers * 2]
    units: torch.Tensor = sizes.masked_fill(sizes == 0, 1.0)
    return units.repeat_interleave(shape.layer_width)
