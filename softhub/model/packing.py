"""One pass over a prompt and the texts behind it, all laid out in a single row without pads.

A training step needs the prompt once and every text once. Run apart (`softhub.model.kv_cache`),
they meet the weights in two products, P rows and B * T rows with the pads; in one row they meet
them in one product of P + (real tokens) rows, which hardware does faster. Everything but attention
treats each position alone, so only attention must be told who sees whom: in every layer the model's
own attention function is called twice, for the prompt, and for the texts with the prompt's keys and
values in front. Nothing crosses from one text to another, so the result is exact.

transformers offers the places for it: attention functions by name (`AttentionInterface`), and masks
of four dimensions, which models hand on as they are, here with the row's layout.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from softhub.model.assembly import Rows, pad_rows, positions_of
from softhub.model.base import BaseModel
from softhub.model.kv_cache import filled_layers

_NAME = "softhub_packed"
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
_ROUGH = 0.05
"""Largest deviation in the test for packing, of the largest logit; half precision is rough."""

_IN_GROUPS = ("cpu",)
"""Devices where heads that share keys attend without copies; other kernels may copy the mask."""

_NO_GROUPS = nn.Module()
"""For transformers' attention function, which asks the layer whether keys are to be copied."""

_LAYOUT = "softhub_packing"
"""Attribute of a mask: the packing that it belongs to."""

_ONE_AT_A_TIME = threading.RLock()

_WINDOWS: WeakKeyDictionary[BaseModel, int] = WeakKeyDictionary()
"""What `longest_packed` found out of each base: every start is tried by a tuner of its own."""


@dataclass(frozen=True)
class Shared:
    """A prompt that stands before every text of a batch, and is fed once with all of them.

    Attributes:
        vectors: The prompt, `[P, H]`; its gradient is kept if it wants one.
    """

    vectors: torch.Tensor


