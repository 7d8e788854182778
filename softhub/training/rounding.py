"""Rounding of a trained prefix to bfloat16, which halves its file, where no answer changes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from softhub.adapter.manifest import PrefixShape
from softhub.model.assembly import pad_rows
from softhub.model.base import BaseModel
from softhub.model.scoring import encode_rows
from softhub.training.data import EncodedExamples, collate
from softhub.training.encoded_task import EncodedTask
from softhub.training.module import PromptTuningModule

_MOST_TARGETS = 64  # dev rows that are compared token by token
_ROWS = 4  # of them in a batch, because the logits of all their tokens are in memory


def round_prefix(
    base: BaseModel,
    tasks: Sequence[EncodedTask],
    vectors: torch.Tensor,
    shape: PrefixShape,
    batch_size: int,
) -> torch.Tensor:
    """Return a prefix rounded to bfloat16 if it gives the same answers on dev, else as it is.

    Answers are the labels of all dev texts, or the most likely token at each position of the target
    texts of up to 64 of them.

    Args:
        base: The base model.
        tasks: The tasks that it was trained for.
        vectors: The prefix, `[P, width]`.
        shape: How a row is divided.
        batch_size: Dev texts per batch.

    Returns:
        `[P, width]`, float32.
    """
    rounded = vectors.bfloat16().float()
    modules = [PromptTuningModule(base, part, None, prefix=shape) for part in (vectors, rounded)]
    for task in tasks:
        for module in modules:
            module.candidates = task.candidates
        answer = _labels if task.candidates is not None else _next_tokens
        exact, other = (answer(module.eval(), task.dev, batch_size) for module in modules)
        if not torch.equal(exact, other):
            return vectors
    return rounded


@torch.no_grad()
def _labels(module: PromptTuningModule, dev: EncodedExamples, batch_size: int) -> torch.Tensor:
    """Return the label of each dev text, `[N]`, or its decisions, `[N, labels]`."""
    assert module.candidates is not None
    found = []
    for start in range(0, len(dev), batch_size):
        indices = range(start, min(start + batch_size, len(dev)))
        batch = collate([dev[index] for index in indices])
        batch = {name: value.to(module.base.device) for name, value in batch.items()}
        scores = module(**batch)["logits"]  # [B, labels]
        found.append(scores > 0 if module.candidates.yes_no else scores.argmax(-1))
    return torch.cat(found)


@torch.no_grad()
def _next_tokens(module: PromptTuningModule, dev: EncodedExamples, batch_size: int) -> torch.Tensor:
    """Return the most likely token at each position of the targets, one after another."""
    found = []
    for start in range(0, min(len(dev), _MOST_TARGETS), _ROWS):
        rows = [dev[index] for index in range(start, min(start + _ROWS, len(dev)))]
        targets = pad_rows([row["labels"] for row in rows])  # as long as they are, at the end
        texts = pad_rows([(*row["input_ids"], *row["labels"]) for row in rows])
        keep = targets.ids.shape[1] + 1  # a token is predicted one position before
        prompts = module.prompts_of(len(rows), texts.ids.shape[1])
        encoded = encode_rows(module.base, prompts, texts, keep_cache=False, keep_logits=keep)
        assert encoded.logits is not None
        likely = encoded.logits[:, :-1].argmax(-1).cpu()  # [B, longest target]
        found.append(likely[targets.mask])
    return torch.cat(found)
