"""`fit`: train a soft prompt for a task on a frozen base."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from accelerate import PartialState
from peft import PromptTuningConfig
from transformers import set_seed

from softhub.errors import TrainingError
from softhub.model.base import BaseModel
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Example, Task
from softhub.training.arguments import PromptTrainingArguments
from softhub.training.encoded_task import Lesson, prepare_lesson
from softhub.training.initialization import GIVEN, Start, find_start
from softhub.training.learning_rate import rule_of
from softhub.training.lr_finder import range_test, write_range_test
from softhub.training.provenance import dataset_record, manifest_of, provenance_of
from softhub.training.restarts import (
    Attempt,
    Plan,
    best_of,
    make_module,
    run_until_sound,
    shards_the_base,
)
from softhub.training.running import FitResult, check_config, result_of, set_aside_checkpoints


def fit(
    base: BaseModel,
    task: Task,
    config: PromptTuningConfig,
    *,
    train: Sequence[Example],
    dev: Sequence[Example],
    args: PromptTrainingArguments | None = None,
    init: str | SoftPrompt | None = None,
    init_candidates: Sequence[SoftPrompt] = (),
    resume: bool = False,
) -> FitResult:
    """Train a soft prompt; the base stays as it is.

    A run that fails (its loss is no number, it gives every text one label, it learns nothing) is
    begun again: at a quarter of its rate or at the scaled one, whichever is lower (or at four times
    its rate or the scaled one, whichever is higher, where nothing moved), and then also from
    another start. `FitResult.restarts` says why, each time.

    Args:
        base: A frozen base from `load_base`.
        task: What to train for.
        config: PEFT's configuration: number of virtual tokens and the kind of start.
        train: Examples to learn from.
        dev: Examples that choose the best checkpoint; never the test split.
        args: Training arguments; the defaults suit most tasks.
        init: `"task"`, `"labels"`, `"text"`, `"vocabulary"`, `"random"`, a prompt to go on from, or
            `"auto"` for the best on dev before training of task, labels, vocabulary, the text that
            `config` has and the task's hard prompts; None takes what `config` says.
        init_candidates: Prompts of this length, from a hub perhaps, that `init` is compared with in
            the same way.
        resume: Go on from the last checkpoint in `args.output_dir`.

    Returns:
        The prompt and how training went.

    Raises:
        TrainingError: The configuration cannot train, or the loss is no number however it is begun.
        TrainingInterrupted: Ctrl-C; a checkpoint was saved.
        TaskError: Template, words and tokenizer do not fit together.
    """
    args = args or PromptTrainingArguments()
    check_config(base, config)
    set_seed(args.seed)
    lesson = prepare_lesson(base, task, train, dev, virtual_tokens=int(config.num_virtual_tokens))
    if not resume:
        set_aside_checkpoints(args.output_dir)
    began = time.perf_counter()
    size = args.per_device_eval_batch_size
    start = find_start(base, config, lesson, init, init_candidates, seed=args.seed, batch_size=size)
    plan = plan_of(base, lesson, start, args, resume=resume)
    before = time.perf_counter() - began
    attempts = run_until_sound(base, config, lesson, start, plan, args, resume=resume)
    best = best_of(attempts)
    provenance = {
        **_provenance_of_run(best, lesson, config, init),
        "dataset": dataset_record(task, (train, dev)),
        "restarts": plan.failures,
    }
    vectors = best.trainer.prompt_vectors()
    manifest = manifest_of(base, vectors, task=lesson.task, provenance=provenance)
    prompt = SoftPrompt(vectors, manifest)
    found = [*lesson.cut_warnings, *plan.warnings(), *best.watch.warnings()]
    seconds = before + sum(attempt.seconds for attempt in attempts)
    return replace(
        result_of(best.trainer, prompt, seconds, found),
        steps=sum(attempt.trainer.state.global_step for attempt in attempts),
        examples_per_second=best.trainer.training_speed(best.seconds),
        init=best.start.name,
        range_test=plan.test,
        restarts=[failure["reason"] for failure in plan.failures],
    )


def _provenance_of_run(
    best: Attempt, lesson: Lesson, config: PromptTuningConfig, init: str | SoftPrompt | None
) -> dict[str, Any]:
    provenance = provenance_of(best.args, config, init)
    if best.start.parent is not None:
        provenance["init"] = {"parent": dict(best.start.parent)}
    elif best.start.name != GIVEN:  # whose files are named as its parent's
        provenance["init"] = best.start.name
    if lesson.weights is not None:
        provenance["training"]["class_weights"] = dict(lesson.weights)
    return provenance


def plan_of(
    base: BaseModel, lesson: Lesson, start: Start, args: PromptTrainingArguments, *, resume: bool
) -> Plan:
    """The plan of a run that goes on, or a new one, with the learning rate that `args` asks for."""
    plan = Plan.read(args.output_dir) if resume else None
    if plan is not None:
        return plan
    if rule_of(args.learning_rate) == "auto":
        if shards_the_base(args):
            raise TrainingError(
                "Found learning_rate auto under FSDP, where a range test and then a run cannot "
                "share a process; expected 'scaled' or a number that a run on one GPU has found."
            )
        test = range_test(base, lesson, make_module(base, lesson, start, args), args)
        plan = Plan(test.chosen, test)
    else:
        plan = Plan(args.on(base).learning_rate)
    plan.about = {
        "task": lesson.task.name,
        "base_model": base.name,
        "num_virtual_tokens": len(start.vectors),
        "seed": args.seed,
    }
    plan.write(args.output_dir)
    if plan.test is not None and PartialState().is_main_process:
        write_range_test(args.output_dir, plan.test)
    return plan
