"""Making a soft prompt: `fit`, `fit_mixture`, their arguments and result."""

from softhub.training.arguments import PromptTrainingArguments
from softhub.training.fitting import FitResult, TrainingInterrupted, fit
from softhub.training.mixture import Part, fit_mixture

__all__ = [
    "FitResult",
    "Part",
    "PromptTrainingArguments",
    "TrainingInterrupted",
    "fit",
    "fit_mixture",
]
