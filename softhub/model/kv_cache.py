"""Encode a prompt once and share its keys and values across a batch.

A decoder's prompt comes first and attends only to itself, so its keys and values are the same in
every row: computing them once at batch size 1 and expanding them is exact, and saves B - 1 of B
passes over the prompt. Gradients flow through the expansion, so training shares them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from softhub.model.base import BaseModel
from softhub.model.projection import trunk_of


@dataclass(frozen=True)
class Prefix:
    """Keys and values of one prompt.

    Attributes:
        layers: For each layer keys and values, each `[1, heads, P, head_dim]`.
        length: Number of virtual tokens P.
    """

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    length: int

    @property
    def nbytes(self) -> int:
        """Bytes of its keys and values."""
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)


def shares_prefixes(base: BaseModel, width: int = 0) -> bool:
    """Return whether a prompt can be encoded apart from the text, which the base has been asked.

    Args:
        base: The base model.
        width: Tokens of the longest prompt, the longest text and what follows, together.
    """
    if base.is_encoder_decoder or base.checkpoints_activations or base.is_sharded:
        return False  # the last two change what layers return
    return base.capabilities.rows(width).shares_keys


def encode_prefix(base: BaseModel, vectors: torch.Tensor) -> Prefix:
    """Run a prompt through the base alone.

    Args:
        base: A base for which `shares_prefixes` holds.
        vectors: The prompt, `[P, H]`; differentiable.
    """
    device = base.device
    cache = DynamicCache(config=base.model.config)
    own = vectors.to(device, base.dtype, copy=True)  # some models (CTRL) scale inputs in place
    trunk_of(base.model)(
        inputs_embeds=own.unsqueeze(0),  # [1, P, H]
        past_key_values=cache,
        use_cache=True,
    )
    layers = tuple((layer.keys, layer.values) for layer in filled_layers(cache))
    return Prefix(layers, vectors.shape[0])


@torch.no_grad()
def encode_for_reuse(base: BaseModel, vectors: torch.Tensor) -> Prefix:
    """Run a prompt `[P, H]` through the base alone, in its own precision whatever the caller's."""
    with torch.autocast(base.device.type, enabled=False):
        return encode_prefix(base, vectors)


def join_prefixes(
    base: BaseModel, prefixes: Sequence[Prefix | None]
) -> tuple[DynamicCache | None, torch.Tensor]:
    """Combine the prefixes of a batch, padded on the left.

    Args:
        base: The base model.
        prefixes: One for each row, or None for the bare base.

    Returns:
        A new cache of B rows (None if no row has a prompt), and its mask `[B, P]`, bool, with P
        the longest prefix.
    """
    width = max((prefix.length for prefix in prefixes if prefix), default=0)
    lengths = torch.tensor([prefix.length if prefix else 0 for prefix in prefixes])
    mask = (torch.arange(width) >= width - lengths[:, None]).to(base.device)  # [B, P]
    template = next((prefix for prefix in prefixes if prefix), None)
    if template is None:
        return None, mask
    cache = DynamicCache(config=base.model.config)
    for index in range(len(template.layers)):
        cache.update(*_joined_layer(prefixes, template, index, width), index)
    return cache, mask


def _joined_layer(
    prefixes: Sequence[Prefix | None], template: Prefix, index: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return keys and values of one layer for the batch, each `[B, heads, width, head_dim]`."""
    both = []
    for part, like in enumerate(template.layers[index]):  # like: [1, heads, P, head_dim]
        if all(prefix is template for prefix in prefixes):
            # One prompt for all rows: expanding it takes no memory.
            both.append(like.expand(len(prefixes), -1, -1, -1))
            continue
        # Different prompts: pad each on the left to the longest; the bare base has only pads.
        rows = [prefix.layers[index][part] if prefix else like[:, :, :0] for prefix in prefixes]
        padded = [nn.functional.pad(row, (0, 0, width - row.shape[2], 0)) for row in rows]
        both.append(torch.cat(padded))
    return both[0], both[1]


def select_rows(cache: DynamicCache, rows: torch.Tensor) -> DynamicCache:
    """Return a new cache of some rows: indices `[N]`, int64, which may repeat."""
    selected = copy(cache)
    selected.layers = [copy(layer) for layer in cache.layers]
    for layer in filled_layers(selected):
        layer.batch_select_indices(rows.to(layer.keys.device))
    return selected


def filled_layers(cache: DynamicCache) -> list[Any]:
    """Return the filled layers of a cache, typed as Any: transformers declares other types too."""
    layers: list[Any] = cache.layers
    return [layer for layer in layers if layer.keys is not None]
