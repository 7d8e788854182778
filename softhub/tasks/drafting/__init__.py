"""Drafting a task file from data: guess columns and labels, propose templates, check the data."""

from softhub.tasks.drafting.columns import Choices
from softhub.tasks.drafting.draft import Draft, Sample, draft_task
from softhub.tasks.drafting.lengths import LengthCounter, Lengths
from softhub.tasks.drafting.sources import Source, find_source

__all__ = [
    "Choices",
    "Draft",
    "LengthCounter",
    "Lengths",
    "Sample",
    "Source",
    "draft_task",
    "find_source",
]