@dataclass(frozen=True)
class Packing:
    """Where the tokens of a batch lie in its packed row of P + N positions.

    Attributes:
        length: Virtual tokens P.
        mask: Which columns of the padded batch are real, `[B, P + T]`, bool.
        places: Index in the packed row for every column of the padded batch, `[B, P + T]`, int64;
            pads have that of the prompt's last token.
        real: Indices of the N real tokens among the texts' B * T, int64.
    """

    length: int
    mask: torch.Tensor
    places: torch.Tensor
    real: torch.Tensor
    _biases: dict[tuple[int, torch.dtype], torch.Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, length: int, rows: Rows) -> Packing:
        """Lay out a prompt of `length` virtual tokens and texts `[B, T]`, padded on the left."""
        flat = rows.mask.flatten()
        texts = torch.where(flat, length - 1 + flat.cumsum(0), length - 1).view_as(rows.ids)
        before = torch.arange(length, device=texts.device).expand(texts.shape[0], -1)
        mask = torch.cat([torch.ones_like(before, dtype=torch.bool), rows.mask], dim=1)
        return cls(length, mask, torch.cat([before, texts], dim=1), flat.nonzero().squeeze(1))

    @property
    def positions(self) -> torch.Tensor:
        """Positions of the packed row, `[1, P + N]`: every text's go on where the prompt ends."""
        positions = positions_of(self.mask)
        texts = positions[:, self.length :].flatten()[self.real]
        return torch.cat([positions[0, : self.length], texts]).unsqueeze(0)

    @property
    def seen(self) -> torch.Tensor:
        """What each token of the texts sees of prompt and text, `[B, 1, T, P + T]`, bool.

        It takes the packing along to the layers, and again where a checkpointed layer runs anew.
        """
        columns = torch.arange(self.mask.shape[1], device=self.mask.device)
        causal = columns <= columns[self.length :, None]
        seen = (causal & self.mask[:, None, :]).unsqueeze(1)
        setattr(seen, _LAYOUT, self)
        return seen

    def bias(self, groups: int, dtype: torch.dtype) -> torch.Tensor:
        """What is `seen` as it is added to attention, `[B, 1, groups * T, P + T]`.

        All layers have the same, where each would keep a copy for the backward pass of what torch
        makes of a bool mask.
        """
        if (groups, dtype) not in self._biases:
            unseen = ~self.seen.repeat(1, 1, groups, 1)
            bias = torch.zeros(unseen.shape, dtype=dtype, device=unseen.device)
            self._biases[groups, dtype] = bias.masked_fill_(unseen, -torch.inf)
        return self._biases[groups, dtype]

    def split(self, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Take `[1, heads, P + N, d]` apart: `[1, heads, P, d]`, and padded `[B, heads, T, d]`."""
        prompt, texts = tensor.split([self.length, tensor.shape[2] - self.length], dim=2)
        places = (self.places[:, self.length :] - self.length).clamp_min(0)
        # Models keep a position's heads together, so whole positions are copied.
        padded = texts[0].transpose(0, 1).index_select(0, places.flatten())
        return prompt, padded.unflatten(0, places.shape).transpose(1, 2)

    def join(self, prompt: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """Put the two parts that `split` gives into one batch, `[B, heads, P + T, d]`."""
        return torch.cat([prompt.expand(texts.shape[0], -1, -1, -1), texts], dim=2)

    def cache(self, base: BaseModel, packed: DynamicCache) -> DynamicCache:
        """Keys and values of the padded batch, from those of the packed row."""
        cache = DynamicCache(config=base.model.config)
        for index, layer in enumerate(filled_layers(packed)):
            keys, values = (self.join(*self.split(each)) for each in (layer.keys, layer.values))
            cache.update(keys, values, index)
        return cache


def longest_packed(base: BaseModel) -> int:
    """How long a row may be, prompt and text and what continues it, for a base to be fed packed.

    Layers with sliding windows see all of a row that is no longer than the window. Whether a base
    answers a packed row as it answers the rows alone is found out by running both on a few tokens,
    where transformers' scaled dot product attention is at work: positions may meet elsewhere too.

    Returns:
        The most tokens; 0 if the base cannot be fed so.
    """
    model = base.model
    parts = (module for module in model.modules() if isinstance(module, PreTrainedModel))
    plain = all(part.config._attn_implementation == "sdpa" for part in parts)
    wanted = {"position_ids", "logits_to_keep", "past_key_values"} <= base.forward_parameters
    supported = wanted and plain and getattr(model, "_supports_attention_backend", False)
    if not supported or base.is_spread or base.is_encoder_decoder:
        return 0
    if base not in _WINDOWS:
        try:
            window = _shortest_window(base)
            _WINDOWS[base] = window if window and _answers_alike(base) else 0
        except Exception:
            return 0  # it wants to be called in another way, or its weights are elsewhere (ZeRO-3)
    return _WINDOWS[base]


def _shortest_window(base: BaseModel) -> int:
    """The shortest of the layers' windows; 0 if some layer keeps other things than what it saw."""
    layers: list[Any] = DynamicCache(config=base.model.config).layers
    if not layers or not {type(layer) for layer in layers} <= {
        DynamicLayer,
        DynamicSlidingWindowLayer,
    }:
        return 0
    return min(int(getattr(layer, "sliding_window", sys.maxsize)) for layer in layers)


@torch.no_grad()
def _answers_alike(base: BaseModel) -> bool:
    """Compare packed logits with each row's own, of texts of different lengths."""
    texts = ((2, 3, 4, 5), (6, 7), (5, 4, 3))
    rows, vectors = pad_rows(texts).to(base.device), base.embed(torch.tensor([1, 7, 6]))
    packing = Packing.of(len(vectors), rows)
    ends = packing.places[:, -1]
    found = run_packed(base, base.model, packing, vectors, rows, logits_to_keep=ends).logits[0]
    for text, logits in zip(texts, found, strict=True):
        alone = torch.cat([vectors, base.embed(torch.tensor(text))]).unsqueeze(0)
        expected = base.model(inputs_embeds=alone, use_cache=False).logits[0, -1]
        bound = _TOLERANCE.get(expected.dtype, _ROUGH) * expected.abs().max()
        if not (logits - expected).abs().max() <= bound:  # nor if either is not a number
            return False
    return True


def run_packed(
    base: BaseModel,
    module: nn.Module,
    packing: Packing,
    vectors: torch.Tensor,
    rows: Rows,
    **options: Any,
) -> Any:
    """Run a prompt and its texts, rows no longer than `longest_packed`, through a base.

    Args:
        base: The base model.
        module: What of it: the whole model, or its trunk.
        packing: The layout of `rows`.
        vectors: The prompt, `[P, H]`.
        rows: Texts `[B, T]`, padded on the left, on the base's device.
        options: Further arguments of the module's `forward`.

    Returns:
        The module's output for the packed row, a batch of one.
    """
    texts = base.embed(rows.ids.flatten()[packing.real])
    embedded = torch.cat([vectors.to(texts.device, texts.dtype), texts]).unsqueeze(0)
    arguments = {"attention_mask": packing.seen, "position_ids": packing.positions, **options}
    with attending_packed(base.model):
        return module(inputs_embeds=embedded, **{"use_cache": False, **arguments})


@contextmanager
def attending_packed(model: PreTrainedModel) -> Iterator[None]:
    """Let a model's layers attend packed rows; all that is not packed they attend as ever.

    What runs layers again in the backward pass, activation checkpointing, needs it to the end of
    that. Two threads could take the name of the function from each other, so they wait.

    Args:
        model: That of a base with a `longest_packed`.
    """
    with _ONE_AT_A_TIME:
        before = model.config._attn_implementation
        if before == _NAME:  # a pass within a step: the step has done it
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
    """Attention of one layer: `[1, heads, P + N, d]` in, `[1, P + N, heads, d]` out."""
    packing = getattr(attention_mask, _LAYOUT, None)
    if packing is None or attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    queries, keys, values = (packing.split(each) for each in (query, key, value))
    own = queries[0], keys[0], values[0]
    prompt, _ = sdpa_attention_forward(module, *own, None, **options)
    behind = queries[1], packing.join(*keys), packing.join(*values)
    if query.device.type in _IN_GROUPS:
        texts = _attend_in_groups(packing, *behind, **options)
    else:
        texts, _ = sdpa_attention_forward(module, *behind, attention_mask, **options)
    real = texts.flatten(0, 1).index_select(0, packing.real)
    return torch.cat([prompt[0], real]).unsqueeze(0), None


def _attend_in_groups(
    packing: Packing,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    **options: Any,
) -> torch.Tensor:
    """Attention `[B, T, heads, d]` of heads of which groups share keys and values, without copies.

    A group's queries stand behind each other as if they were of one head.
    """
    groups = query.shape[1] // key.shape[1]
    together = query.unflatten(1, (-1, groups)).flatten(2, 3)
    bias = packing.bias(groups, query.dtype)
    found, _ = sdpa_attention_forward(_NO_GROUPS, together, key, value, bias, **options)
    shape = (found.shape[0], groups, query.shape[2], *found.shape[2:])
    return found.reshape(shape).permute(0, 2, 3, 1, 4).flatten(2, 3)


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, sdpa_mask)
