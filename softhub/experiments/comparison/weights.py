"""Training the base's own weights, for comparison only: all of them, or LoRA's beside them.

The loss, the batches and the choice of the best checkpoint are those of a soft prompt, so that
what a comparison shows is the method and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from softhub.model.base import BaseModel
from softhub.tasks import Example, Task
from softhub.training.arguments import PromptTrainingArguments
from softhub.training.callbacks import HistoryCallback
from softhub.training.encoded_task import encode_task
from softhub.training.module import LossModule
from softhub.training.trainer import PromptTrainer


@dataclass(frozen=True)
class WeightsResult:
    """What training the weights gave; the base now holds the best ones.

    Attributes:
        history: Logged losses, learning rates and dev scores, each with its step.
        best_score: The lowest dev loss.
        best_step: Its step.
        steps: Optimizer steps made in all.
        seconds: Wall time of training with its dev evaluations.
        trainable_parameters: Numbers that training changed.
        bytes: What has to be stored and shipped: those numbers, in the base's dtype.
    """

    history: list[dict[str, float]]
    best_score: float
    best_step: int
    steps: int
    seconds: float
    trainable_parameters: int
    bytes: int


class _BestWeights(TrainerCallback):
    """Keeps the trained weights of the lowest dev loss in memory; a checkpoint is gigabytes."""

    def __init__(self) -> None:
        self.loss, self.step = float("inf"), 0
        self.weights: dict[str, torch.Tensor] = {}

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        model: torch.nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep a copy if this is the best so far."""
        if model is None or metrics is None or not metrics["eval_loss"] < self.loss:  # NaN neither
            return
        self.loss, self.step = metrics["eval_loss"], state.global_step
        self.weights = {key: value.detach().clone() for key, value in trained(model).items()}


def trained(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that training changes, by name."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def fit_weights(
    base: BaseModel,
    task: Task,
    *,
    train: Sequence[Example],
    dev: Sequence[Example],
    args: PromptTrainingArguments,
    lora: LoraConfig | None = None,
) -> WeightsResult:
    """Train a base's weights in place; load a base of its own for this.

    Args:
        base: The base; it holds the best weights afterwards, and is frozen no more.
        task: What to train for.
        train: Examples to learn from.
        dev: Examples that choose the best weights.
        args: Training arguments; the learning rate has to suit weights (1e-5 to 1e-3), and
            checkpoints are neither written nor resumed.
        lora: Trains these low-rank matrices (Hu et al. 2021, arXiv 2106.09685) instead of all
            weights.

    Returns:
        How training went.
    """
    set_seed(args.seed)
    encoded = encode_task(base, task, train, dev, virtual_tokens=0)
    if lora is None:
        base.model.requires_grad_(True)
    else:
        inject_adapter_in_model(lora, base.model)
    module = LossModule(base, encoded.candidates, encoded.label_weights)
    best, history = _BestWeights(), HistoryCallback("loss")
    start = time.perf_counter()
    splits = (encoded.train, encoded.dev)
    trainer = PromptTrainer(module, encoded.task, args, *splits, [best, history])
    trainer.train()
    seconds = time.perf_counter() - start
    module.load_state_dict(best.weights, strict=False)
    numbers = trained(module).values()
    return WeightsResult(
        history=history.history,
        best_score=best.loss,
        best_step=best.step,
        steps=trainer.state.global_step,
        seconds=seconds,
        trainable_parameters=sum(value.numel() for value in numbers),
        bytes=sum(value.numel() * value.element_size() for value in numbers),
    )
