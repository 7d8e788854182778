"""A moving average of what is trained, which is evaluated and kept in its place.

At a constant learning rate the trained vectors move around a minimum of the loss. Their average is
closer to it, much as they are themselves after a decay of the rate (Polyak & Juditsky 1992;
Izmailov et al. 2018, arXiv 1803.05407; Hägele et al. 2024, arXiv 2405.18392). So a run whose length
is not known in advance needs no decay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from transformers import TrainerCallback, TrainerState

from softhub.training.module import trained_parameters

AVERAGES = "averages"
"""Name of the averages in a module, and the beginning of their keys in a checkpoint."""

_STEPS = 33  # over which it averages: see docs/training.md


class MovingAverage(TrainerCallback):
    """The exponential moving average of the trained parameters of a module.

    The averages are parameters of the module without a gradient, so checkpoints contain them, and
    FSDP shards them as it shards what they are averages of.

    Args:
        module: The module that is trained.
    """

    def __init__(self, module: nn.Module) -> None:
        trained = trained_parameters(module).values()
        copies = [nn.Parameter(each.detach().clone(), False) for each in trained]
        module.register_module(AVERAGES, nn.ParameterList(copies))
        self._module = module

    @torch.no_grad()
    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Take the step into account; the first steps have the same weight."""
        weight = 1 / min(state.global_step, _STEPS)
        for trained, average in self._pairs():
            average.mul_(1 - weight).add_(trained, alpha=weight)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averages in the place of the trained parameters."""
        own = [trained.detach().clone() for trained, _ in self._pairs()]
        self._set([average for _, average in self._pairs()])
        try:
            yield
        finally:
            self._set(own)

    @torch.no_grad()
    def _set(self, values: Sequence[torch.Tensor]) -> None:
        for (trained, _), value in zip(self._pairs(), values, strict=True):
            trained.copy_(value)

    def _pairs(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Return each trained parameter and its average: under FSDP, the shards of this process."""
        if isinstance(self._module, FSDPModule):
            self._module.reshard()  # an evaluation leaves the root's parameters gathered
        averages = self._module.get_submodule(AVERAGES).parameters()
        return list(zip(trained_parameters(self._module).values(), averages, strict=True))
