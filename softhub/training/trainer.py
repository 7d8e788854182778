"""transformers' Trainer around a `Tuner`: checkpoints of kilobytes, batches by length."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import (
    EarlyStoppingCallback,
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
from softhub.training.arguments import PromptTrainingArguments
from softhub.training.callbacks import ProgressLines, tracked
from softhub.training.data import EncodedExamples, LengthBucketSampler, collate, items_of
from softhub.training.module import Tuner
from softhub.training.reparameterization import fold

_PROMPT_KEYS = "prompt."


class PromptTrainer(Trainer):
    """Trainer of a `Tuner`; everything else is transformers' own.

    Args:
        tuner: The module.
        task: Names the metrics and labels.
        args: Training arguments.
        train: Encoded training rows.
        dev: Encoded dev rows.
        callbacks: Callbacks beside the default ones.

    Raises:
        TrainingError: The optimizer cannot train what FSDP has sharded.
    """

    def __init__(
        self,
        tuner: Tuner,
        task: Task,
        args: PromptTrainingArguments,
        train: EncodedExamples,
        dev: EncodedExamples,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self.prompt_arguments = args = args.on(tuner.base)
        self._task = task
        self._evaluation_seconds = 0.0
        self._trained = 0
        self._judged: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._lengths = train.lengths
        classification = tuner.candidates is not None
        args.label_names = ["labels"]
        super().__init__(
            model=tuner,
            args=args,
            data_collator=collate,
            train_dataset=train,
            eval_dataset=dev.by_length(),
            compute_metrics=self._metrics if classification else None,
            callbacks=list(callbacks),
        )
        if self.is_fsdp_enabled and self.args.optim == OptimizerNames.ADAFACTOR:
            raise TrainingError(
                "Found optim=adafactor under FSDP, whose sharded parameters it cannot train; "
                "expected another optimizer. Leave optim out for AdamW."
            )
        for default in (PrinterCallback, ProgressCallback):  # they write logs to stdout
            self.remove_callback(default)
        self.add_callback(ProgressLines())

    def prompt_vectors(self) -> torch.Tensor:
        """The prompt as it stands, `[P, H]`, float32 on the CPU; gathered if it is sharded."""
        return fold(self.accelerator.unwrap_model(self._module).prompt)

    def take_over(self, checkpoint: str) -> bool:
        """Take over a run that has made all its steps, as it is; transformers would add one.

        Args:
            checkpoint: Folder of its last checkpoint.

        Returns:
            Whether it has; if not, nothing was done.
        """
        state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if sharded or not self._is_over(state):
            return False
        self.state = state
        self._load_from_checkpoint(checkpoint)
        if state.best_model_checkpoint:
            self._load_best_model()
        return True

    def _is_over(self, state: TrainerState) -> bool:
        saved = cast(Mapping[str, Any], state.stateful_callbacks or {})
        stopping = saved.get("EarlyStoppingCallback", {}).get("attributes", {})
        waited = stopping.get("early_stopping_patience_counter", 0)
        patience = self.prompt_arguments.early_stopping_patience
        return 0 < self.args.max_steps <= state.global_step or 0 < patience <= waited

    def early_stopping(self) -> TrainerCallback:
        """What ends training after `early_stopping_patience` evaluations without a better one."""
        return EarlyStoppingCallback(self.prompt_arguments.early_stopping_patience)

    @property
    def _module(self) -> nn.Module:
        assert self.model is not None
        return self.model

    def training_speed(self, runtime: float) -> float:
        """Training examples per second of `runtime`, without the time spent on dev."""
        return self._trained / max(runtime - self._evaluation_seconds, 1e-9)

    def _metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        predictions = self._names(self._applying(np.asarray(prediction.predictions), 0.0))
        answers = np.asarray(prediction.label_ids)
        if np.issubdtype(answers.dtype, np.floating):  # a teacher's probabilities
            answers = self._applying(answers, 0.5)
        references = self._names(answers)
        scores = {
            name: compute(name, predictions, references)
            for name in self._task.metrics or ("accuracy",)
        }
        return {
            **scores,
            "labels_predicted": len(set(predictions)),
            "labels_present": len(set(references)),
        }

    def _applying(self, scores: NDArray[Any], threshold: float) -> NDArray[Any]:
        """The label of most score, or where there are several those above the threshold."""
        return scores > threshold if self._task.multilabel else scores.argmax(-1)

    def _names(self, answers: NDArray[Any]) -> list[str]:
        """Label names of indices `[N]`, or of sets of labels `[N, labels]`."""
        labels = self._task.verbalizer.labels  # type: ignore[union-attr]
        if not self._task.multilabel:
            return [labels[index] for index in answers]
        return [join_labels(set(compress(labels, row)), labels) for row in answers]

    # --- what Trainer leaves to its subclasses ---

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; the base can be used as before afterwards, though FSDP keeps its layers cut up."""
        base: BaseModel = self._module.base  # type: ignore[assignment]
        _ = base.fingerprint  # while the weights are whole
        with tracked(self.args):
            output = super().train(*args, **kwargs)
        if base.is_sharded:
            self._module.unshard()  # type: ignore[operator]  # what no layer holds
        return output

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthBucketSampler:
        step = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthBucketSampler(self._lengths, step * self.args.world_size, self.args.seed)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Of the prompt's module only what it names itself; weights as transformers has it."""
        names: list[str] = super().get_decay_parameter_names(model)
        prompt = getattr(model, "prompt", None)
        decayed = {_PROMPT_KEYS + name for name in prompt.decayed} if prompt else set()
        return [name for name in names if not name.startswith(_PROMPT_KEYS) or name in decayed]

    def training_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Count what is trained on; a resumed run's steps include those before it."""
        self._trained += inputs["input_ids"].shape[0] * self.args.world_size
        if self.args.torch_compile:  # its passes are not packed
            return super().training_step(model, inputs, *args, **kwargs)
        with cast(Tuner, self._module).attending():
            return super().training_step(model, inputs, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score on dev; its time is not training time."""
        start = time.perf_counter()
        metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        self._evaluation_seconds += time.perf_counter() - start
        return metrics

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Count each label or target token alike; transformers counts batches of any size alike."""
        self._judged = []
        output = super().evaluation_loop(*args, **kwargs)
        losses, items = (float(torch.cat(parts).sum()) for parts in zip(*self._judged, strict=True))
        key = f"{kwargs.get('metric_key_prefix', 'eval')}_loss"
        return output._replace(metrics={**(output.metrics or {}), key: losses / items})

    def prediction_step(
        self,
        model: nn.Module,
        inputs: Any,
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> Any:
        """Note each row's loss, and of how many labels or target tokens it is.

        Rows that fill up the last batches of several processes are left out.
        """
        found: Any = super().prediction_step(model, inputs, False, ignore_keys)
        loss, outputs, labels = found
        losses, *scores = outputs if isinstance(outputs, tuple) else (outputs,)
        counted = (losses.float(), items_of(labels))
        self._judged.append(self.accelerator.gather_for_metrics(counted))
        return (loss, None, None) if prediction_loss_only else (loss, *scores, labels)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Save the prompt's module alone: the frozen base is nobody's checkpoint."""
        state = self._module.state_dict() if state_dict is None else state_dict
        prompt = {key: value for key, value in state.items() if key.startswith(_PROMPT_KEYS)}
        super()._save(output_dir, state_dict=prompt)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Only the prompt is in a checkpoint; the base's weights are not missing."""
        missing = [key for key in load_result.missing_keys if key.startswith(_PROMPT_KEYS)]
        if missing or load_result.unexpected_keys:
            super()._issue_warnings_after_load(load_result)
