"""Assemble rows: the attended tokens of a row are exactly prompt then text, at 0 … P + T - 1.

Rows are padded on the left, so that all rows end at the same index and continue from there. Pads
are masked and not counted as positions, so a row's answer cannot depend on them or on other rows.
Distances between attended tokens are those of the row alone, so sliding windows are correct too. An
encoder's rows are padded on the right: many (BART) count positions from the first index.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from softhub.model.base import BaseModel

PADDED, EQUAL, ALONE = "padded", "equal", "alone"
"""Which rows may run in one batch: any, with pads; those of equal length; none with another."""


@dataclass(frozen=True)
class PaddedBatch:
    """Token rows of different lengths as one tensor.

    Attributes:
        ids: Token ids `[B, T]`, int64; arbitrary where the mask is False.
        mask: Which of them are real `[B, T]`, bool.
    """

    ids: torch.Tensor
    mask: torch.Tensor

    def to(self, device: torch.device) -> PaddedBatch:
        """Return the same rows on another device."""
        return PaddedBatch(self.ids.to(device), self.mask.to(device))

    def select(self, indices: Sequence[int]) -> PaddedBatch:
        """Return some of the rows, without columns in which all of them have pads."""
        ids, mask = self.ids[indices], self.mask[indices]
        used = mask.any(dim=0)  # [T]
        return PaddedBatch(ids[:, used], mask[:, used])


def pad_rows(rows: Sequence[Sequence[int]], *, side: str = "left") -> PaddedBatch:
    """Stack token rows of different lengths.

    Args:
        rows: Token ids, one sequence per row; rows may be empty.
        side: `"left"` for texts, `"right"` for continuations.

    Returns:
        A batch `[B, T]` with T the length of the longest row.
    """
    width = max((len(row) for row in rows), default=0)
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, row in enumerate(rows):
        span = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[index, span] = torch.tensor(row, dtype=torch.int64)
        mask[index, span] = True
    return PaddedBatch(ids, mask)


def flush(rows: PaddedBatch, side: str = "right") -> PaddedBatch:
    """Move each row's real tokens to its end (`"right"`) or its beginning, in their order."""
    # A stable sort: pads (False) first, or last.
    order = rows.mask.long().argsort(dim=1, stable=True, descending=side == "left")  # [B, L]
    return PaddedBatch(rows.ids.gather(1, order), rows.mask.gather(1, order))


def join_rows(texts: PaddedBatch, targets: PaddedBatch) -> PaddedBatch:
    """Return texts and their targets as one left-padded batch `[B, T + N]`."""
    ids = torch.cat([texts.ids, targets.ids], dim=1)
    mask = torch.cat([texts.mask, targets.mask], dim=1)
    return flush(PaddedBatch(ids, mask))


def group_rows(lengths: Sequence[int], batching: str) -> list[list[int]]:
    """Return the indices of rows of some lengths, in the groups that may run in one batch."""
    groups: dict[Hashable, list[int]] = {}
    for index, length in enumerate(lengths):
        key = {PADDED: None, EQUAL: length, ALONE: index}[batching]
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def positions_of(mask: torch.Tensor) -> torch.Tensor:
    """Return position ids `[B, L]`, counted from 0 over the attended tokens of a mask `[B, L]`."""
    # Pads have a position too, which nothing attends to.
    return (mask.long().cumsum(dim=-1) - 1).clamp_min(0)


def embed_rows(
    base: BaseModel, prompts: Sequence[torch.Tensor | None], rows: PaddedBatch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prepend each row's prompt to its embedded text.

    Args:
        base: The base model.
        prompts: For each row vectors `[P, H]` (P may differ between rows) or None.
        rows: The texts, `[B, T]`.

    Returns:
        Embeddings `[B, L, H]` in the base's dtype and the mask `[B, L]`, L = longest P + T;
        padded on the left, for an encoder on the right.
    """
    embedded = base.embed(rows.ids)  # [B, T, H]
    device, dtype = embedded.device, embedded.dtype
    lengths = rows.mask.sum(dim=-1).tolist()
    # Concatenate each row without its pads, because prompts have different lengths.
    pieces = []
    for prompt, text, length in zip(prompts, embedded, lengths, strict=True):
        real = text[text.shape[0] - length :]  # [length, H]
        pieces.append(real if prompt is None else torch.cat([prompt.to(device, dtype), real]))
    # Pad again: a column is real if it is within the row's length, counted from the real side.
    side = "right" if base.is_encoder_decoder else "left"
    counts = torch.tensor([piece.shape[0] for piece in pieces], device=device)  # [B], P + T each
    columns = torch.arange(int(counts.max()), device=device)  # [L]
    if side == "left":
        columns = columns.flip(0)
    padded = pad_sequence(pieces, batch_first=True, padding_side=side)  # [B, L, H]
    return padded, columns < counts[:, None]


def position_arguments(base: BaseModel, mask: torch.Tensor, last: int) -> dict[str, Any]:
    """Return the mask and, for models that take them, the position ids of the `last` tokens.

    Args:
        base: The base model. (Models without `position_ids` derive them from the mask.)
        mask: `[B, L]`, bool, over all tokens, including cached ones.
        last: Number of tokens at the end that are input now.
    """
    arguments: dict[str, Any] = {"attention_mask": mask.long()}
    if "position_ids" in base.forward_parameters:
        arguments["position_ids"] = positions_of(mask)[:, mask.shape[1] - last :]  # [B, last]
    return arguments
