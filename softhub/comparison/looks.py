"""Colour and marker of each method, the same in every plot.

Colours are those of Okabe & Ito, which people with any kind of colour vision tell apart; markers
differ too.
"""

from __future__ import annotations

from dataclasses import dataclass

from softhub.comparison.summary import FEW_SHOT, is_few_shot


@dataclass(frozen=True)
class Look:
    """Colour and marker of a method."""

    color: str
    marker: str


_OTHER = Look("#8c8c8c", "x")
_LOOKS = {
    "zero-shot": Look("#E69F00", "v"),
    "zero-shot, calibrated": Look("#E69F00", "^"),
    FEW_SHOT: Look("#CC79A7", "h"),
    "soft prompt": Look("#0072B2", "o"),
    "soft-prompt ensemble": Look("#56B4E9", "P"),
    "LoRA": Look("#009E73", "s"),
    "full fine-tuning": Look("#D55E00", "D"),
}


def look(method: str) -> Look:
    """The look of a method, the same in every plot."""
    return _LOOKS.get(FEW_SHOT if is_few_shot(method) else method, _OTHER)
