"""`fit`: train a soft prompt for a task on a frozen base."""

from __future__ import annotations

import importlib.metadata
import sys
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from peft import PeftType, PromptTuningConfig
from transformers import EarlyStoppingCallback, set_seed
from transformers.trainer_utils import get_last_checkpoint

from softhub import __version__
from softhub.artefact.manifest import Manifest
from softhub.base import BaseModel
from softhub.encoding import Encoder, render_chat
from softhub.errors import SoftHubError, SoftHubWarning, TrainingError
from softhub.prompt import SoftPrompt
from softhub.tasks import Example, Task, dataset_hash
from softhub.training.arguments import PromptTrainingArguments
from softhub.training.callbacks import InterruptCallback, WatchCallback
from softhub.training.data import EncodedExamples, encode_examples
from softhub.training.initialization import frequent_embeddings, initial_vectors
from softhub.training.reparameterization import reparameterize
from softhub.training.trainer import PromptTrainer
from softhub.training.tuner import PromptTuner

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets")


class TrainingInterrupted(SoftHubError):
    """Ctrl-C during training; a checkpoint was saved and the run can go on from it."""


@dataclass(frozen=True)
class FitResult:
    """What training gave.

    Attributes:
        prompt: The soft prompt of the best checkpoint on dev.
        history: Logged losses, learning rates and dev scores, each with its step.
        best_score: The best checkpoint's value of what chose it (the dev loss), or None.
        best_step: Its step.
        steps: Optimizer steps made in all.
        seconds: Wall time of training with its dev evaluations.
        examples_per_second: Training examples per second, dev evaluations not counted.
        peak_memory: Largest resident memory of this process in bytes (CPU), or of the GPU.
        warnings: What a person should know about the run, in plain words.
    """

    prompt: SoftPrompt
    history: list[dict[str, float]]
    best_score: float | None
    best_step: int
    steps: int
    seconds: float
    examples_per_second: float
    peak_memory: int
    warnings: list[str] = field(default_factory=list)


def fit(
    base: BaseModel,
    task: Task,
    config: PromptTuningConfig,
    *,
    train: Sequence[Example],
    dev: Sequence[Example],
    args: PromptTrainingArguments | None = None,
    init: str | SoftPrompt | None = None,
    resume: bool = False,
) -> FitResult:
    """Train a soft prompt; the base stays as it is.

    Args:
        base: A frozen base from `load_base`.
        task: What to train for.
        config: PEFT's configuration: number of virtual tokens and the kind of start.
        train: Examples to learn from.
        dev: Examples that choose the best checkpoint; never the test split.
        args: Training arguments; the defaults suit most tasks.
        init: `"labels"`, `"text"`, `"vocabulary"`, `"random"`, or a prompt to go on from; None
            takes what `config` says.
        resume: Go on from the last checkpoint in `args.output_dir`.

    Returns:
        The prompt and how training went.

    Raises:
        TrainingError: The configuration cannot train, or the loss is no longer a number.
        TrainingInterrupted: Ctrl-C; a checkpoint was saved.
        TaskError: Template, words and tokenizer do not fit together.
    """
    args = args or PromptTrainingArguments()
    _check_config(base, config)
    set_seed(args.seed)
    task = render_chat(task, base.tokenizer)
    encoder = Encoder(base.tokenizer, is_encoder_decoder=base.is_encoder_decoder)
    candidates = encoder.candidates_of(task)
    room = _room(base, config)
    encoded_train = encode_examples(encoder, task, train, candidates, room)
    encoded_dev = encode_examples(encoder, task, dev, candidates, room)
    vectors = initial_vectors(
        base, config, init, texts=encoded_train.inputs, candidates=candidates, seed=args.seed
    )
    module = reparameterize(
        args.reparameterization,
        vectors,
        size=args.reparameterization_size,
        seed=args.seed,
        draw=partial(frequent_embeddings, base, encoded_train.inputs, seed=args.seed),
    )
    weights = task.training_weights(train)
    interrupt, watch = InterruptCallback(), _watch(task, dev)
    tuner = PromptTuner(base, module, candidates, weights)
    trainer = PromptTrainer(tuner, task, args, encoded_train, encoded_dev, [interrupt, watch])
    if args.early_stopping_patience:
        trainer.add_callback(EarlyStoppingCallback(args.early_stopping_patience))
    seconds = _train(trainer, interrupt, _last_checkpoint(args) if resume else None)
    found = [*_cut_warnings(encoded_train, encoded_dev), *watch.warnings()]
    for message in found:
        warnings.warn(message, SoftHubWarning, stacklevel=2)
    return FitResult(
        prompt=SoftPrompt(
            vectors=trainer.prompt_vectors(),
            manifest=_manifest(base, task, vectors, args, (train, dev), init, config),
        ),
        history=watch.history,
        best_score=trainer.state.best_metric,
        best_step=trainer.state.best_global_step or trainer.state.global_step,
        steps=trainer.state.global_step,
        seconds=seconds,
        examples_per_second=trainer.training_speed(seconds),
        peak_memory=_peak_memory(),
        warnings=found,
    )


