"""Attempts at a run: the first, and those after one that failed."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from peft import PromptTuningConfig
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from softhub.errors import TrainingError
from softhub.files import replace_file
from softhub.model.base import BaseModel
from softhub.training.arguments import PromptTrainingArguments
from softhub.training.callbacks import LossIsNoNumber, WatchCallback
from softhub.training.encoded_task import Lesson
from softhub.training.initialization import Start, dev_loss, find_start, frequent_embeddings
from softhub.training.learning_rate import LearningRate, scaled_rate
from softhub.training.lr_finder import RangeTest
from softhub.training.module import PromptTuner
from softhub.training.reparameterization import Reparameterization, reparameterize
from softhub.training.running import last_checkpoint, run_trainer
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


_TOLERANCE = 1.02  # of the floor: two dev sets of one size differ by more than nothing
_FLAT = 0.02
_PATIENCE = 1 / 3  # of the steps, before which one label for every text is no verdict


@dataclass(frozen=True)
class Failure:
    """Why a run failed.

    Attributes:
        reason: In plain words, with the step.
        too_slow: Whether nothing moved: a higher rate is worth a try, not a lower one.
        fatal: Whether the vectors are of no use at all.
    """

    reason: str
    too_slow: bool = False
    fatal: bool = False


class GuardCallback(TrainerCallback):
    """Stops a run that gives every text one label, and tells one that learned nothing.

    Args:
        floor: The dev loss of an answer that learned nothing; None where it is not known.
        stops: Whether a failed run is cut short, because another can take its place.
    """

    def __init__(self, floor: float | None, *, stops: bool) -> None:
        self.floor = floor
        self.stops = stops
        self.failure: Failure | None = None

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> TrainerControl:
        """Stop a run that gives all dev texts one label, and does no better than chance."""
        found = metrics or {}
        loss = float(found.get("eval_loss", math.nan))
        one_label = found.get("eval_labels_predicted") == 1 < found.get("eval_labels_present", 0)
        late = state.global_step >= _PATIENCE * state.max_steps
        if self.stops and one_label and late and self._no_better(loss):
            reason = f"it gave every text one label at step {state.global_step}"
            self.failure = Failure(reason, too_slow=_flat(_dev_losses(state)))
            control.should_training_stop = True
        return control

    def judge(self, state: TrainerState) -> None:
        """Call a run failed whose best dev loss is no better than nothing learned.

        Args:
            state: The run's at its end, with what was logged before it was stopped and resumed.
        """
        losses = _dev_losses(state)
        if self.failure or not losses or not self._no_better(min(losses)):
            return
        self.failure = Failure(
            f"its best dev loss {min(losses):.3f} is no better than without learning "
            f"({self.floor:.3f})",
            too_slow=_flat(losses),
        )

    def _no_better(self, loss: float) -> bool:
        return self.floor is not None and not loss * _TOLERANCE < self.floor


def _dev_losses(state: TrainerState) -> list[float]:
    losses = [float(logs["eval_loss"]) for logs in state.log_history if "eval_loss" in logs]
    return [loss for loss in losses if math.isfinite(loss)]


def _flat(losses: Sequence[float]) -> bool:
    """Whether the dev loss hardly moved from one evaluation to another."""
    return len(losses) > 1 and max(losses) - min(losses) < _FLAT * min(losses)


_FILE = "plan.json"
_STEP = 4.0


@dataclass
class Plan:
    """A run's decisions.

    Attributes:
        rate: The learning rate that was given or found.
        test: The range test that found it, if one did.
        failures: Of each attempt that failed and was begun again: what it was, and why.
        gave_up: Why the last attempt failed too, if it did.
        about: Task, base, virtual tokens and seed, for who finds the run before it is at its end.
    """

    rate: float
    test: RangeTest | None = None
    failures: list[dict[str, Any]] = field(default_factory=list)
    gave_up: str | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: str) -> Plan | None:
        """The plan of a run that goes on; None if it had none."""
        path = Path(folder) / _FILE
        if not path.is_file():
            return None
        record = json.loads(path.read_text(encoding="utf-8"))
        test = RangeTest(**record["test"]) if record["test"] else None
        return cls(
            record["rate"], test, record["failures"], record.get("gave_up"), record.get("about", {})
        )

    def write(self, folder: str) -> None:
        """Keep it; only one process does."""
        if PartialState().is_main_process:
            Path(folder).mkdir(parents=True, exist_ok=True)
            text = json.dumps(asdict(self), indent=2) + "\n"
            replace_file(Path(folder) / _FILE, text.encode())

    def arguments(self, args: PromptTrainingArguments, usual: float) -> PromptTrainingArguments:
        """The arguments of the attempt at hand: its own folder, and its rate.

        Args:
            args: The run's arguments.
            usual: The rate that suits most tasks on this base: a rate that failed and is far from
                it is not corrected step by step.
        """
        attempt, rate = len(self.failures), self.rate
        if attempt:
            slow = self.failures[0]["too_slow"]
            rate = max(rate * _STEP, usual) if slow else min(rate / _STEP, usual)
        folder = Path(args.output_dir) / f"restart-{attempt}" if attempt else args.output_dir
        return replace(args, output_dir=str(folder), learning_rate=LearningRate(rate))

    @property
    def wants_another_start(self) -> bool:
        """Whether another rate alone did not help."""
        return len(self.failures) > 1

    def warnings(self) -> list[str]:
        """Say that the run was begun again, and why, and that it failed in the end."""
        reasons = "; ".join(failure["reason"] for failure in self.failures)
        times = {1: "once", 2: "twice"}.get(len(self.failures), f"{len(self.failures)} times")
        found = [f"Training was begun again {times}: {reasons}."] if self.failures else []
        if self.gave_up:
            last = "The last attempt failed too" if self.failures else "Training failed"
            found.append(f"{last}: {self.gave_up}. Do not rely on this prompt.")
        return found

    def note(self, failure: Failure, args: PromptTrainingArguments, start: str) -> None:
        """Note that an attempt failed."""
        self.failures.append(
            {
                "reason": failure.reason,
                "too_slow": failure.too_slow,
                "learning_rate": float(args.learning_rate),
                "init": start,
            }
        )
