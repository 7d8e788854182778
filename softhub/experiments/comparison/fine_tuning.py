"""Train weights, for comparison only: all of the base's, or those that PEFT adds to them.

Loss, batches and selection of the best checkpoint are the same as for a soft prompt, so that a
comparison measures only the method.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftConfig, inject_adapter_in_model
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from softhub.model.base import BaseModel
from softhub.tasks import Splits, Task
from softhub.training.arguments import PromptTrainingArguments
from softhub.training.callbacks import HistoryCallback
from softhub.training.encoded_task import encode_task
from softhub.training.module import LossModule, trained_parameters
from softhub.training.trainer import PromptTrainer


@dataclass(frozen=True)
class WeightsResult:
    """Summary of the training of weights; the base now has the best ones.

    Attributes:
        history: Logged losses, learning rates and dev scores, each with its step.
        best_score: The lowest dev loss.
        best_step: Its step.
        steps: Number of optimizer steps.
        seconds: Wall time of training, with its evaluations on dev.
        trainable_parameters: Number of trained parameters.
        bytes: Size of the trained parameters in the base's dtype.
    """

    history: list[dict[str, float]]
    best_score: float
    best_step: int
    steps: int
    seconds: float
    trainable_parameters: int
    bytes: int


class _BestWeights(TrainerCallback):
    """Copies the weights with the lowest dev loss to memory, because a checkpoint is gigabytes."""

    def __init__(self) -> None:
        self.loss, self.step = float("inf"), 0
        self.weights: dict[str, torch.Tensor] = {}

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Copy the weights if the dev loss is the lowest so far."""
        loss, model = kwargs["metrics"]["eval_loss"], kwargs["model"]
        if loss < self.loss:  # not if it is NaN
            self.loss, self.step = loss, state.global_step
            self.weights = {
                key: value.detach().clone() for key, value in trained_parameters(model).items()
            }


def fit_weights(
    base: BaseModel,
    task: Task,
    data: Splits,
    *,
    args: PromptTrainingArguments,
    config: PeftConfig | None = None,
) -> WeightsResult:
    """Train a base's weights in place; load a separate base for this.

    Args:
        base: The base; it has the best weights afterwards, and is no longer frozen.
        task: The task to train for.
        data: The train split to learn from, and the dev split that selects the best weights.
        args: Training arguments; the learning rate has to suit weights (1e-5 to 1e-3), and
            checkpoints are neither written nor resumed.
        config: Train what this adds to the base instead of all weights, e.g. low-rank matrices
            (LoRA, Hu et al. 2021, arXiv 2106.09685) or scales (IA3, Liu et al. 2022, arXiv
            2205.05638).
    """
    set_seed(args.seed)
    encoded = encode_task(base, task, data.train, data.dev, virtual_tokens=0)
    if config is None:
        base.model.requires_grad_(True)
    else:
        inject_adapter_in_model(config, base.model)
    module = LossModule(base, encoded.candidates, encoded.label_weights)
    best, history = _BestWeights(), HistoryCallback()
    splits = (encoded.train, encoded.dev)
    trainer = PromptTrainer(module, encoded.task, args, *splits, [best, history])
    start = time.perf_counter()
    steps = trainer.train().global_step
    seconds = time.perf_counter() - start
    module.load_state_dict(best.weights, strict=False)
    parameters = trained_parameters(module).values()
    count = sum(each.numel() for each in parameters)
    size = sum(each.numel() * each.element_size() for each in parameters)
    return WeightsResult(history.history, best.loss, best.step, steps, seconds, count, size)
