"""softhub: soft prompts as kilobyte adapters of one frozen language model.

The public names are imported when they are first used, so that `import softhub` stays light::

    from softhub import Hub, PromptModel

    model = PromptModel.from_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct")
    sentiment = model.load_prompt(Hub().pull("me/sentiment"))
    print(model.predict(["Worth every penny."], prompt=sentiment))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from softhub._version import __version__

if TYPE_CHECKING:
    from softhub.evaluation.calibrate import calibrate as calibrate
    from softhub.evaluation.evaluate import evaluate as evaluate
    from softhub.experiments.comparison import compare as compare
    from softhub.experiments.distillation import distill as distill
    from softhub.experiments.experiment import evaluate_run as evaluate_run
    from softhub.experiments.recipe import run_recipe as run_recipe
    from softhub.hub import Hub as Hub
    from softhub.inference.engine import PromptModel as PromptModel
    from softhub.inference.prediction import Prediction as Prediction
    from softhub.inference.predictor import Predictor as Predictor
    from softhub.model.loading import load_base as load_base
    from softhub.model.prompt import SoftPrompt as SoftPrompt
    from softhub.tasks import Example as Example
    from softhub.tasks import Task as Task
    from softhub.training import PromptTrainingArguments as PromptTrainingArguments
    from softhub.training import fit as fit
    from softhub.training import fit_tasks as fit_tasks

_HOME_OF = {
    "Example": "softhub.tasks",
    "Hub": "softhub.hub",
    "Prediction": "softhub.inference.prediction",
    "Predictor": "softhub.inference.predictor",
    "PromptModel": "softhub.inference.engine",
    "PromptTrainingArguments": "softhub.training",
    "SoftPrompt": "softhub.model.prompt",
    "Task": "softhub.tasks",
    "calibrate": "softhub.evaluation.calibrate",
    "compare": "softhub.experiments.comparison",
    "distill": "softhub.experiments.distillation",
    "evaluate": "softhub.evaluation.evaluate",
    "evaluate_run": "softhub.experiments.experiment",
    "fit": "softhub.training",
    "fit_tasks": "softhub.training",
    "load_base": "softhub.model.loading",
    "run_recipe": "softhub.experiments.recipe",
}

__all__ = ["__version__", *_HOME_OF]


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'softhub' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted(__all__)
