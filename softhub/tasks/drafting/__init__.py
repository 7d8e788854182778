"""Drafting a task from data: what the columns are, what to say to the model, what to beware of."""

from softhub.tasks.drafting.columns import Choices
from softhub.tasks.drafting.data_checks import Finding
from softhub.tasks.drafting.draft import Draft, Sample, draft_task
from softhub.tasks.drafting.lengths import Lengths, Ruler, WordRuler
from softhub.tasks.drafting.sources import Source, find_source

__all__ = [
    "Choices",
    "Draft",
    "Finding",
    "Lengths",
    "Ruler",
    "Sample",
    "Source",
    "WordRuler",
    "draft_task",
    "find_source",
]
