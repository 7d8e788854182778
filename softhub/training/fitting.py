"""`fit`: train a soft prompt for a task on a frozen base."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from peft import PeftType, PromptTuningConfig
from transformers import EarlyStoppingCallback, set_seed
from transformers.trainer_utils import get_last_checkpoint

from softhub.base import BaseModel
from softhub.encoding import Candidates, Encoder, render_chat
from softhub.errors import SoftHubError, SoftHubWarning, TrainingError
from softhub.prompt import SoftPrompt
from softhub.tasks import Example, Task
from softhub.training.arguments import PromptTrainingArguments
from softhub.training.callbacks import InterruptCallback, WatchCallback
from softhub.training.data import EncodedExamples, encode_examples
from softhub.training.initialization import frequent_embeddings, initial_vectors
from softhub.training.memory import peak_memory
from softhub.training.provenance import dataset_record, manifest_of, provenance_of
from softhub.training.reparameterization import Reparameterization, reparameterize
from softhub.training.trainer import PromptTrainer
from softhub.training.tuner import PromptTuner


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
    check_config(base, config)
    set_seed(args.seed)
    task = render_chat(task, base.tokenizer)
    encoder = Encoder(base.tokenizer, is_encoder_decoder=base.is_encoder_decoder)
    candidates = encoder.candidates_of(task)
    room = room_beside(base, config)
    encoded_train = encode_examples(encoder, task, train, candidates, room)
    encoded_dev = encode_examples(encoder, task, dev, candidates, room)
    module = start_module(base, config, args, init, encoded_train.inputs, candidates)
    weights, watch = task.training_weights(train), _watch(task, dev)
    tuner = PromptTuner(base, module, candidates, weights)
    trainer = PromptTrainer(tuner, task, args, encoded_train, encoded_dev, [watch])
    seconds = run_trainer(trainer, resume=resume)
    provenance = provenance_of(args, config, init)
    provenance["dataset"] = dataset_record(task, (train, dev))
    if weights is not None:
        provenance["training"]["class_weights"] = dict(weights)
    vectors = trainer.prompt_vectors()
    manifest = manifest_of(base, vectors, task=task, provenance=provenance)
    found = [*cut_warnings(encoded_train, encoded_dev), *watch.warnings()]
    return result_of(trainer, SoftPrompt(vectors, manifest), watch, seconds, found)


def start_module(
    base: BaseModel,
    config: PromptTuningConfig,
    args: PromptTrainingArguments,
    init: str | SoftPrompt | None,
    texts: Sequence[Sequence[int]],
    candidates: Candidates | None,
) -> Reparameterization:
    """What is trained, at its start: the init's vectors, reparameterised as `args` says."""
    vectors = initial_vectors(
        base, config, init, texts=texts, candidates=candidates, seed=args.seed
    )
    return reparameterize(
        args.reparameterization,
        vectors,
        size=args.reparameterization_size,
        seed=args.seed,
        draw=partial(frequent_embeddings, base, texts, seed=args.seed),
    )


def run_trainer(trainer: PromptTrainer, *, resume: bool) -> float:
    """Train to the end.

    Args:
        trainer: The trainer.
        resume: Whether to go on from the last checkpoint.

    Returns:
        Wall seconds; 0 for a run that has made all its steps before.

    Raises:
        TrainingError: There is no checkpoint to go on from.
        TrainingInterrupted: Ctrl-C; a checkpoint was saved.
    """
    args, interrupt = trainer.prompt_arguments, InterruptCallback()
    trainer.add_callback(interrupt)
    if args.early_stopping_patience:
        trainer.add_callback(EarlyStoppingCallback(args.early_stopping_patience))
    checkpoint = _last_checkpoint(args) if resume else None
    start = time.perf_counter()
    if checkpoint and trainer.take_over(checkpoint):
        return 0.0
    with interrupt.listening():
        trainer.train(resume_from_checkpoint=checkpoint)
    if interrupt.interrupted:
        raise TrainingInterrupted(
            f"Stopped after step {trainer.state.global_step}; the run can go on from "
            f"{trainer.args.output_dir} with --resume true."
        )
    return time.perf_counter() - start


def result_of(
    trainer: PromptTrainer,
    prompt: SoftPrompt,
    watch: WatchCallback,
    seconds: float,
    found: list[str],
) -> FitResult:
    """Sum a run up, and warn of what was found."""
    for message in found:
        warnings.warn(message, SoftHubWarning, stacklevel=3)
    return FitResult(
        prompt=prompt,
        history=watch.history or trainer.state.log_history,  # of a run that was at its end
        best_score=trainer.state.best_metric,
        best_step=trainer.state.best_global_step or trainer.state.global_step,
        steps=trainer.state.global_step,
        seconds=seconds,
        examples_per_second=trainer.training_speed(seconds),
        peak_memory=peak_memory(),
        warnings=found,
    )


def check_config(base: BaseModel, config: PromptTuningConfig) -> None:
    """Refuse a PEFT configuration that this base cannot be trained with.

    Raises:
        TrainingError: Naming what was found and what was expected.
    """
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


def room_beside(base: BaseModel, config: PromptTuningConfig) -> int | None:
    """Tokens that text and answer may have beside the prompt; None for no limit."""
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


def cut_warnings(*encoded: EncodedExamples) -> list[str]:
    """Say how many texts were too long, if any were."""
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
