"""Ask a base in the state in which it is used, and leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from softhub.errors import BaseModelError
from softhub.model.base import BaseModel


@contextmanager
def as_in_use(base: BaseModel) -> Iterator[None]:
    """Run a base in its own precision and eval mode, also within a training step.

    Layers that checkpoint their activations would fill no cache.

    Raises:
        BaseModelError: The base chose another way to compute as it ran, and would keep it.
    """
    on = [
        (module, name)
        for module in base.model.modules()
        for name in ("training", "gradient_checkpointing")
        if getattr(module, name, False) is True
    ]
    for module, name in on:
        setattr(module, name, False)
    states = [(each, {**vars(each)}, dict(each.named_children())) for each in base.model.modules()]
    try:
        with torch.no_grad(), torch.autocast(base.device.type, enabled=False):
            yield
    finally:
        chosen = next((found for state in states if (found := _chosen(*state[:2]))), None)
        for module, fields, children in states if chosen else ():
            vars(module).update(fields)
            for name, child in children.items():  # the choice may have replaced them
                setattr(module, name, child)
        for module, name in on:
            setattr(module, name, True)
    if chosen:
        name, old, new = chosen
        raise BaseModelError(
            f"The base model {base.name!r} ({base.model.config.model_type}) changes its {name} "
            f"from {old!r} to {new!r} while a text runs through it, and keeps that for later "
            f"texts. The results must be those of each row alone: set {name} to {new!r} in its "
            "config, or use another base model."
        )


def _chosen(module: nn.Module, before: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """Return a field that named another way to compute, or none yet, with its old and new value.

    Numbers and flags that change are ignored: they count what ran, or say what is prepared.
    """
    for name, old in before.items():
        new = vars(module).get(name, old)
        if (old is None or isinstance(old, str)) and type(new) in (str, int) and new != old:
            return name, old, new
    return None
