"""The learning rate range test (Smith 2017, arXiv 1506.01186): a short run at rising rates."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback

from softhub.model.base import BaseModel
from softhub.plotting import style, to_png
from softhub.training.arguments import PromptTrainingArguments
from softhub.training.callbacks import Logs
from softhub.training.encoded_task import EncodedTask
from softhub.training.learning_rate import scaled_rate
from softhub.training.module import PromptTuningModule
from softhub.training.trainer import PromptTrainer

STEPS = 32
_SPAN = 32.0  # from the scaled rate divided by this to the scaled rate times this
_MEMORY = 0.75  # of the running mean of losses
_LEVEL = 5  # first steps, whose mean loss is that of the initialization
_DIVERGED = 1.5  # times that mean: the loss has climbed, unless the rate is still low
_VALLEY = 0.8  # times that mean: a good initialization may leave no room for such a loss
_BACK = 4.0  # the rate of the lowest loss is close to divergence: a full run needs a lower one


@dataclass
class RangeTest:
    """Learning rates and losses of a range test.

    Attributes:
        rates: The learning rate of each step.
        losses: The training loss of each step.
        smoothed: Its running mean, corrected for the bias of the first steps.
        chosen: The learning rate to train with.
    """

    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    smoothed: list[float] = field(default_factory=list)
    chosen: float = math.nan

    def add(self, rate: float, loss: float) -> bool:
        """Add a step, and return whether the loss has risen above its initial level."""
        self.rates.append(rate)
        self.losses.append(loss)
        weights = [_MEMORY**age for age in range(len(self.losses))]
        mean = sum(w * x for w, x in zip(weights, reversed(self.losses), strict=True))
        self.smoothed.append(mean / sum(weights))
        climbed = len(self.losses) > STEPS // 2 and self.smoothed[-1] > _DIVERGED * self._level
        return climbed or not math.isfinite(loss)

    def choose(self, otherwise: float) -> float:
        """Return the rate of the lowest running mean, divided by 4.

        Args:
            otherwise: The rate to take if the loss has no valley.
        """
        later = list(zip(self.smoothed, self.rates, strict=True))[_LEVEL:]
        valley = [(loss, rate) for loss, rate in later if loss < _VALLEY * self._level]
        self.chosen = min(valley)[1] / _BACK if valley else otherwise
        return self.chosen

    @property
    def _level(self) -> float:
        """The mean loss of the first steps, at rates that move little."""
        first = self.losses[:_LEVEL]
        return sum(first) / max(len(first), 1)


class _RangeCallback(TrainerCallback):
    def __init__(self, found: RangeTest) -> None:
        self.found = found

    def on_log(self, args: Any, state: Any, control: Any, logs: Logs = None, **kwargs: Any) -> None:
        # Never set to False: at the last step the trainer has set it to True.
        if logs and "loss" in logs and self.found.add(logs["learning_rate"], logs["loss"]):
            control.should_training_stop = True


class _RisingTrainer(PromptTrainer):
    def create_scheduler(
        self, num_training_steps: int, optimizer: Optimizer | None = None
    ) -> LambdaLR:
        def factor(step: int) -> float:
            return float(_SPAN ** (2 * min(step, STEPS - 1) / (STEPS - 1) - 1))

        rising = optimizer or self.optimizer
        assert rising is not None  # Trainer creates the optimizer first
        self.lr_scheduler = LambdaLR(rising, factor)
        self._created_lr_scheduler = True
        return self.lr_scheduler


def range_test(
    base: BaseModel, encoded: EncodedTask, vectors: torch.Tensor, args: PromptTrainingArguments
) -> RangeTest:
    """Find a learning rate for a task, a base, an initialization `[P, H]` and an optimizer."""
    found, center = RangeTest(), scaled_rate(base, args.optim)
    own = replace(
        args.with_learning_rate(center),
        max_steps=STEPS,
        logging_steps=1,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        report_to="none",
    )
    module = PromptTuningModule(base, vectors, encoded.candidates, encoded.label_weights)
    splits = (encoded.train, encoded.dev)
    _RisingTrainer(module, encoded.task, own, *splits, [_RangeCallback(found)]).train()
    found.choose(otherwise=center)
    torch.manual_seed(args.seed)
    return found


def write_range_test(folder: str | Path, test: RangeTest) -> Path:
    """Plot a range test as `range_test.png`: the loss by learning rate, and the chosen rate.

    Returns:
        The path of the plot.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    with style():
        figure = Figure(figsize=(5.2, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.plot(test.rates, test.losses, color="#8c8c8c", linewidth=0.8, label="each step")
        axes.plot(test.rates, test.smoothed, color="#0072B2", label="running mean")
        label = f"chosen: {test.chosen:.3g}"
        axes.axvline(test.chosen, color="#D55E00", linestyle="--", linewidth=1, label=label)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel("learning rate")
        axes.set_title("Learning rate range test: training loss")
        axes.legend()
    path = Path(folder) / "range_test.png"
    path.write_bytes(to_png(figure, dpi=150))
    return path
