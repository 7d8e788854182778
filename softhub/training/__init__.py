"""Making soft prompts: `fit`, `fit_mixture`, `fit_tasks`, their arguments and result."""

from softhub.training.arguments import PromptTrainingArguments
from softhub.training.fit import fit
from softhub.training.mixture import MixtureResult, Part, fit_mixture
from softhub.training.multitask import fit_tasks
from softhub.training.running import FitResult, TrainingInterrupted

__all__ = [
    "FitResult",
    "MixtureResult",
    "Part",
    "PromptTrainingArguments",
    "TrainingInterrupted",
    "fit",
    "fit_mixture",
    "fit_tasks",
]
