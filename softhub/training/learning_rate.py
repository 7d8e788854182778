"""Which learning rate a prompt is trained with: a number, or a rule that finds one.

How far a step of Adam moves a vector depends on the rate alone, not on the gradient's size; how far
it has to move depends on how long the base's embeddings are. Those of T5 are a hundred times as
long as SmolLM2's, and no single number suits both: a rate is a share of their length.
"""

from __future__ import annotations

import math

import torch

from softhub.errors import TrainingError
from softhub.model.base import BaseModel

RULES = ("scaled", "auto")
SHARE, SHARE_OF_ADAFACTOR = 0.08, 0.04
"""Of the root mean square of the vocabulary's embeddings; measured in `benchmarks/bake_off.py`.
Adafactor has no momentum that evens out its steps, so they go twice as far."""
_COMMONEST = 5000


class LearningRate(float):
    """A rule that finds a learning rate for a base and a task; or, read from text, a plain number.

    Until the rule is applied the number itself is NaN, which no optimizer takes for a rate.

    Raises:
        TrainingError: It is neither a number above 0 nor the name of a rule.
    """

    rule: str | None

    def __new__(cls, value: str | float) -> LearningRate:
        """Read a number or the name of a rule."""
        rule = rule_of(value) or (value if value in RULES else None)
        try:
            self = super().__new__(cls, math.nan if rule else value)
        except ValueError:
            self = super().__new__(cls, 0.0)
        if not rule and not 0 < self < math.inf:
            raise TrainingError(
                f"The learning rate is {value!r}: expected a number above 0, or one of "
                f"{', '.join(RULES)}."
            )
        self.rule = str(rule) if rule else None
        return self

    def __repr__(self) -> str:
        """The rule's name, or the number."""
        return self.rule or super().__repr__()

    __str__ = __repr__


def rule_of(rate: object) -> str | None:
    """The rule that a learning rate stands for; None if it is a number."""
    return getattr(rate, "rule", None)


def scaled_rate(base: BaseModel, optim: object = None) -> float:
    """The rate that suits most tasks on a base: `SHARE` of its embeddings' root mean square.

    Args:
        base: The base model.
        optim: transformers' name of the optimizer.

    Returns:
        The peak learning rate.
    """
    adafactor = getattr(optim, "value", optim) == "adafactor"
    return (SHARE_OF_ADAFACTOR if adafactor else SHARE) * embedding_scale(base)


def embedding_scale(base: BaseModel) -> float:
    """Root mean square of the vocabulary's first rows, which are its commonest."""
    with torch.no_grad():
        rows = base.embed(torch.arange(min(_COMMONEST, base.fingerprint["vocab_size"])))
    return float(rows.float().square().mean().sqrt())
