"""Training arguments: those of transformers, with defaults that suit soft prompts."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import TrainingArguments

from softhub.model.base import BaseModel
from softhub.training.callbacks import check_trackers
from softhub.training.learning_rate import LearningRate, rule_of, scaled_rate
from softhub.training.reparameterization import check_reparameterization


@dataclass
class PromptTrainingArguments(TrainingArguments):
    """All of transformers' `TrainingArguments`; below are the defaults that differ, and ours.

    A soft prompt wants a learning rate a thousand times that of fine-tuning: with the default 5e-5
    of transformers nothing is learned at all. How high depends on the base's embeddings, so the
    default is a rule, not a number; see `softhub.training.learning_rate`.

    The best checkpoint is the one with the lowest dev loss: the accuracy of a few hundred dev texts
    moves by a point or two by chance. `metric_for_best_model="accuracy"` chooses by that instead.

    Attributes:
        learning_rate: A number; `"scaled"`, a share of the length of the base's embeddings; or
            `"auto"`, a range test of at most 32 steps before the run.
        max_restarts: A run whose loss is no number, that collapses to one label, or that learns
            nothing, is begun again with another rate or init at most so many times.
        early_stopping_patience: Stop after so many evaluations without a better one; 0 never.
        reparameterization: What is trained and folded into the vectors in the end: `none`,
            `residual`, `ulpt`, `superpos` or `mlp`; see `softhub.training.reparameterization`.
        reparameterization_size: Its width (`residual`, `mlp`), rank (`ulpt`) or number of sampled
            embeddings (`superpos`); None takes a good one.
    """

    output_dir: str = field(default="runs/prompt", metadata={"help": "Where checkpoints go."})
    max_steps: int = field(default=120, metadata={"help": "Optimizer steps; -1: by epochs."})
    learning_rate: LearningRate = field(
        default=LearningRate("scaled"),
        metadata={"help": "Peak rate; scaled: by the base's embeddings; auto: by a range test."},
    )
    lr_scheduler_type: str = field(default="linear", metadata={"help": "Decay after warm-up."})
    warmup_steps: float = field(default=0.05, metadata={"help": "Steps, or a share below 1."})
    weight_decay: float = field(default=0.0, metadata={"help": "Pulls vectors to 0; not wanted."})
    per_device_train_batch_size: int = field(default=8, metadata={"help": "Examples a step."})
    per_device_eval_batch_size: int = field(default=32, metadata={"help": "Examples a pass."})
    eval_strategy: str = field(default="steps", metadata={"help": "When to score on dev."})
    eval_steps: float | None = field(default=20, metadata={"help": "Steps between dev scores."})
    save_strategy: str = field(default="steps", metadata={"help": "When to save a checkpoint."})
    save_steps: float = field(default=20, metadata={"help": "A multiple of eval_steps."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints to keep."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Best by dev loss."})
    logging_steps: float = field(default=10, metadata={"help": "Steps between logged losses."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hide NaN losses."})
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "So that a resumed run stops early where it would have."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Of no use here."})
    report_to: None | str | list[str] = field(default="none", metadata={"help": "trackio, wandb…"})
    project: str = field(default="softhub", metadata={"help": "Where trackio files the run."})
    early_stopping_patience: int = field(
        default=0,
        metadata={"help": "Stop after so many dev scores without a better one; 0: never."},
    )
    max_restarts: int = field(default=2, metadata={"help": "Of a run that has failed."})
    reparameterization: str = field(
        default="none",
        metadata={"help": "Train through: none, residual, ulpt, superpos, mlp; folded on save."},
    )
    reparameterization_size: int | None = field(
        default=None, metadata={"help": "Width, rank or sampled embeddings of it."}
    )

    def __post_init__(self) -> None:
        """Show progress bars only where a person watches; pin memory only for an accelerator.

        Raises:
            TrainingError: The reparameterization or the learning rate is unknown.
        """
        rate = LearningRate(self.learning_rate)
        # Optimizers keep it in checkpoints, which are loaded without classes of our own.
        self.learning_rate = rate if rate.rule else float(rate)  # type: ignore[assignment]
        check_reparameterization(self.reparameterization, self.reparameterization_size)
        self.dataloader_pin_memory &= torch.accelerator.is_available()
        if self.disable_tqdm is None:
            self.disable_tqdm = not sys.stderr.isatty()
        super().__post_init__()
        check_trackers(self.report_to)

    def on(self, base: BaseModel) -> PromptTrainingArguments:
        """The same arguments with a number for a learning rate, the scaled one for any rule."""
        if rule_of(self.learning_rate) is None:
            return self
        return replace(self, learning_rate=LearningRate(scaled_rate(base, self.optim)))

    def to_provenance(self) -> dict[str, Any]:
        """The settings that decide what is learned, for the manifest."""
        keys = (
            "max_steps",
            "num_train_epochs",
            "learning_rate",
            "lr_scheduler_type",
            "warmup_steps",
            "weight_decay",
            "max_grad_norm",
            "optim",
            "gradient_accumulation_steps",
            "eval_steps",
            "metric_for_best_model",
            "early_stopping_patience",
            "reparameterization",
            "reparameterization_size",
            "bf16",
            "fp16",
        )
        settings = {key: getattr(self, key) for key in keys}
        plain = {key: getattr(value, "value", value) for key, value in settings.items()}
        # A launch file's setting, which leaves `bf16` and `fp16` as they are.
        launched = getattr(self, "mixed_precision", "no")
        plain |= {kind: plain[kind] or launched == kind for kind in ("bf16", "fp16")}
        plain["learning_rate"] = rule_of(self.learning_rate) or self.learning_rate
        plain["examples_per_step"] = self.train_batch_size * self.world_size
        return plain
