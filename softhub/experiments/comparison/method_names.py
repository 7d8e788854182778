"""The names of a comparison's methods, in the order of tables."""

from __future__ import annotations

import re

MAJORITY, FEW_SHOT, SOFT_PROMPT = "majority label", "few-shot", "soft prompt"
ENSEMBLE, LORA, FINE_TUNING = "soft-prompt ensemble", "LoRA", "full fine-tuning"
ZERO_SHOT, BIAS_CORRECTED = "zero-shot", "zero-shot, bias-corrected"

METHODS = (
    *(MAJORITY, ZERO_SHOT, BIAS_CORRECTED, FEW_SHOT),
    *(SOFT_PROMPT, ENSEMBLE, LORA, FINE_TUNING),
)


def method_family(method: str) -> str:
    """Return the name under which a method is listed and plotted: `few-shot` for `8-shot`."""
    return FEW_SHOT if re.fullmatch(r"\d+-shot", method) else method
