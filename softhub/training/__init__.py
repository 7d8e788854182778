"""Making a soft prompt: `fit`, its arguments and its result."""

from softhub.training.arguments import PromptTrainingArguments
from softhub.training.fitting import FitResult, TrainingInterrupted, fit

__all__ = ["FitResult", "PromptTrainingArguments", "TrainingInterrupted", "fit"]
