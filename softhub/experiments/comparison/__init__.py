"""Soft prompts compared with hard prompts, few-shot prompts, LoRA and fine-tuning on one task."""

from softhub.experiments.comparison.method_names import METHODS
from softhub.experiments.comparison.running import compare
from softhub.experiments.comparison.setup import ComparisonConfig, ComparisonOptions
from softhub.experiments.comparison.store import ComparedRow, RowStore

__all__ = [
    "METHODS",
    "ComparedRow",
    "ComparisonConfig",
    "ComparisonOptions",
    "RowStore",
    "compare",
]
