"""Attempts at a run: the first, and those after one that failed."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from accelerate.utils import parse_flag_from_env
from peft import PromptTuningConfig

from softhub.errors import TrainingError
from softhub.model.base import BaseModel
from softhub.training.arguments import PromptTrainingArguments
from softhub.training.callbacks import LossIsNoNumber, WatchCallback
from softhub.training.checkpoints import last_checkpoint
from softhub.training.encoded_task import Lesson
from softhub.training.guard import Failure, GuardCallback
from softhub.training.initialization import frequent_embeddings
from softhub.training.learning_rate import scaled_rate
from softhub.training.module import PromptTuner
from softhub.training.plan import Plan
from softhub.training.reparameterization import Reparameterization, reparameterize
from softhub.training.running import run_trainer
from softhub.training.starts import Start, dev_loss, find_start
from softhub.training.trainer import PromptTrainer

logger = logging.getLogger("softhub")


@dataclass(frozen=True)
class Attempt:
    """One run, at its end.

    Attributes:
        args: Its arguments, with the rate that was used.
        start: Where it started.
        trainer: Its trainer, with the best checkpoint loaded.
        watch: What it logged.
        seconds: Wall time.
        failure: Why it is of little use, if it is.
    """

    args: PromptTrainingArguments
    start: Start
    trainer: PromptTrainer
    watch: WatchCallback
    seconds: float
    failure: Failure | None

    @property
    def lowest_dev_loss(self) -> float:
        """The lowest dev loss that it logged."""
        losses = (logs.get("eval_loss", math.inf) for logs in self.watch.history)
        return min(losses, default=math.inf)  # a run that is taken over at its end logs nothing


def make_module(
    base: BaseModel, lesson: Lesson, start: Start, args: PromptTrainingArguments
) -> Reparameterization:
    """What is trained, at its start: the vectors, reparameterised as `args` says."""
    return reparameterize(
        args.reparameterization,
        start.vectors,
        size=args.reparameterization_size,
        seed=args.seed,
        draw=partial(frequent_embeddings, base, lesson.train.inputs, seed=args.seed),
    )


def run_until_sound(
    base: BaseModel,
    config: PromptTuningConfig,
    lesson: Lesson,
    start: Start,
    plan: Plan,
    args: PromptTrainingArguments,
    *,
    resume: bool,
) -> list[Attempt]:
    """Run, and begin again after a failure.

    Args:
        base: The base.
        config: PEFT's configuration.
        lesson: What is to be learned.
        start: Where the first attempt starts.
        plan: The rate, and the failures so far; it is kept up to date.
        args: The run's arguments.
        resume: Whether to go on from the last checkpoint.

    Returns:
        The attempts of this process; the last one is sound, or none was.
    """
    floor = floor_of(base, lesson, start, args.per_device_eval_batch_size)
    attempts: list[Attempt] = []
    while True:
        own = plan.arguments(args, scaled_rate(base, args.optim))
        if plan.wants_another_start:
            other = "vocabulary" if start.name != "vocabulary" else "random"
            start = find_start(base, config, lesson, other, seed=args.seed + 1)
        go_on = resume and (not plan.failures or last_checkpoint(own.output_dir) is not None)
        again = len(plan.failures) < args.max_restarts and not shards_the_base(args)
        guard = GuardCallback(floor, stops=again)
        attempts.append(_run(base, lesson, start, own, guard, resume=go_on and not attempts))
        failure = attempts[-1].failure
        if failure is None or not again:
            plan.gave_up = failure.reason if failure else None
            plan.write(args.output_dir)
            return attempts
        plan.note(failure, own, start.name)
        plan.write(args.output_dir)
        logger.warning("The run failed: %s. Beginning again.", failure.reason)


def shards_the_base(args: PromptTrainingArguments) -> bool:
    """Whether FSDP is asked for, which cuts a base up once in a process."""
    return bool(args.fsdp) or bool(parse_flag_from_env("ACCELERATE_USE_FSDP"))


def best_of(attempts: Sequence[Attempt]) -> Attempt:
    """The sound one, which is the last; of unsound ones that of the lowest dev loss.

    Raises:
        TrainingError: Every attempt's loss became no number.
    """
    usable = [one for one in attempts if one.failure is None or not one.failure.fatal]
    if not usable:
        reason = attempts[-1].failure.reason if attempts[-1].failure else ""
        again = f" So it went in {len(attempts)} attempts." if len(attempts) > 1 else ""
        raise TrainingError(reason + again)
    return min(usable, key=lambda one: (one.failure is not None, one.lowest_dev_loss))


def floor_of(base: BaseModel, lesson: Lesson, start: Start, batch_size: int) -> float | None:
    """The dev loss without learning: of the labels' shares, or of the start for generation."""
    if lesson.candidates is not None:
        return lesson.entropy
    if start.trained:
        return None
    # As training judges itself.
    return dev_loss(base, lesson, start.vectors, limit=None, batch_size=batch_size)


def _run(
    base: BaseModel,
    lesson: Lesson,
    start: Start,
    args: PromptTrainingArguments,
    guard: GuardCallback,
    *,
    resume: bool,
) -> Attempt:
    watch = _watch(lesson)
    module = make_module(base, lesson, start, args)
    tuner = PromptTuner(base, module, lesson.candidates, lesson.weights)
    trainer = PromptTrainer(tuner, lesson.task, args, lesson.train, lesson.dev, [watch, guard])
    began = time.perf_counter()
    try:
        run_trainer(trainer, resume=resume)
        guard.judge(trainer.state)
    except LossIsNoNumber as error:
        guard.failure = Failure(str(error), fatal=True)
    seconds = time.perf_counter() - began
    return Attempt(args, start, trainer, watch, seconds, guard.failure)


def _watch(lesson: Lesson) -> WatchCallback:
    """Watch the task's first metric; for accuracy the commonest label is what to beat."""
    if lesson.candidates is None:
        return WatchCallback("loss", floor=None)
    metric = lesson.task.metrics[0] if lesson.task.metrics else "accuracy"
    return WatchCallback(metric, floor=lesson.commonest if metric == "accuracy" else None)