def _train(trainer: PromptTrainer, interrupt: InterruptCallback, checkpoint: str | None) -> float:
    """Run the trainer; returns wall seconds."""
    start = time.perf_counter()
    with interrupt.listening():
        trainer.train(resume_from_checkpoint=checkpoint)
    if interrupt.interrupted:
        raise TrainingInterrupted(
            f"Stopped after step {trainer.state.global_step}; the run can go on from "
            f"{trainer.args.output_dir} with --resume true."
        )
    return time.perf_counter() - start


def _check_config(base: BaseModel, config: PromptTuningConfig) -> None:
    if config.peft_type != PeftType.PROMPT_TUNING:
        raise TrainingError(
            f"Found a PEFT configuration of type {config.peft_type}; expected PromptTuningConfig."
        )
    if config.task_type is not None and str(config.task_type) != base.task_type:
        raise TrainingError(
            f"The PEFT configuration says task_type={config.task_type}, but {base.name} is "
            f"{base.task_type}: use task_type=base.task_type."
        )
    if int(config.num_virtual_tokens or 0) < 1:
        raise TrainingError(
            f"num_virtual_tokens is {config.num_virtual_tokens}; expected 1 or more, e.g. 20."
        )


def _room(base: BaseModel, config: PromptTuningConfig) -> int | None:
    if base.max_positions is None:
        return None
    return base.max_positions - int(config.num_virtual_tokens)


def _watch(task: Task, dev: Sequence[Example]) -> WatchCallback:
    """Watch the task's first metric; for accuracy the commonest label is what to beat."""
    if task.kind != "classification":
        return WatchCallback("loss", floor=None)
    metric = task.metrics[0] if task.metrics else "accuracy"
    commonest = Counter(example.label for example in dev).most_common(1)[0][1]
    return WatchCallback(metric, floor=commonest / len(dev) if metric == "accuracy" else None)


def _cut_warnings(*encoded: EncodedExamples) -> list[str]:
    cut, total = sum(rows.cut for rows in encoded), sum(map(len, encoded))
    return [f"{cut} of {total} texts were too long and lost their end."] if cut else []


def _last_checkpoint(args: PromptTrainingArguments) -> str:
    try:
        checkpoint = get_last_checkpoint(args.output_dir)
    except FileNotFoundError:
        checkpoint = None
    if checkpoint is None:
        raise TrainingError(
            f"Nothing to resume in {args.output_dir!r}: no checkpoint there. Check output_dir, or "
            "start without resume."
        )
    return str(checkpoint)


def _manifest(
    base: BaseModel,
    task: Task,
    vectors: torch.Tensor,
    args: PromptTrainingArguments,
    splits: tuple[Sequence[Example], Sequence[Example]],
    init: str | SoftPrompt | None,
    config: PromptTuningConfig,
) -> Manifest:
    return Manifest(
        base_model=base.name,
        base_revision=base.revision,
        base_quantization=base.quantization,
        fingerprint=base.fingerprint,
        task_type=base.task_type,
        num_virtual_tokens=vectors.shape[0],
        hidden_size=vectors.shape[1],
        task=task.to_record(),
        provenance=_provenance(task, args, splits, init, config),
        metrics=(),
        license=None,
        files={},
        softhub_version=__version__,
    )


def _provenance(
    task: Task,
    args: PromptTrainingArguments,
    splits: tuple[Sequence[Example], Sequence[Example]],
    init: str | SoftPrompt | None,
    config: PromptTuningConfig,
) -> dict[str, Any]:
    train, dev = splits
    source = task.dataset
    start: Any = init or str(getattr(config.prompt_tuning_init, "value", "RANDOM")).lower()
    if isinstance(init, SoftPrompt):
        start = {"parent": dict(init.manifest.files)}
    dataset: Mapping[str, Any] = {
        "id": source.path if source else None,
        "name": source.name if source else None,
        "revision": source.revision if source else None,
        "source": source.source if source else None,
        "license": source.license if source else None,
        "train": {"examples": len(train), "sha256": dataset_hash(train)},
        "dev": {"examples": len(dev), "sha256": dataset_hash(dev)},
    }
    training = args.to_provenance()
    if task.class_weights is not None:
        training["class_weights"] = task.training_weights(train)
    return {
        "dataset": dataset,
        "seed": args.seed,
        "init": start,
        "training": training,
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def _peak_memory() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
