"""transformers' Trainer for a soft prompt: checkpoints of kilobytes, batches by length."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import nn
from transformers import (
    EvalPrediction,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import EvalLoopOutput
from transformers.training_args import OptimizerNames

from softhub.errors import TrainingError
from softhub.metrics import compute
from softhub.metrics.label_sets import join_labels
from softhub.model.base import BaseModel
from softhub.tasks import Task
from softhub.training.argument_checks import explained_arguments
from softhub.training.arguments import PromptTrainingArguments
from softhub.training.auto_steps import SCHEDULE, TYPICAL_STEPS, AutoSteps, Ending
from softhub.training.averaging import AVERAGES, MovingAverage
from softhub.training.callbacks import ProgressLines, tracked
from softhub.training.checkpoints import is_complete
from softhub.training.data import (
    EncodedExamples,
    EpochSampler,
    LengthBucketSampler,
    collate,
    count_items,
)
from softhub.training.module import LossModule

PROMPT, UNIT, AVERAGE = "prompt", "unit", f"{AVERAGES}.0"
"""Names of the trained parameter, its unit and its average, and so their keys in a checkpoint."""


class CheckpointNotWritten(TrainingError):
    """A checkpoint could not be written, e.g. because the disk is full."""


class PromptTrainer(Trainer):
    """Trainer of a `LossModule`; everything else is transformers' own.

    Args:
        module: The module.
        task: Names the metrics and labels.
        args: Training arguments.
        train: Encoded training rows.
        dev: Encoded dev rows.
        callbacks: Callbacks in addition to the default ones.

    Raises:
        TrainingError: The optimizer cannot train what FSDP has sharded.
    """

    sampler: EpochSampler

    def __init__(
        self,
        module: LossModule,
        task: Task,
        args: PromptTrainingArguments,
        train: EncodedExamples,
        dev: EncodedExamples,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        args = args.resolved_for(module.base, prefix=module.prefix is not None)
        self.prompt_arguments = args
        if args.is_auto:
            args = replace(
                args,
                max_steps=args.auto_max_steps,
                lr_scheduler_type=SCHEDULE,
                warmup_steps=args.get_warmup_steps(TYPICAL_STEPS),
            )
        self._task = task
        self._evaluation_seconds, self._trained = 0.0, 0
        self._row_losses: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._lengths = train.lengths
        classification = module.candidates is not None
        args.label_names = ["labels"]
        super().__init__(
            model=module,
            args=args,
            data_collator=collate,
            train_dataset=train,
            eval_dataset=dev.by_length(),
            compute_metrics=self._metrics if classification else None,
            callbacks=list(callbacks),
        )
        # Asked here, where the Trainer has placed it, and not within a step that may be compiled.
        _ = module.base.capabilities.packs
        if self.is_fsdp_enabled and self.args.optim == OptimizerNames.ADAFACTOR:
            raise TrainingError(
                "optim='adafactor' is not supported under FSDP, because Adafactor cannot train "
                "sharded parameters. Leave optim out for AdamW, or choose another optimizer."
            )
        for default in (PrinterCallback, ProgressCallback):  # they write logs to stdout
            self.remove_callback(default)
        is_auto = self.prompt_arguments.is_auto
        self.add_callback(ProgressLines(ends_by_itself=is_auto))
        self.add_callback(_Epochs(self))
        self._average: MovingAverage | None = None
        if is_auto:
            self._average = MovingAverage(module)
            self.add_callback(self._average)
            self.add_callback(AutoSteps(self.prompt_arguments, self.steps_per_pass()))

    def steps_per_pass(self) -> int:
        """Return the optimizer steps of one pass over the training data."""
        return max(1, len(self._lengths) // self._rows_per_step)

    @property
    def _rows_per_step(self) -> int:
        step = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return int(step * self.args.world_size)

    def ending(self) -> str | None:
        """Say in one line why a run without a number of steps ended; None for another."""
        found = Ending.recorded(self.state.log_history)
        return None if found is None else str(found)

    def prompt_vectors(self) -> torch.Tensor:
        """Return the current prompt, `[P, H]` or of a prefix `[P, width]`, float32 on the CPU.

        Under FSDP it is gathered from all processes, each of which has to call this.
        """
        module = self.accelerator.unwrap_model(self._module)
        prompt = module.prompt if self._average is None else module.get_parameter(AVERAGE)
        whole: torch.Tensor = prompt.full_tensor() if hasattr(prompt, "full_tensor") else prompt
        vectors: torch.Tensor = module.vectors_from(whole.detach())
        return vectors.float().cpu().clone()

    def restore_complete_run(self, checkpoint: str) -> bool:
        """Restore a run that has made all its steps; transformers would make one more.

        Args:
            checkpoint: Folder of its last checkpoint.

        Returns:
            Whether the run was complete; if not, nothing was done.
        """
        state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
        if self.is_sharded or not self._is_complete(state):
            return False
        self.restore(checkpoint)
        return True

    @property
    def is_sharded(self) -> bool:
        """Whether checkpoints are loaded inside transformers' training loop only."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    @staticmethod
    def best_of(checkpoint: str) -> Path:
        """Return where the best weights of a run are, as its last checkpoint knows.

        The state has the path that the run had then; it may have been moved or copied since. A run
        without evaluations has no best weights, but the last.
        """
        state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
        return Path(checkpoint).with_name(Path(state.best_model_checkpoint or checkpoint).name)

    def restore(self, checkpoint: str) -> None:
        """Restore a run as it was at a checkpoint, with its best weights.

        Raises:
            TrainingError: The best weights are missing or damaged.
        """
        self.state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
        self._load_from_checkpoint(checkpoint)
        if self.state.best_model_checkpoint is None:
            return
        best = self.best_of(checkpoint)
        if not is_complete(best):
            raise TrainingError(
                f"{best}, which has the best weights of the run, is missing or damaged. Restore it "
                "from a backup, or train again with --overwrite."
            )
        self.state.best_model_checkpoint = str(best)
        self._load_best_model()

    def _is_complete(self, state: TrainerState) -> bool:
        """Whether a run has made its last step, or was stopped early."""
        saved = cast(Mapping[str, Any], state.stateful_callbacks or {})
        stopping = saved.get("EarlyStoppingCallback", {}).get("attributes", {})
        waited = stopping.get("early_stopping_patience_counter", 0)
        patience = self.prompt_arguments.early_stopping_patience
        ending = Ending.recorded(state.log_history)
        if ending is not None and ending.is_lifted_by(self.prompt_arguments):
            return False
        last = ending.ended_at if ending else self.args.max_steps
        return 0 < last <= state.global_step or 0 < patience <= waited

    @property
    def _module(self) -> nn.Module:
        assert self.model is not None
        return self.model

    def training_speed(self, runtime: float) -> float:
        """Return training examples per second of `runtime`, without the time spent on dev."""
        return self._trained / max(runtime - self._evaluation_seconds, 1e-9)

    def _metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        scores = np.asarray(prediction.predictions)  # [N, labels]
        predictions = self._names(self._chosen(scores, threshold=0.0))
        # [N] indices, [N, labels] decisions, or [N, labels] probabilities of a teacher
        answers = np.asarray(prediction.label_ids)
        if np.issubdtype(answers.dtype, np.floating):
            answers = self._chosen(answers, threshold=0.5)
        references = self._names(answers)
        metrics = {
            name: compute(name, predictions, references)
            for name in self._task.metrics or ("accuracy",)
        }
        return {
            **metrics,
            "labels_predicted": len(set(predictions)),
            "labels_present": len(set(references)),
        }

    def _chosen(self, scores: NDArray[Any], *, threshold: float) -> NDArray[Any]:
        """Return the index of the best label `[N]`; for multi-label, decisions `[N, labels]`."""
        return scores > threshold if self._task.multilabel else scores.argmax(-1)

    def _names(self, answers: NDArray[Any]) -> list[str]:
        """Return the label names of indices `[N]`, or of decisions `[N, labels]`."""
        labels = self._task.verbalizer.labels  # type: ignore[union-attr]
        if not self._task.multilabel:
            return [labels[index] for index in answers]
        return [join_labels(set(compress(labels, row)), labels) for row in answers]

    # --- what Trainer leaves to its subclasses ---

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; the base can be used afterwards as before, though FSDP leaves it sharded."""
        base: BaseModel = self._module.base  # type: ignore[assignment]
        _ = base.fingerprint  # computed and cached before FSDP shards the weights
        module = cast(LossModule, self._module)
        with tracked(self.args), module.base_left_as_it_was():
            output = super().train(*args, **kwargs)
        if base.is_sharded:
            # The root's own parameters (embeddings, norm, head), which no layer gathers again.
            self._module.unshard()  # type: ignore[operator]
        return output

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """Create the optimizer; one that is not installed or not supported is a wrong argument."""
        with explained_arguments():
            return super().create_optimizer(*args, **kwargs)

    def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
        """Create the schedule; one that lacks an argument of its own is a wrong argument."""
        with explained_arguments():
            return super().create_scheduler(*args, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        self.sampler = self._train_sampler()
        return self.sampler

    def _train_sampler(self) -> EpochSampler:
        # Accelerate splits each batch of a whole step by process and accumulation.
        return LengthBucketSampler(self._lengths, self._rows_per_step, self.args.seed)

    def training_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Count the examples that this process trains on; those before a resume do not count."""
        self._trained += inputs["input_ids"].shape[0] * self.args.world_size
        if self.args.torch_compile:  # a compiled base is not packed
            return super().training_step(model, inputs, *args, **kwargs)
        with cast(LossModule, self._module).packed_attention():
            return super().training_step(model, inputs, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate on dev, the average if there is one; the time it takes is not training time."""
        start = time.perf_counter()
        with nullcontext() if self._average is None else self._average.in_place():
            metrics = self._scores_on_dev(*args, **kwargs)
        self._evaluation_seconds += time.perf_counter() - start
        return metrics

    def _scores_on_dev(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate what the module has now."""
        metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        return metrics

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Average the loss over labels or target tokens; transformers averages over batches."""
        self._row_losses = []
        output = super().evaluation_loop(*args, **kwargs)
        # Of each batch the losses [B] and the numbers of items [B]: sums over all of them.
        losses, items = (
            float(torch.cat(parts).sum()) for parts in zip(*self._row_losses, strict=True)
        )
        key = f"{kwargs.get('metric_key_prefix', 'eval')}_loss"
        return output._replace(metrics={**(output.metrics or {}), key: losses / items})

    def prediction_step(
        self,
        model: nn.Module,
        inputs: Any,
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> Any:
        """Record each row's loss, and of how many labels or target tokens it is the sum."""
        found: Any = super().prediction_step(model, inputs, False, ignore_keys)
        loss, outputs, labels = found
        # `losses` [B] and, for classification, `logits` [B, labels]
        losses, *scores = outputs if isinstance(outputs, tuple) else (outputs,)
        # Gathering leaves out the rows that fill up the last batches of several processes.
        counted = (losses.float(), count_items(labels))
        self._row_losses.append(self.accelerator.gather_for_metrics(counted))
        return (loss, None, None) if prediction_loss_only else (loss, *scores, labels)

    def _determine_best_metric(self, *args: Any, **kwargs: Any) -> bool:
        """Save a checkpoint at each evaluation that is the best so far, whatever `save_steps` is.

        Otherwise the best weights would be lost between two checkpoints.
        """
        is_best: bool = super()._determine_best_metric(*args, **kwargs)
        self.control.should_save |= is_best and self.args.load_best_model_at_end
        return is_best

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint; torch and safetensors have errors of their own for a full disk."""
        try:
            super()._save_checkpoint(*args, **kwargs)
        except (OSError, RuntimeError, SafetensorError) as error:
            free = shutil.disk_usage(str(self.args.output_dir)).free
            reason = " ".join(str(error).split())
            raise CheckpointNotWritten(
                f"checkpoint-{self.state.global_step} ({reason}; {free / 1e6:.1f} MB are free)"
            ) from error

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Save the prompt alone: a checkpoint never contains the frozen base."""
        state = self._module.state_dict() if state_dict is None else state_dict
        super()._save(output_dir, state_dict=_of_prompt(state))

    def checkpoint_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of what a checkpoint contains, by name."""
        return {
            name: tuple(each.shape) for name, each in _of_prompt(self._module.state_dict()).items()
        }

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Only the prompt is in a checkpoint; the base's weights are not missing."""
        if PROMPT in load_result.missing_keys or load_result.unexpected_keys:
            super()._issue_warnings_after_load(load_result)


class _Epochs(TrainerCallback):
    """Tells the sampler its epoch.

    Accelerate does not reach it where several processes skip the first batches of an epoch: such a
    resumed run would take those of the first epoch again.
    """

    def __init__(self, trainer: PromptTrainer) -> None:
        self._trainer = trainer

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Set the epoch, of which a resumed run may have made some steps."""
        self._trainer.sampler.set_epoch(int(state.epoch or 0))


def _of_prompt(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name in (PROMPT, UNIT, AVERAGE)}
