"""The methods of a comparison: their names in the order of tables, and what each of them does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

MAJORITY, FEW_SHOT, SOFT_PROMPT = "majority label", "few-shot", "soft prompt"
ENSEMBLE, LORA, FINE_TUNING = "soft-prompt ensemble", "LoRA", "full fine-tuning"
ZERO_SHOT, BIAS_CORRECTED = "zero-shot", "zero-shot, bias-corrected"

DESCRIPTIONS: Mapping[str, str] = MappingProxyType(
    {
        MAJORITY: "Always answers with the most frequent label of the training split.",
        ZERO_SHOT: "The base model with the best of the task's hard templates, chosen on dev.",
        BIAS_CORRECTED: "The same with the label prior removed: the mean log-probability of "
        "each label over the dev texts is subtracted from its score. The template is again the "
        "best one on dev.",
        FEW_SHOT: "The base model with solved examples before each text. The seed draws and orders "
        "the examples; dev decides whether the label prior is removed from the scores.",
        SOFT_PROMPT: "P learned vectors before the text; the base model is not changed.",
        ENSEMBLE: "Several soft prompts of the same length answer, and their probabilities are "
        "averaged.",
        LORA: "Learned low-rank matrices are added to the base model's weights, which are frozen.",
        FINE_TUNING: "All weights of the base model are trained; each task has its own copy.",
    }
)
METHODS = tuple(DESCRIPTIONS)


def method_family(method: str) -> str:
    """Return the name under which a method is listed and plotted: `few-shot` for `8-shot`."""
    return FEW_SHOT if re.fullmatch(r"\d+-shot", method) else method


def describe(method: str) -> str:
    """Return a sentence on what a method does; empty for a method of another program."""
    return DESCRIPTIONS.get(method_family(method), "")
