"""Training soft prompts: `fit`, `fit_mixture` and `fit_tasks`, their arguments and results."""

from softhub.training.arguments import PromptTrainingArguments
from softhub.training.fit import fit
from softhub.training.mixture import fit_mixture
from softhub.training.multitask import fit_tasks
from softhub.training.running import FitResult

__all__ = [
    "FitResult",
    "PromptTrainingArguments",
    "fit",
    "fit_mixture",
    "fit_tasks",
]
