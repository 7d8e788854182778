"""Trainer callbacks: progress, Ctrl-C that saves first, warnings about a run, and trackers."""

from __future__ import annotations

import math
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any

from tqdm.auto import tqdm
from transformers import (
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations.integration_utils import (
    get_available_reporting_integrations,
    get_reporting_integration_callbacks,
)

from softhub.errors import TrainingError
from softhub.terminal import is_quiet

Logs = Mapping[str, float] | None
"""Values that transformers logs, by name."""


class ProgressLines(ProgressCallback):
    """transformers' progress bar on a terminal, and a short line for each log, all on stderr.

    Args:
        ends_by_itself: Whether the number of steps is not known, so that none is shown.
    """

    def __init__(self, *, ends_by_itself: bool = False) -> None:
        super().__init__()
        self.ends_by_itself = ends_by_itself

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar; it stays hidden where stderr is not a terminal."""
        if state.is_world_process_zero:
            steps = None if self.ends_by_itself else state.max_steps
            self.training_bar = tqdm(
                total=steps, desc="training", unit="step", disable=args.disable_tqdm
            )
        self.current_step = 0

    def on_prediction_step(self, args: TrainingArguments, *others: Any, **kwargs: Any) -> None:
        """Show the bar of dev batches on a terminal only."""
        if not args.disable_tqdm:
            super().on_prediction_step(args, *others, **kwargs)

    def on_log(
        self, args: Any, state: TrainerState, control: Any, logs: Logs = None, **kwargs: Any
    ) -> None:
        """Print the step with its loss or dev scores."""
        if not state.is_world_process_zero or not logs or is_quiet():
            return
        shown = {key.removeprefix("eval_"): logs[key] for key in logs if _is_shown(key)}
        if shown:
            split = "dev  " if "eval_loss" in logs else "train"
            scores = "  ".join(f"{key} {float(value):.4g}" for key, value in shown.items())
            last = "" if self.ends_by_itself else f"/{state.max_steps}"
            tqdm.write(f"step {state.global_step}{last}  {split}  {scores}", file=sys.stderr)


def _is_shown(key: str) -> bool:
    hidden = ("_runtime", "_per_second", "_predicted", "_present")
    return key in ("loss", "learning_rate") or (key.startswith("eval") and not key.endswith(hidden))


class InterruptCallback(TrainerCallback):
    """Turns the first Ctrl-C into a checkpoint and a clean stop after the current step."""

    def __init__(self) -> None:
        self.interrupted = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle SIGINT while training; only the main thread may."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = signal.signal(signal.SIGINT, self._on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait for the step
        self.interrupted = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Save and stop if Ctrl-C was pressed during the step.

        An evaluation that is due at this step is made: what a run decides by it must not depend on
        whether it was interrupted.
        """
        if self.interrupted:
            control.should_save = True
            control.should_training_stop = True
        return control


class NonFiniteLoss(TrainingError):
    """The loss became NaN or infinite."""


class HistoryCallback(TrainerCallback):
    """Records logged values, and ends a run whose loss is not a number.

    Attributes:
        history: Every logged mapping, with its step.
    """

    def __init__(self) -> None:
        self.history: list[dict[str, float]] = []

    def on_log(
        self, args: Any, state: TrainerState, control: Any, logs: Logs = None, **kwargs: Any
    ) -> None:
        """Record logged values, and end the run at a loss that is NaN or infinite.

        Raises:
            NonFiniteLoss: The loss is NaN or infinite.
        """
        self.history.append({"step": state.global_step, **(logs or {})})
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise NonFiniteLoss(
                f"The loss is {loss} at step {state.global_step}: lower learning_rate "
                f"({args.learning_rate}), or train in bf16 rather than fp16. The last good "
                f"checkpoint is in {args.output_dir}."
            )


def collapse_warnings(history: Sequence[Mapping[str, float]]) -> list[str]:
    """Return a warning if the best checkpoint of a run predicts a single label, or nothing."""
    evaluations = [logs for logs in history if "eval_labels_predicted" in logs]
    best = min(evaluations, key=lambda logs: logs["eval_loss"], default={})
    if best.get("eval_labels_predicted") == 1 < best["eval_labels_present"]:
        return [
            "Training collapsed: the best checkpoint predicts the same label for every dev "
            "text. Try another seed, a lower learning_rate, or init 'task'."
        ]
    return []


# --- trackers: trackio, TensorBoard, Weights & Biases, through transformers' callbacks ---


def check_trackers(report_to: str | Sequence[str] | None) -> None:
    """Check that trackers are known and installed, before anything is loaded.

    Args:
        report_to: Their names, `"none"` or `"all"`.

    Raises:
        TrainingError: Names the tracker, and how to install it.
    """
    names = [report_to] if isinstance(report_to, str) else report_to or ()
    if not isinstance(names, list | tuple):
        raise TrainingError(f"report_to is {report_to!r}; expected the name of a tracker.")
    for name in names:
        if name in ("none", "all"):
            continue
        try:
            get_reporting_integration_callbacks([name])
        except ValueError as error:
            raise TrainingError(f"report_to: {error}") from None
        if not _installed(name):
            raise TrainingError(
                f"report_to names {name}, which is not installed: pip install {name}, or leave "
                "report_to out. Losses and scores are in report.json and curve.png in any case."
            )


def _installed(name: str) -> bool:
    return name in get_available_reporting_integrations()


def run_name(output_dir: str) -> str:
    """Return the name of a run for trackers: its folder, without a leading `runs/`.

    Of an absolute path only the end is used, so that no path of this machine is sent.
    """
    parts = Path(output_dir).parts
    if Path(output_dir).is_absolute():
        parts = parts[-2:] if parts[-1].startswith("restart-") else parts[-1:]
    elif parts[:1] == ("runs",) and len(parts) > 1:
        parts = parts[1:]
    return "/".join(parts)


@contextmanager
def tracked(args: TrainingArguments) -> Iterator[None]:
    """Name a run for its trackers, and finish it there; what they print goes to stderr.

    A tracker that is left open would record the next run of this process under the same name.

    Args:
        args: The run's arguments; those without a `run_name` have one within the context.
    """
    if not args.report_to:
        yield
        return
    given, args.run_name = args.run_name, args.run_name or run_name(str(args.output_dir))
    with redirect_stdout(sys.stderr):
        try:
            yield
        finally:
            args.run_name = given
            if "wandb" in args.report_to and "wandb" in sys.modules:
                sys.modules["wandb"].finish()
