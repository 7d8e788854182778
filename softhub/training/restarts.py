"""Automatic restarts: detection of failed runs, and the settings of the next attempt.

The decisions are stored with the checkpoints, so that a resumed run does not repeat them.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback, TrainerState

from softhub.errors import TrainingError
from softhub.files import replace_file
from softhub.model.base import BaseModel
from softhub.tasks import Splits
from softhub.training.arguments import PromptTrainingArguments
from softhub.training.auto_steps import TYPICAL_STEPS
from softhub.training.callbacks import HistoryCallback, Logs, NonFiniteLoss
from softhub.training.checkpoints import is_complete, last_checkpoint
from softhub.training.encoded_task import EncodedTask
from softhub.training.identity import check_identity, identity_of
from softhub.training.initialization import Initialization, choose_initialization, dev_loss
from softhub.training.learning_rate import is_same_rate, scaled_rate
from softhub.training.module import PromptTuningModule
from softhub.training.peft_config import PromptConfig, prefix_to_train, uses_fsdp
from softhub.training.running import check_is_of_this_prompt, run_trainer
from softhub.training.trainer import PromptTrainer

logger = logging.getLogger("softhub")

_TOLERANCE = 1.02  # times a dev loss: what is better by less is not learning
_FLAT = 0.02  # relative change of the dev loss below which nothing has moved
_PATIENCE = 1 / 3  # of the steps, before which a single predicted label means nothing
_FACTOR = 4.0  # between the learning rates of two attempts


@dataclass(frozen=True)
class Failure:
    """The reason for the failure of a run.

    Attributes:
        reason: A clause for messages, with the step.
        too_slow: Whether nothing moved: a higher learning rate is worth a try, not a lower one.
        fatal: Whether the vectors are of no use at all.
    """

    reason: str
    too_slow: bool = False
    fatal: bool = False


class FailureCallback(TrainerCallback):
    """Detects runs that predict a single label, and runs that have learned nothing.

    Args:
        baseline: The dev loss without learning; None if it is not known.
        stops: Whether a failed run is stopped early, because it can be restarted.
        usual_steps: Steps that a run usually has, where its own number is not known.
    """

    def __init__(
        self, baseline: float | None, *, stops: bool, usual_steps: int | None = None
    ) -> None:
        self.usual_steps = usual_steps
        self.baseline = baseline
        self.stops = stops
        self.failure: Failure | None = None

    def on_evaluate(
        self, args: Any, state: TrainerState, control: Any, metrics: Logs = None, **kwargs: Any
    ) -> None:
        """Stop a run that predicts one label for all dev texts and is no better than chance."""
        found = metrics or {}
        loss = float(found.get("eval_loss", math.nan))
        one_label = found.get("eval_labels_predicted") == 1 < found.get("eval_labels_present", 0)
        late = state.global_step >= _PATIENCE * (self.usual_steps or state.max_steps)
        if self.stops and one_label and late and self._is_no_better(loss):
            reason = f"it predicted the same label for every text at step {state.global_step}"
            self.failure = Failure(reason, too_slow=_is_flat(_dev_losses(state)))
            control.should_training_stop = True

    def check_result(self, state: TrainerState) -> None:
        """Record a failure if the best dev loss is no better than without learning.

        Args:
            state: The state at the end of the run, with the history from before it was resumed.
        """
        losses = _dev_losses(state)
        if self.failure or not any("eval_loss" in logs for logs in state.log_history):
            return
        if not losses:
            self.failure = Failure("its dev loss was NaN or infinite at every evaluation")
            return
        if not self._is_no_better(min(losses)):
            return
        self.failure = Failure(
            f"its best dev loss {min(losses):.3f} is no better than without learning "
            f"({self.baseline:.3f})",
            too_slow=_is_flat(losses),
        )

    def _is_no_better(self, loss: float) -> bool:
        return self.baseline is not None and not loss * _TOLERANCE < self.baseline


def _dev_losses(state: TrainerState) -> list[float]:
    losses = [float(logs["eval_loss"]) for logs in state.log_history if "eval_loss" in logs]
    return [loss for loss in losses if math.isfinite(loss)]


def _is_flat(losses: Sequence[float]) -> bool:
    """Whether the dev loss hardly moved from one evaluation to another."""
    return len(losses) > 1 and max(losses) - min(losses) < _FLAT * min(losses)


@dataclass
class RunState:
    """The decisions of a run, stored as `run_state.json` in its folder.

    Attributes:
        learning_rate: The learning rate of the first attempt.
        failures: For each attempt that failed and was restarted: what it was, and why it failed.
        gave_up: Why the last attempt failed too, if it did.
        about: What the run is of, for a list of runs that are not finished, and to resume no other;
            see `softhub.training.identity`.
    """

    FILE = "run_state.json"

    learning_rate: float
    failures: list[dict[str, Any]] = field(default_factory=list)
    gave_up: str | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: str) -> RunState | None:
        """Read the state of a run that is resumed; None if its folder has none."""
        path = Path(folder) / cls.FILE
        if not path.is_file():
            return None
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, TypeError, ValueError) as error:
            raise TrainingError(
                f"{path}, which records the decisions of the run, is damaged ({error}). Restore it "
                "from a backup, or start without resume."
            ) from error

    def write(self, folder: str) -> None:
        """Store the state; only the main process does."""
        if PartialState().is_main_process:
            Path(folder).mkdir(parents=True, exist_ok=True)
            text = json.dumps(asdict(self), indent=2) + "\n"
            replace_file(Path(folder) / self.FILE, text.encode())

    @property
    def failed_steps(self) -> int:
        """Optimizer steps of the attempts that failed and were restarted."""
        return sum(failure.get("steps", 0) for failure in self.failures)

    def resumed_as(self, new: RunState) -> RunState:
        """Return the state of a run that goes on, for which a new run would have another.

        Raises:
            TrainingError: The new run would have other settings or data.
        """
        rates = f"learning_rate {self.learning_rate:g} instead of {new.learning_rate:g}"
        same = is_same_rate(self.learning_rate, new.learning_rate)
        check_identity(self.about, new.about, [] if same else [rates])
        return replace(self, about={**new.about, "began": self.about.get("began")})

    def attempt_arguments(
        self, args: PromptTrainingArguments, number: int, usual: float
    ) -> PromptTrainingArguments:
        """Return the arguments of an attempt: its own folder and learning rate.

        Args:
            args: The run's arguments.
            number: How many attempts failed before it.
            usual: The scaled learning rate: one that failed and is far from it is replaced by it at
                once rather than corrected step by step.
        """
        rate, folder = self.learning_rate, Path(args.output_dir)
        if number:
            too_slow = self.failures[0]["too_slow"]
            rate = max(rate * _FACTOR, usual) if too_slow else min(rate / _FACTOR, usual)
            folder /= f"restart-{number}"
        return replace(args, learning_rate=rate, output_dir=str(folder))

    def add(self, attempt: Attempt, failure: Failure) -> None:
        """Record and log that an attempt failed and is restarted."""
        settings = {"learning_rate": attempt.args.learning_rate, "init": attempt.start.name}
        steps = attempt.trainer.state.global_step
        self.failures.append({**asdict(failure), **settings, "steps": steps})
        logger.warning("The run failed: %s. Restarting it.", failure.reason)

    def warnings(self) -> list[str]:
        """Return warnings about restarts, their reasons, and a failure of the last attempt."""
        reasons = "; ".join(failure["reason"] for failure in self.failures)
        times = {1: "once", 2: "twice"}.get(len(self.failures), f"{len(self.failures)} times")
        found = [f"Training was restarted {times}: {reasons}."] if self.failures else []
        if self.gave_up:
            last = "The last attempt failed too" if self.failures else "Training failed"
            found.append(f"{last}: {self.gave_up}. Do not rely on this prompt.")
        return found


def run_state(
    base: BaseModel,
    config: PromptConfig,
    tasks: Sequence[EncodedTask],
    splits: Sequence[Splits],
    args: PromptTrainingArguments,
    others: Mapping[str, Any],
    *,
    resume: bool,
) -> RunState:
    """Return the state of a new run, or that of the run in its folder, if that is resumed.

    The parameters are those of `identity_of`.

    Raises:
        TrainingError: The run that is resumed began with other settings or data.
    """
    prefix = prefix_to_train(base, config) is not None
    rate = float(args.resolved_for(base, prefix=prefix).learning_rate or 0.0)
    new = RunState(rate, about=identity_of(base, config, tasks, splits, args, others))
    state = RunState.read(args.output_dir) if resume else None
    return new if state is None else state.resumed_as(new)


@dataclass(frozen=True)
class Attempt:
    """One attempt at a run, at its end.

    Attributes:
        args: Its arguments, with the learning rate that was used.
        start: Its initialization.
        trainer: Its trainer, with the best checkpoint loaded.
        seconds: Wall time in this process.
        failure: Why it failed, if it did.
    """

    args: PromptTrainingArguments
    start: Initialization
    trainer: PromptTrainer
    seconds: float
    failure: Failure | None

    @property
    def lowest_dev_loss(self) -> float:
        """The lowest dev loss that it had."""
        return min(_dev_losses(self.trainer.state), default=math.inf)


def run_with_restarts(
    base: BaseModel,
    config: PromptConfig,
    encoded: EncodedTask,
    start: Initialization,
    state: RunState,
    args: PromptTrainingArguments,
    *,
    resume: bool,
) -> list[Attempt]:
    """Train, and restart after a failure; `start` is the initialization of the first attempt.

    Returns:
        The attempts, of which only the last may have succeeded; those that failed before a run was
        resumed as far as they have checkpoints. `state` has the failures of all.
    """
    baseline = loss_without_learning(base, encoded, start, args.per_device_eval_batch_size)
    usual = scaled_rate(base, args.optim, prefix=start.prefix is not None)
    usual_steps = TYPICAL_STEPS if args.is_auto else None
    attempts: list[Attempt] = []
    for number in count():
        own = state.attempt_arguments(args, number, usual)
        if number > 1:  # another learning rate alone did not help
            other = "vocabulary" if start.name != "vocabulary" else "random"
            start = choose_initialization(base, config, [encoded], other, seed=args.seed + 1)
        if number < len(state.failures):
            attempts += _restored(base, encoded, start, own, state.failures[number])
            continue
        # A restart that was interrupted before its first checkpoint begins at its first step.
        resume = resume and (not number or last_checkpoint(own.output_dir) is not None)
        may_restart = number < args.max_restarts and not uses_fsdp(args)
        guard = FailureCallback(baseline, stops=may_restart, usual_steps=usual_steps)
        attempt = _run(base, encoded, start, own, guard, resume=resume)
        resume = False
        attempts.append(attempt)
        if attempt.failure is None or not may_restart:
            state.gave_up = attempt.failure.reason if attempt.failure else None
            state.write(args.output_dir)
            break
        state.add(attempt, attempt.failure)
        state.write(args.output_dir)
    return attempts


def best_attempt(attempts: Sequence[Attempt]) -> Attempt:
    """Return the attempt that succeeded, or of failed ones that with the lowest dev loss.

    Raises:
        TrainingError: The loss of every attempt became NaN or infinite.
    """
    usable = [one for one in attempts if one.failure is None or not one.failure.fatal]
    if not usable:
        reason = attempts[-1].failure.reason if attempts[-1].failure else ""
        again = f" All {len(attempts)} attempts failed." if len(attempts) > 1 else ""
        raise TrainingError(reason + again)
    return min(usable, key=lambda one: (one.failure is not None, one.lowest_dev_loss))


def loss_without_learning(
    base: BaseModel, encoded: EncodedTask, start: Initialization, batch_size: int
) -> float | None:
    """Return the dev loss of the label frequencies, or of the initialization for generation."""
    if encoded.candidates is not None:
        return encoded.label_entropy
    if start.trained:  # a prompt that was trained before may be hard to improve
        return None
    vectors, prefix = start.vectors, start.prefix
    return dev_loss(base, encoded, vectors, prefix=prefix, limit=None, batch_size=batch_size)


def _run(
    base: BaseModel,
    encoded: EncodedTask,
    start: Initialization,
    args: PromptTrainingArguments,
    guard: FailureCallback,
    *,
    resume: bool,
) -> Attempt:
    trainer = _trainer(base, encoded, start, args, [HistoryCallback(), guard])
    began = time.perf_counter()
    try:
        run_trainer(trainer, resume=resume)
        guard.check_result(trainer.state)
    except NonFiniteLoss as error:
        guard.failure = Failure(str(error), fatal=True)
    seconds = time.perf_counter() - began
    return Attempt(args, start, trainer, seconds, guard.failure)


def _restored(
    base: BaseModel,
    encoded: EncodedTask,
    start: Initialization,
    args: PromptTrainingArguments,
    record: Mapping[str, Any],
) -> list[Attempt]:
    """Return an attempt that failed before the run was resumed, if it can be restored."""
    checkpoint = last_checkpoint(args.output_dir)
    failure = Failure(record["reason"], record["too_slow"], record.get("fatal", False))
    if checkpoint is None or failure.fatal:
        return []
    trainer = _trainer(base, encoded, start, args, [])
    check_is_of_this_prompt(checkpoint, trainer)
    if trainer.is_sharded or not is_complete(trainer.best_of(checkpoint)):
        return []
    trainer.restore(checkpoint)
    return [Attempt(args, start, trainer, 0.0, failure)]


def _trainer(
    base: BaseModel,
    encoded: EncodedTask,
    start: Initialization,
    args: PromptTrainingArguments,
    callbacks: Sequence[TrainerCallback],
) -> PromptTrainer:
    words, weights = encoded.candidates, encoded.label_weights
    module = PromptTuningModule(base, start.vectors, words, weights, start.prefix)
    return PromptTrainer(module, encoded.task, args, encoded.train, encoded.dev, callbacks)
