"""The learning rate of a prompt: a number, or one that is scaled to the base's embeddings.

How far a step of Adam moves a vector depends on the learning rate alone, not on the size of the
gradient; how far it has to move depends on the size of the base's embeddings. Those of T5 are a
hundred times as large as those of SmolLM2, so no single number suits both: the default is a
fraction of their size, and for a prefix of the size of each layer's keys and values.
"""

from __future__ import annotations

import math

import torch

from softhub.errors import TrainingError
from softhub.model.base import BaseModel

SHARE, SHARE_OF_ADAFACTOR = 0.08, 0.04
"""Fractions of the root mean square of the embeddings, as measured in `benchmarks/bake_off.py`.
Adafactor has no momentum that evens out its steps, so the same rate moves a vector further."""
SHARE_OF_PREFIX = 0.02
"""The same of a prefix, whose parameters are in units of each layer's root mean square already."""
_FREQUENT = 5000  # the first rows of a table are usually those of the most frequent tokens


def check_learning_rate(rate: float | None) -> None:
    """Check that a learning rate is a number above 0, or None for the scaled one.

    Raises:
        TrainingError: It is neither.
    """
    if rate is not None and not (isinstance(rate, int | float) and 0 < rate < math.inf):
        raise TrainingError(
            f"learning_rate is {rate!r}; expected a number above 0. Leave it out to use a rate "
            "that is scaled to the base model."
        )


def is_same_rate(one: float, other: float) -> bool:
    """Return whether two rates are equal, but for how devices round the sum of embeddings."""
    return math.isclose(one, other, rel_tol=1e-4)


def scaled_rate(base: BaseModel, optim: object = None, *, prefix: bool = False) -> float:
    """Return the rate that suits most tasks on a base: a fraction of the size of what is trained.

    Args:
        base: The base model.
        optim: transformers' name of the optimizer.
        prefix: Whether a prefix is trained: keys and values rather than embeddings.

    Returns:
        The peak learning rate.
    """
    adafactor = getattr(optim, "value", optim) == "adafactor"
    if prefix:
        return SHARE_OF_PREFIX * (SHARE_OF_ADAFACTOR / SHARE if adafactor else 1)
    return (SHARE_OF_ADAFACTOR if adafactor else SHARE) * embedding_scale(base)


def embedding_scale(base: BaseModel) -> float:
    """Return the root mean square of the embeddings of frequent tokens."""
    return float(frequent_rows(base).square().mean().sqrt())


def frequent_rows(base: BaseModel) -> torch.Tensor:
    """Return the embeddings of the first tokens of the vocabulary, `[≤ 5000, H]`, float32."""
    with torch.no_grad():
        rows = base.embed(torch.arange(min(_FREQUENT, base.fingerprint["vocab_size"])))
    return rows.float()
