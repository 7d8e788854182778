"""The names of a comparison's methods, in the order of tables."""

from __future__ import annotations

import re

MAJORITY, FEW_SHOT, SOFT_PROMPT = "majority label", "few-shot", "soft prompt"
PREFIX, ENSEMBLE = "prefix", "soft-prompt ensemble"
IA3, LORA, FINE_TUNING = "IA3", "LoRA", "full fine-tuning"
ZERO_SHOT, BIAS_CORRECTED = "zero-shot", "zero-shot, bias-corrected"
OPTIMIZED = "optimized hard prompt"
RATE_SEARCHED = "rate searched"
"""Part of the setting of a row whose learning rate was searched on dev rather than given."""

METHODS = (
    *(MAJORITY, ZERO_SHOT, BIAS_CORRECTED, OPTIMIZED, FEW_SHOT),
    *(SOFT_PROMPT, PREFIX, ENSEMBLE, IA3, LORA, FINE_TUNING),
)


def method_family(method: str) -> str:
    """Return the name under which a method is listed and plotted: `few-shot` for `8-shot`."""
    return FEW_SHOT if re.fullmatch(r"\d+-shot", method) else method
