"""`fit`: train a soft prompt for a task on a frozen base."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import set_seed

from softhub.errors import require_type
from softhub.model.base import BaseModel
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Splits, SplitsLike, Task
from softhub.terminal import phase
from softhub.training.arguments import PromptTrainingArguments
from softhub.training.callbacks import collapse_warnings
from softhub.training.checkpoints import check_resumable, check_writable, set_aside_checkpoints
from softhub.training.encoded_task import EncodedTask, encode_task, truncation_warnings
from softhub.training.initialization import choose_initialization, init_settings, load_init
from softhub.training.learning_rate import is_same_rate, scaled_rate
from softhub.training.peft_config import PromptConfig, check_config, check_widths
from softhub.training.provenance import dataset_record, manifest_of, provenance_of
from softhub.training.restarts import (
    Attempt,
    RunState,
    best_attempt,
    run_state,
    run_with_restarts,
)
from softhub.training.rounding import round_prefix
from softhub.training.running import FitResult, result_of


def fit(
    base: BaseModel,
    task: Task,
    config: PromptConfig,
    data: SplitsLike,
    *,
    args: PromptTrainingArguments | None = None,
    init: str | Path | SoftPrompt | None = None,
    init_candidates: Sequence[SoftPrompt] = (),
    resume: bool = False,
    teacher: Mapping[str, Any] | None = None,
) -> FitResult:
    """Train a soft prompt on a frozen base.

    A failed run (its loss is NaN or infinite, it predicts one label for every text, or it learns
    nothing) is restarted with a quarter of its learning rate or the scaled one, whichever is lower;
    where nothing moved, with four times its rate or the scaled one, whichever is higher. The second
    restart also has another initialization. `FitResult.restarts` lists the reasons. Of multi-label
    tasks, tasks with `class_weights`, a teacher's probabilities, and a dev split of one label, only
    a loss that is NaN or infinite is detected.

    Args:
        base: A frozen base from `load_base`.
        task: The task to train for.
        config: PEFT's configuration: a `PromptTuningConfig` for a prompt of input embeddings, or a
            `PrefixTuningConfig` for a prefix, keys and values of every layer; with the number of
            virtual tokens and the default initialization (of a prefix `"task"`).
        data: `Splits`, or rows for `train` and, optionally, `dev` (see `Task.to_splits`). Train is
            learned from, and dev chooses the best checkpoint; test is not used.
        args: Training arguments; the defaults suit most tasks.
        init: `"task"` (frequent tokens of the training texts, then the task's description and label
            words; without the description if P tokens do not hold both), `"labels"` (label words,
            then frequent tokens), `"text"` (the text in `config`, repeated), `"vocabulary"`
            (frequent tokens), `"random"`, a prompt or the path of its adapter folder, or `"auto"`:
            the one of these, and of the task's hard prompts, with the lowest dev loss before
            training. None uses the one in `config`. A prefix starts from the keys and values of
            such a prompt, or from a prefix.
        init_candidates: Prompts of the same length that `init` is compared with in the same way.
        resume: Resume from the last checkpoint in `args.output_dir`, with the settings and the data
            that the run began with; limits of its steps may be higher.
        teacher: Description of the teacher whose answers the data has, for the manifest.

    Returns:
        The prompt and a summary of training.

    Raises:
        TrainingError: The configuration cannot be trained, the loss of all attempts is NaN, or the
            run that is resumed began with other settings or data.
        TrainingInterrupted: Ctrl-C was pressed; a checkpoint was saved.
        TaskError: The template, the label words and the tokenizer do not fit together.
        DatasetError: Train is missing, or a row lacks a value or is mislabeled.
        BaseModelError: A prefix is to be trained, and the base cannot run one, or not with texts
            of this length.
        IncompatiblePrompt: A prompt to start from was trained for another base.
        InvalidAdapter: The folder of a prompt to start from is damaged.
    """
    args = args or PromptTrainingArguments()
    if resume:
        check_resumable(args.output_dir)
    check_config(base, config, args)
    require_type("task", task, Task, "Read it with Task.from_file.")
    splits, init = task.to_splits(data), load_init(init)
    set_seed(args.seed)
    tokens = int(config.num_virtual_tokens)
    with phase("Encoding the texts of train and dev"):
        encoded = encode_task(base, task, splits.train, splits.dev, virtual_tokens=tokens)
    check_widths(base, config, [encoded])
    check_writable(args.output_dir)
    others = {**init_settings(base, config, [encoded], init, init_candidates), "teacher": teacher}
    state = run_state(base, config, [encoded], [splits], args, others, resume=resume)
    began = time.perf_counter()
    start = choose_initialization(
        base,
        config,
        [encoded],
        init,
        init_candidates,
        seed=args.seed,
        batch_size=args.per_device_eval_batch_size,
    )
    if not resume:
        set_aside_checkpoints(args.output_dir)
    state.write(args.output_dir)
    before = time.perf_counter() - began
    attempts = run_with_restarts(base, config, encoded, start, state, args, resume=resume)
    best = best_attempt(attempts)
    prompt = _prompt(base, encoded, best, splits, state, teacher)
    collapse = collapse_warnings(best.trainer.state.log_history)
    messages = [*truncation_warnings([encoded]), *state.warnings(), *collapse]
    seconds = before + sum(attempt.seconds for attempt in attempts)
    return replace(
        result_of(best.trainer, prompt, seconds, messages),
        steps=state.failed_steps + attempts[-1].trainer.state.global_step,
        examples_per_second=best.trainer.training_speed(best.seconds),
        init=best.start.name,
        restarts=[failure["reason"] for failure in state.failures],
    )


def _prompt(
    base: BaseModel,
    encoded: EncodedTask,
    best: Attempt,
    splits: Splits,
    state: RunState,
    teacher: Mapping[str, Any] | None,
) -> SoftPrompt:
    """Return the prompt of the best attempt, with its provenance."""
    scaled = scaled_rate(base, best.args.optim, prefix=best.start.prefix is not None)
    rule = "scaled" if is_same_rate(float(best.args.learning_rate or 0.0), scaled) else None
    provenance = provenance_of(best.args, best.start.to_record(), rule=rule)
    if encoded.label_weights is not None:
        provenance["training"]["class_weights"] = dict(encoded.label_weights)
    if best.trainer.ending():
        provenance["training"]["ended"] = best.trainer.ending()
    provenance["dataset"] = dataset_record(encoded.task, splits.train, splits.dev)
    provenance["restarts"] = state.failures
    if teacher is not None:
        provenance["distilled"] = dict(teacher)
    vectors, prefix = best.trainer.prompt_vectors(), best.start.prefix
    if prefix is not None:
        batch_size = best.args.per_device_eval_batch_size
        vectors = round_prefix(base, [encoded], vectors, prefix, batch_size)
    manifest = manifest_of(base, vectors, task=encoded.task, provenance=provenance, prefix=prefix)
    return SoftPrompt(vectors, manifest)
