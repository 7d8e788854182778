"""What transformers' `generate` receives for a batch; the probe asks about the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from softhub.model.assembly import PADDED, PaddedBatch, embed_rows
from softhub.model.base import BaseModel
from softhub.model.grouping import PreparedPrompt
from softhub.model.kv_cache import Prefix, join_prefixes, select_rows
from softhub.model.scoring import encode_rows, encoder_output


def generation_inputs(
    base: BaseModel,
    prompts: Sequence[PreparedPrompt],
    rows: PaddedBatch,
    *,
    shown: torch.Tensor | None = None,
    beams: int = 1,
) -> dict[str, Any]:
    """Return the arguments of `generate` for rows that may share a batch.

    Args:
        base: The base model.
        prompts: One for each row: vectors or None, or `Prefix` or None.
        rows: Texts `[B, T]`.
        shown: Ids that processors of logits see before the answer, `[B, ≤ P + T]`; by default
            those of the texts. A decoder that reads its input from them only reads the texts' ids.
        beams: Number of beams; `generate` repeats rows for them, but not a cache.
    """
    if base.is_encoder_decoder:
        encoded = encode_rows(base, prompts, rows, keep_cache=False, batching=PADDED)
        # The type that `generate` expects; transformers declares another.
        states: Any = encoded.encoder  # [B, P + T, H]
        return {"encoder_outputs": encoder_output(states), "attention_mask": encoded.mask.long()}
    inputs, mask = dict[str, Any](), rows.mask
    if any(isinstance(prompt, Prefix) for prompt in prompts):
        prefixes = [prompt if isinstance(prompt, Prefix) else None for prompt in prompts]
        cache, before = join_prefixes(base, prefixes)
        mask = torch.cat([before, mask], dim=1)  # [B, P + T]
        if cache is not None and beams > 1:
            index = torch.arange(len(prompts), device=base.device)
            cache = select_rows(cache, index.repeat_interleave(beams))
        inputs["past_key_values"] = cache
    elif any(prompt is not None for prompt in prompts):
        vectors = [prompt if isinstance(prompt, torch.Tensor) else None for prompt in prompts]
        inputs["inputs_embeds"], mask = embed_rows(base, vectors, rows)  # [B, P + T, H]
    ids = rows.ids if shown is None else shown
    ids = nn.functional.pad(ids, (mask.shape[1] - ids.shape[1], 0))  # [B, P + T]
    return {**inputs, "input_ids": ids, "attention_mask": mask.long()}
