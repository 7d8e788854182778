"""Rows to tensors: the attended tokens of a row are exactly prompt then text, at 0 … P+T-1.

Rows are padded on the left, so that every row ends at the same index and goes on from there. Pads
are masked and not counted as positions; what a row answers cannot depend on them, nor on the rows
beside it. The distance between attended tokens is what it is alone, so windows slide right too.
An encoder's rows are padded on the right: many (BART) count positions from the first index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from softhub.model.base import BaseModel


@dataclass(frozen=True)
class Rows:
    """A batch of token rows, padded on the left.

    Attributes:
        ids: Token ids `[B, T]`, int64; anything where the mask is False.
        mask: Which of them are real `[B, T]`, bool.
    """

    ids: torch.Tensor
    mask: torch.Tensor

    def to(self, device: torch.device) -> Rows:
        """The same rows on another device."""
        return Rows(self.ids.to(device), self.mask.to(device))


def pad_rows(rows: Sequence[Sequence[int]], *, side: str = "left") -> Rows:
    """Stack token rows of different lengths.

    Args:
        rows: Token ids, one sequence a row; rows may be empty.
        side: `"left"` for texts, `"right"` for continuations.

    Returns:
        Rows `[B, T]` with T the longest row's length.
    """
    width = max((len(row) for row in rows), default=0)
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, row in enumerate(rows):
        span = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[index, span] = torch.tensor(row, dtype=torch.int64)
        mask[index, span] = True
    return Rows(ids, mask)


def positions_of(mask: torch.Tensor) -> torch.Tensor:
    """Positions of the attended tokens, counted from 0; pads get 0, which nothing sees.

    Args:
        mask: `[B, L]`, bool.

    Returns:
        Position ids `[B, L]`, int64.
    """
    return (mask.long().cumsum(dim=-1) - 1).clamp_min(0)


def embed_rows(
    base: BaseModel, prompts: Sequence[torch.Tensor | None], rows: Rows
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put each row's prompt in front of its embedded text.

    Args:
        base: The base model.
        prompts: For each row vectors `[P, H]` (P may differ from row to row) or None.
        rows: The texts, `[B, T]`.

    Returns:
        Embeddings `[B, L, H]` in the base's dtype and the mask `[B, L]`, L = longest P + T;
        padded on the left, for an encoder on the right.
    """
    embedded = base.embed(rows.ids)
    device, dtype = embedded.device, embedded.dtype
    lengths = rows.mask.sum(dim=-1).tolist()
    pieces = []
    for prompt, text, length in zip(prompts, embedded, lengths, strict=True):
        real = text[text.shape[0] - length :]
        pieces.append(real if prompt is None else torch.cat([prompt.to(device, dtype), real]))
    side = "right" if base.is_encoder_decoder else "left"
    counts = torch.tensor([piece.shape[0] for piece in pieces], device=device)
    columns = torch.arange(int(counts.max()), device=device)
    if side == "left":
        columns = columns.flip(0)
    padded = pad_sequence(pieces, batch_first=True, padding_side=side)
    return padded, columns < counts[:, None]


def position_arguments(base: BaseModel, mask: torch.Tensor, last: int) -> dict[str, Any]:
    """The mask and, for models that take them, positions of the `last` tokens of each row.

    Args:
        base: The base model. (Models without `position_ids` derive them from the mask.)
        mask: `[B, L]`, bool, over all tokens, cached ones too.
        last: How many tokens at the end are being fed now.
    """
    arguments: dict[str, Any] = {"attention_mask": mask.long()}
    if "position_ids" in base.forward_parameters:
        arguments["position_ids"] = positions_of(mask)[:, mask.shape[1] - last :]
    return arguments
