"""Run the rows of a batch in groups, for bases in which pads or other rows change results."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from softhub.model.assembly import PaddedBatch, group_rows
from softhub.model.base import BaseModel
from softhub.model.kv_cache import Prefix
from softhub.model.packing import SharedPrompt

PreparedPrompt = torch.Tensor | Prefix | SharedPrompt | None
"""A row's prompt: vectors `[P, H]`, their keys and values, or None for the bare base.

A `SharedPrompt` belongs to all rows of a batch, so that the base runs over it once.
"""


def row_lengths(prompts: Sequence[PreparedPrompt], rows: PaddedBatch) -> list[int]:
    """Return the number of tokens P + T of each row."""
    texts = rows.mask.sum(dim=1).tolist()
    return [virtual_tokens(prompt) + text for prompt, text in zip(prompts, texts, strict=True)]


def row_width(prompts: Sequence[PreparedPrompt], rows: PaddedBatch) -> int:
    """Return the most columns that a padded batch can have: the longest P and the longest T."""
    return max(map(virtual_tokens, prompts), default=0) + rows.ids.shape[1]


def virtual_tokens(prompt: PreparedPrompt) -> int:
    """Return the number of virtual tokens of a row's prompt; 0 for the bare base."""
    if isinstance(prompt, Prefix):
        return prompt.length
    vectors = prompt.vectors if isinstance(prompt, SharedPrompt) else prompt
    return 0 if vectors is None else vectors.shape[0]


def run_in_groups(
    base: BaseModel,
    prompts: Sequence[PreparedPrompt],
    rows: PaddedBatch,
    batching: str,
    run: Callable[[Sequence[PreparedPrompt], PaddedBatch], torch.Tensor],
) -> torch.Tensor:
    """Run rows in groups, and return `[B, n, …]` in their order, padded as the base's rows are."""
    groups = group_rows(row_lengths(prompts, rows), batching)
    parts = [run([prompts[i] for i in group], rows.select(group)) for group in groups]
    if len(parts) == 1:
        return parts[0]
    side = "right" if base.is_encoder_decoder else "left"
    pieces = [piece for part in parts for piece in part]
    padded = pad_sequence(pieces, batch_first=True, padding_side=side)  # [B, n, …]
    order = torch.tensor([index for group in groups for index in group], device=padded.device)
    return padded[order.argsort()]
