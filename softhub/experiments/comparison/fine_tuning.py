"""Train weights, for comparison only: all of the base's, or those that PEFT adds to them.

Loss, batches and selection of the best checkpoint are the same as for a soft prompt, so that a
comparison measures only the method.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftConfig, inject_adapter_in_model
from transformers import TrainerCallback, TrainerControl, TrainerState, set_seed

from softhub.model.base import BaseModel
from softhub.tasks import Splits, Task
from softhub.training.arguments import PromptTrainingArguments
from softhub.training.callbacks import HistoryCallback
from softhub.training.encoded_task import encode_task
from softhub.training.module import LossModule, trained_parameters
from softhub.training.running import explained_failures
from softhub.training.trainer import PromptTrainer


@dataclass(frozen=True)
class WeightsResult:
    """Summary of the training of weights; the base now has the best ones.

    Attributes:
        history: Logged losses, learning rates and dev scores, each with its step.
        best_score: The best value of the metric that the weights were chosen by (the dev loss);
            NaN without any.
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
    """Copies the weights that are best on dev to memory, because a checkpoint is gigabytes.

    They are chosen, and training stops early, as with a soft prompt: by `metric_for_best_model`.
    """

    def __init__(self) -> None:
        self.score, self.step, self.waited = math.nan, 0, 0
        self.weights: dict[str, torch.Tensor] = {}

    def on_evaluate(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Copy the weights if they are the best so far; else count, and stop if that is due."""
        name = (args.metric_for_best_model or "loss").removeprefix("eval_")
        # A metric that is missing is named by the Trainer, right after this.
        score = kwargs["metrics"].get(f"eval_{name}", math.nan)
        sign = 1 if args.greater_is_better else -1
        self.waited += 1
        if sign * score > (-math.inf if math.isnan(self.score) else sign * self.score):
            self.score, self.step, self.waited = score, state.global_step, 0
            trained = trained_parameters(kwargs["model"])
            self.weights = {key: value.detach().clone() for key, value in trained.items()}
        if 0 < args.early_stopping_patience <= self.waited:
            control.should_training_stop = True


def fit_weights(
    base: BaseModel,
    task: Task,
    data: Splits,
    *,
    args: PromptTrainingArguments,
    config: PeftConfig | None = None,
) -> WeightsResult:
    """Train a base's weights in place; load a separate base for this.

    What is trained becomes float32, whatever the dtype of the base.

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
    parameters = [*trained_parameters(module).values()]
    count = sum(each.numel() for each in parameters)
    size = sum(each.numel() * each.element_size() for each in parameters)
    for each in parameters:  # as a soft prompt: a step is too small for half precision
        each.data = each.data.float()
    trainer = PromptTrainer(module, encoded.task, args, *splits, [best, history])
    start = time.perf_counter()
    with explained_failures(trainer):
        steps = trainer.train().global_step
    seconds = time.perf_counter() - start
    module.load_state_dict(best.weights, strict=False)
    return WeightsResult(history.history, best.score, best.step, steps, seconds, count, size)
