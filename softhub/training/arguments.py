"""Training arguments: those of transformers, with defaults that suit soft prompts."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import torch
from transformers import TrainingArguments

from softhub.config import Alternatives
from softhub.errors import TrainingError
from softhub.model.base import BaseModel
from softhub.terminal import is_quiet
from softhub.training.argument_checks import UNSUPPORTED, check_values, explained_arguments
from softhub.training.auto_steps import SCHEDULE
from softhub.training.callbacks import check_trackers
from softhub.training.learning_rate import check_learning_rate, scaled_rate

_PROVENANCE = (
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
    "bf16",
    "fp16",
)

# What changes the result as these do, but is not in the manifest.
_UNRECORDED = ("adam_beta1", "adam_beta2", "adam_epsilon", "optim_args", "lr_scheduler_kwargs")
# What may be another when a run is resumed; its learning rate is compared as a number.
_FREE = (
    "learning_rate",
    "learning_rate_rule",
    "gradient_accumulation_steps",
    "eval_steps",
    "early_stopping_patience",
    "auto_max_minutes",
)

AUTO_ONLY = ("auto_max_steps", "auto_max_minutes", "auto_patience")
"""Arguments that apply only with `max_steps="auto"`."""


def defaults_of(names: Collection[str]) -> dict[str, Any]:
    """Return the default values of training arguments, by name."""
    return {
        each.name: each.default for each in fields(PromptTrainingArguments) if each.name in names
    }


def _checked_steps(steps: int | str | None, epochs: float) -> int | str:
    """Return a number of steps, which a command line gives as text, or `"auto"`."""
    if steps is None:
        return -1 if epochs else "auto"
    if steps == "auto":
        return steps
    try:
        return int(str(steps))
    except ValueError:
        raise TrainingError(
            f"max_steps is {steps!r}; expected a number of optimizer steps, or 'auto'."
        ) from None


@dataclass
class PromptTrainingArguments(TrainingArguments):
    """All of transformers' `TrainingArguments`; the fields below are new or have other defaults.

    A soft prompt needs a learning rate about a thousand times that of fine-tuning: with the default
    of transformers, 5e-5, it learns nothing. The best rate depends on the base's embeddings, so
    the default is scaled to them; see `softhub.training.learning_rate`.

    The best checkpoint is the one with the lowest dev loss, because accuracy on a few hundred dev
    texts varies by a point or two by chance. `metric_for_best_model="accuracy"` selects by accuracy
    instead.

    Attributes:
        max_steps: Optimizer steps, or `"auto"`: until the dev loss of their moving average stops
            falling; see `softhub.training.auto_steps`. The default is auto, or -1 if
            `num_train_epochs` is given.
        num_train_epochs: Passes over the training data, in place of `max_steps`.
        auto_max_steps: Most steps of a run with `max_steps="auto"`.
        auto_max_minutes: Time limit of such a run in minutes, estimated from the speed so far; time
            before a resume is not counted.
        auto_patience: Passes over the training data, or a fraction of one, without a lower dev loss
            before it ends.
        learning_rate: The peak learning rate; the default is a fraction of the size of the base's
            embeddings.
        max_restarts: How often a failed run is restarted, with another learning rate and then also
            another initialization. A run fails if its loss is NaN or infinite, if it predicts a
            single label, or if it learns nothing. The last two are not detected for multi-label
            tasks, with `class_weights`, in distillation from probabilities, or if dev has only one
            label.
        early_stopping_patience: Stop after this many evaluations without improvement; 0 turns
            early stopping off.
    """

    # See `softhub.config.parse_config`.
    ALTERNATIVES: ClassVar[Alternatives] = {
        "max_steps": ("-1", ("num_train_epochs",)),
    }
    NOT_IN_HELP: ClassVar[Collection[str]] = UNSUPPORTED

    output_dir: str = field(default="runs/prompt", metadata={"help": "Folder of the checkpoints."})
    max_steps: int | str | None = field(  # type: ignore[assignment]
        default=None,
        metadata={"help": "Optimizer steps; auto, the default: until dev stops improving."},
    )
    num_train_epochs: float = field(
        default=0.0, metadata={"help": "Passes over the training data, in place of max_steps."}
    )
    auto_max_steps: int = field(default=2000, metadata={"help": "Maximum steps of auto."})
    auto_max_minutes: float | None = field(
        default=None, metadata={"help": "Time limit of auto in minutes, estimated from its speed."}
    )
    auto_patience: float = field(
        default=0.25, metadata={"help": "Data passes without a lower dev loss before auto stops."}
    )
    learning_rate: float | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Peak learning rate; default: scaled to the base."}
    )
    lr_scheduler_type: str = field(default="linear", metadata={"help": "Decay after warm-up."})
    warmup_steps: float = field(default=0.05, metadata={"help": "Steps, or a fraction below 1."})
    weight_decay: float = field(default=0.0, metadata={"help": "Pulls the prompt toward 0."})
    per_device_train_batch_size: int = field(default=8, metadata={"help": "Examples per step."})
    per_device_eval_batch_size: int = field(default=32, metadata={"help": "Examples per batch."})
    eval_strategy: str = field(default="steps", metadata={"help": "When to evaluate on dev."})
    eval_steps: float | None = field(default=20, metadata={"help": "Steps between evaluations."})
    save_strategy: str = field(default="steps", metadata={"help": "When to save a checkpoint."})
    save_steps: float = field(default=20, metadata={"help": "A multiple of eval_steps."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints to keep."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Best by dev loss."})
    logging_steps: float = field(default=10, metadata={"help": "Steps between logged losses."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hide NaN losses."})
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "Continue counting when a run is resumed."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Has no effect here."})
    report_to: None | str | list[str] = field(default="none", metadata={"help": "trackio, wandb…"})
    project: str = field(default="softhub", metadata={"help": "The run's project in trackio."})
    early_stopping_patience: int = field(
        default=0,
        metadata={"help": "Stop after this many evaluations without improvement; 0: never."},
    )
    max_restarts: int = field(default=2, metadata={"help": "Restarts of a run that failed."})

    def __post_init__(self) -> None:
        """Show progress bars on terminals only, and pin memory only for an accelerator.

        Raises:
            TrainingError: An argument is not valid, not supported, or names a missing tracker.
        """
        self.max_steps = _checked_steps(self.max_steps, self.num_train_epochs)
        check_learning_rate(self.learning_rate)
        check_values(self)
        self._check_length()
        if self.auto_max_minutes is not None and self.auto_max_minutes <= 0:
            raise TrainingError(
                f"auto_max_minutes is {self.auto_max_minutes!r}; expected a number above 0."
            )
        check_trackers(self.report_to)
        self.report_to = self.report_to or "none"
        self.dataloader_pin_memory &= torch.accelerator.is_available()
        if self.disable_tqdm is None:
            self.disable_tqdm = is_quiet() or not sys.stderr.isatty()
        with explained_arguments():
            super().__post_init__()
        if self._uses("fp16") and self.device.type == "cpu":
            raise TrainingError("fp16 needs a GPU; use bf16, or leave it out.")

    def _check_length(self) -> None:
        """Check that there are steps or epochs, of which only one has an effect."""
        by_steps = self.is_auto or int(self.max_steps or 0) > 0
        if by_steps == (self.num_train_epochs > 0):
            found = "both" if by_steps else "neither"
            raise TrainingError(
                f"Found {found} of max_steps and num_train_epochs, as numbers above 0; expected "
                f"one of them."
            )
        chooses = self.load_best_model_at_end or self.metric_for_best_model is not None
        evaluates = chooses and self.eval_strategy != "no"
        if self.early_stopping_patience and not evaluates:
            raise TrainingError(
                "early_stopping_patience needs evaluations on dev and the best of them: leave out "
                "early_stopping_patience, or eval_strategy and load_best_model_at_end."
            )

    def _uses(self, precision: str) -> bool:
        """Whether `bf16` or `fp16` is on; `accelerate launch` may turn it on by itself."""
        launched = getattr(self, "mixed_precision", "no")
        return bool(getattr(self, precision)) or launched == precision

    @property
    def is_auto(self) -> bool:
        """Whether the run ends by itself."""
        return self.max_steps == "auto"

    @property
    def rule(self) -> str | None:
        """The rule that chooses the learning rate; None if it is a number."""
        return "scaled" if self.learning_rate is None else None

    def resolved_for(self, base: BaseModel, *, prefix: bool) -> PromptTrainingArguments:
        """Return the same arguments with a number as the learning rate."""
        rate = scaled_rate(base, self.optim, prefix=prefix)
        return replace(self, learning_rate=rate) if self.rule else self

    def to_provenance(self, rule: str | None = None) -> dict[str, Any]:
        """Return the settings that affect the result of training, for the manifest.

        Args:
            rule: The rule that chose the learning rate, where that is a number by now.
        """
        settings = {key: getattr(self, key) for key in _PROVENANCE}
        plain = {key: getattr(value, "value", value) for key, value in settings.items()}
        plain |= {kind: self._uses(kind) for kind in ("bf16", "fp16")}
        if self.is_auto:
            plain["lr_scheduler_type"] = SCHEDULE
            plain |= {name: getattr(self, name) for name in AUTO_ONLY}
        plain["learning_rate_rule"] = rule or self.rule
        per_process = self.train_batch_size * self.gradient_accumulation_steps
        plain["examples_per_step"] = per_process * self.world_size
        return plain

    def to_identity(self) -> dict[str, Any]:
        """Return the settings with which alone a run can be resumed, by name."""
        recorded = self.to_provenance().items()
        unrecorded = {name: getattr(self, name) for name in _UNRECORDED}
        return {name: value for name, value in recorded if name not in _FREE} | unrecorded
