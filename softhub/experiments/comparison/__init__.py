"""Ways of doing one task side by side: hard prompts, few-shot, soft prompts, LoRA, fine-tuning."""

from softhub.experiments.comparison.methods import METHODS, Contest
from softhub.experiments.comparison.running import compare
from softhub.experiments.comparison.store import ComparedRow, RowStore

__all__ = ["METHODS", "ComparedRow", "Contest", "RowStore", "compare"]
