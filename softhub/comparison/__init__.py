"""Ways of doing a task side by side: hard prompts, few-shot, soft prompts, LoRA, fine-tuning."""

from softhub.comparison.few_shot import choose_shots
from softhub.comparison.hard_prompts import (
    HardPrompt,
    choose_hard_prompts,
    evaluate_hard_prompts,
    majority_class,
    without_model,
)
from softhub.comparison.methods import METHODS, Contest
from softhub.comparison.running import compare
from softhub.comparison.store import ComparedRow, RowStore

__all__ = [
    "METHODS",
    "ComparedRow",
    "Contest",
    "HardPrompt",
    "RowStore",
    "choose_hard_prompts",
    "choose_shots",
    "compare",
    "evaluate_hard_prompts",
    "majority_class",
    "without_model",
]
