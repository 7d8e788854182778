"""softhub: soft prompts as kilobyte adapters of one frozen language model.

The names below are loaded when they are first used, so that `import softhub` stays light::

    from softhub import Hub, PromptModel, load_base

    model = PromptModel(load_base("HuggingFaceTB/SmolLM2-135M-Instruct"))
    mood = model.load_prompt(Hub().pull("me/sentiment"))
    print(model.predict(["Worth every penny."], prompt=mood))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from softhub._version import __version__

if TYPE_CHECKING:
    from softhub.hub import Hub as Hub
    from softhub.inference.engine import PromptModel as PromptModel
    from softhub.model.base import load_base as load_base
    from softhub.model.prompt import SoftPrompt as SoftPrompt
    from softhub.tasks import Task as Task
    from softhub.training import fit as fit

__all__ = ["Hub", "PromptModel", "SoftPrompt", "Task", "__version__", "fit", "load_base"]

_HOME_OF = {
    "Hub": "softhub.hub",
    "PromptModel": "softhub.inference.engine",
    "SoftPrompt": "softhub.model.prompt",
    "Task": "softhub.tasks",
    "fit": "softhub.training",
    "load_base": "softhub.model.base",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its room on first use (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'softhub' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return sorted(__all__)
