"""Run a prompt and the texts that follow it in one packed row without pads.

A training step needs the prompt once and every text once. Run separately (`kv_cache`), they are
multiplied with the weights in two products, of P rows and of B * T rows with pads; packed, in one
product of P + N rows, N real tokens, which is faster. Everything but attention treats each position
alone, so only attention has to know the layout: in every layer the model's own attention function
is called twice, for the prompt, and for the texts with the prompt's keys and values in front. No
text attends to another, so the result is exact.

transformers provides the means: attention functions are registered by name (`AttentionInterface`),
and models pass four-dimensional masks on unchanged, here with the layout as an attribute.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from softhub.model.assembly import PaddedBatch, positions_of
from softhub.model.base import BaseModel
from softhub.model.device_settings import settings_of
from softhub.model.kv_cache import filled_layers

_NAME = "softhub_packed"

_NO_GROUPS = nn.Module()
"""Layer without `num_key_value_groups`, for which transformers does not copy keys."""

_LAYOUT = "softhub_packing"
"""Attribute of a mask that contains its packing."""

_ONE_AT_A_TIME = threading.RLock()


@dataclass(frozen=True)
class SharedPrompt:
    """A prompt before every text of a batch, which runs through the base once with all of them.

    Attributes:
        vectors: The prompt, `[P, H]`; differentiable.
    """

    vectors: torch.Tensor


@dataclass(frozen=True)
class Packing:
    """Layout of a batch in a packed row of P + N positions.

    Attributes:
        length: Virtual tokens P.
        mask: Which columns of the padded batch are real, `[B, P + T]`, bool.
        places: Index in the packed row for every column of the padded batch, `[B, P + T]`, int64;
            pads have the index of the prompt's last token.
        real: Indices of the N real tokens among the texts' B * T, `[N]`, int64.
    """

    length: int
    mask: torch.Tensor
    places: torch.Tensor
    real: torch.Tensor
    _biases: dict[tuple[int, torch.dtype], torch.Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, length: int, rows: PaddedBatch) -> Packing:
        """Lay out a prompt of `length` virtual tokens and texts `[B, T]`, padded on the left."""
        flat = rows.mask.flatten()  # [B * T]
        # The n-th real token of all texts comes n places after the prompt's last: [B, T].
        texts = torch.where(flat, length - 1 + flat.cumsum(0), length - 1).view_as(rows.ids)
        before = torch.arange(length, device=texts.device).expand(texts.shape[0], -1)  # [B, P]
        mask = torch.cat([torch.ones_like(before, dtype=torch.bool), rows.mask], dim=1)
        return cls(length, mask, torch.cat([before, texts], dim=1), flat.nonzero().squeeze(1))

    @property
    def positions(self) -> torch.Tensor:
        """Position ids of the packed row, `[1, P + N]`: each text continues from P."""
        positions = positions_of(self.mask)  # [B, P + T]
        texts = positions[:, self.length :].flatten()[self.real]  # [N]
        return torch.cat([positions[0, : self.length], texts]).unsqueeze(0)

    @property
    def seen(self) -> torch.Tensor:
        """Causal mask of the texts' tokens over prompt and text, `[B, 1, T, P + T]`, bool.

        It carries the packing to the layers, also when a checkpointed layer runs again.
        """
        columns = torch.arange(self.mask.shape[1], device=self.mask.device)  # [P + T]
        causal = columns <= columns[self.length :, None]  # [T, P + T]
        seen = (causal & self.mask[:, None, :]).unsqueeze(1)
        setattr(seen, _LAYOUT, self)
        return seen

    def bias(self, groups: int, dtype: torch.dtype) -> torch.Tensor:
        """Return `seen` as a bias to add to attention scores, `[B, 1, groups * T, P + T]`.

        All layers share it; of a bool mask, each would keep a converted copy for the backward pass.
        """
        if (groups, dtype) not in self._biases:
            unseen = ~self.seen.repeat(1, 1, groups, 1)
            bias = torch.zeros(unseen.shape, dtype=dtype, device=unseen.device)
            self._biases[groups, dtype] = bias.masked_fill_(unseen, -torch.inf)
        return self._biases[groups, dtype]

    def split(self, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Split `[1, heads, P + N, d]` into `[1, heads, P, d]` and padded `[B, heads, T, d]`."""
        prompt, texts = tensor.split([self.length, tensor.shape[2] - self.length], dim=2)
        places = (self.places[:, self.length :] - self.length).clamp_min(0)  # [B, T], below N
        # A position's heads are adjacent in memory, so copy whole positions: [B * T, heads, d].
        padded = texts[0].transpose(0, 1).index_select(0, places.flatten())
        return prompt, padded.unflatten(0, places.shape).transpose(1, 2)

    def join(self, prompt: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """Join the two parts that `split` returns into one batch, `[B, heads, P + T, d]`."""
        return torch.cat([prompt.expand(texts.shape[0], -1, -1, -1), texts], dim=2)

    def cache(self, base: BaseModel, packed: DynamicCache) -> DynamicCache:
        """Return the cache of the padded batch, given that of the packed row."""
        cache = DynamicCache(config=base.model.config)
        for index, layer in enumerate(filled_layers(packed)):
            keys, values = (self.join(*self.split(each)) for each in (layer.keys, layer.values))
            cache.update(keys, values, index)
        return cache


def longest_packed(base: BaseModel) -> int:
    """Return how many tokens (prompt, text, continuation) a row may have to be packed.

    The base is asked for rows that are no longer than its shortest window, which see all of
    themselves; beyond it the mask of a packed row would have to know the window.

    Returns:
        The number of tokens; 0 if packed rows are not exact.
    """
    if not base.capabilities.packs:
        return 0
    return min(base.capabilities.windows, default=sys.maxsize)


def can_run_packed(base: BaseModel) -> bool:
    """Return whether a base has what packed rows are made of, so that it can be asked."""
    required = {"position_ids", "logits_to_keep", "past_key_values"} <= base.forward_parameters
    return (
        required and not base.is_spread and not base.is_encoder_decoder and _uses_sdpa(base.model)
    )


def _uses_sdpa(model: PreTrainedModel) -> bool:
    """Return whether all parts of a model call an attention function that can be exchanged."""
    parts = (module for module in model.modules() if isinstance(module, PreTrainedModel))
    exchangeable = bool(getattr(model, "_supports_attention_backend", False))
    return exchangeable and all(attention_name(part) == "sdpa" for part in parts)


def attention_name(model: PreTrainedModel) -> str:
    """Return the registered name of a model's attention function."""
    return str(model.config._attn_implementation)


def run_packed(
    base: BaseModel,
    module: nn.Module,
    packing: Packing,
    vectors: torch.Tensor,
    rows: PaddedBatch,
    **options: Any,
) -> Any:
    """Run a prompt and its texts through a base, as one row.

    Args:
        base: The base model.
        module: The whole model, or its trunk.
        packing: The layout of `rows`, none longer than `longest_packed`.
        vectors: The prompt, `[P, H]`.
        rows: Texts `[B, T]`, padded on the left, on the base's device.
        options: Further arguments of the module's `forward`.

    Returns:
        The module's output for the packed row, a batch of one.
    """
    texts = base.embed(rows.ids.flatten()[packing.real])  # [N, H]
    embedded = torch.cat([vectors.to(texts.device, texts.dtype), texts]).unsqueeze(0)
    arguments = {"attention_mask": packing.seen, "position_ids": packing.positions, **options}
    with attending_packed(base.model):
        return module(inputs_embeds=embedded, **{"use_cache": False, **arguments})


@contextmanager
def attending_packed(model: PreTrainedModel) -> Iterator[None]:
    """Let a model's layers handle packed rows; other rows are not affected.

    With activation checkpointing, which runs layers again in the backward pass, the context must
    include that pass. Threads wait for each other: the attention function belongs to the model.

    Args:
        model: Model of a base whose `longest_packed` is not 0.
    """
    with _ONE_AT_A_TIME:
        before = attention_name(model)
        if before == _NAME:  # nested: the outer context restores the name
            yield
            return
        model.set_attn_implementation(_NAME)
        try:
            yield
        finally:
            model.set_attn_implementation(before)


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Compute attention in one layer: `[1, heads, P + N, d]` to `[1, P + N, heads, d]`."""
    packing = getattr(attention_mask, _LAYOUT, None)
    if packing is None or attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    queries, keys, values = (packing.split(each) for each in (query, key, value))
    # The prompt attends to itself, causally: [1, P, heads, d].
    own = queries[0], keys[0], values[0]
    prompt, _ = sdpa_attention_forward(module, *own, None, **options)
    # Each text attends to the prompt and itself: [B, T, heads, d].
    both = queries[1], packing.join(*keys), packing.join(*values)
    if settings_of(query.device).attends_in_groups:
        texts = _attend_in_groups(packing, *both, **options)
    else:
        texts, _ = sdpa_attention_forward(module, *both, attention_mask, **options)
    # Drop the pads and pack again.
    real = texts.flatten(0, 1).index_select(0, packing.real)  # [N, heads, d]
    return torch.cat([prompt[0], real]).unsqueeze(0), None


def _attend_in_groups(
    packing: Packing,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    **options: Any,
) -> torch.Tensor:
    """Compute attention `[B, T, heads, d]` where groups of heads share keys, without copying them.

    A group's queries are concatenated along T, as if they belonged to one head.
    """
    groups = query.shape[1] // key.shape[1]
    together = query.unflatten(1, (-1, groups)).flatten(2, 3)  # [B, key heads, groups * T, d]
    bias = packing.bias(groups, query.dtype)
    found, _ = sdpa_attention_forward(_NO_GROUPS, together, key, value, bias, **options)
    # [B, groups * T, key heads, d] back to [B, T, heads, d].
    shape = (found.shape[0], groups, query.shape[2], *found.shape[2:])
    return found.reshape(shape).permute(0, 2, 3, 1, 4).flatten(2, 3)


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, sdpa_mask)
