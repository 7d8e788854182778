"""Tasks as data: texts, examples, labels and scores; no models and no torch."""

from softhub.tasks.dataset import (
    DatasetSource,
    Example,
    ExampleRows,
    Splits,
    SplitsLike,
    dataset_hash,
)
from softhub.tasks.task import Task
from softhub.tasks.template import Segment, Template
from softhub.tasks.verbalizer import Verbalizer

__all__ = [
    "DatasetSource",
    "Example",
    "ExampleRows",
    "Segment",
    "Splits",
    "SplitsLike",
    "Task",
    "Template",
    "Verbalizer",
    "dataset_hash",
]
