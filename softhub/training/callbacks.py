"""What watches a run: progress, Ctrl-C that saves first, plain words when nothing is learned."""

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


class ProgressLines(ProgressCallback):
    """transformers' progress bar on a terminal, and a short line for each log, all on stderr."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar; where nobody watches it shows nothing."""
        if state.is_world_process_zero:
            self.training_bar = tqdm(
                total=state.max_steps, desc="training", unit="step", disable=args.disable_tqdm
            )
        self.current_step = 0

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Show the bar of dev batches on a terminal only."""
        if not args.disable_tqdm:
            super().on_prediction_step(args, state, control, eval_dataloader, **kwargs)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Say where the run is: the step, and the loss or the dev scores."""
        if not state.is_world_process_zero or not logs:
            return
        shown = {key.removeprefix("eval_"): logs[key] for key in logs if _worth_a_line(key)}
        if shown:
            split = "dev  " if "eval_loss" in logs else "train"
            words = "  ".join(f"{key} {float(value):.4g}" for key, value in shown.items())
            line = f"step {state.global_step}/{state.max_steps}  {split}  {words}"
            tqdm.write(line, file=sys.stderr)


def _worth_a_line(key: str) -> bool:
    timing = ("_runtime", "_per_second", "_predicted", "_present")
    return key in ("loss", "learning_rate") or (key.startswith("eval") and not key.endswith(timing))


class InterruptCallback(TrainerCallback):
    """Turns the first Ctrl-C into a checkpoint and a clean stop after the step at hand."""

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
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> TrainerControl:
        """Save and stop if Ctrl-C was pressed during the step."""
        if self.interrupted:
            control.should_save = True
            control.should_evaluate = False
            control.should_training_stop = True
        return control


class LossIsNoNumber(TrainingError):
    """The loss became NaN or infinite."""


class WatchCallback(TrainerCallback):
    """Collects dev scores and says what went wrong: NaN, constant predictions, no progress.

    Attributes:
        history: Every logged mapping, with its step.
    """

    def __init__(self, metric: str, *, floor: float | None) -> None:
        self.metric = f"eval_{metric}"
        self.floor = floor
        self.history: list[dict[str, float]] = []

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep what is logged; a loss that is no number ends the run.

        Raises:
            LossIsNoNumber: The loss is NaN or infinite.
        """
        self.history.append({"step": state.global_step, **(logs or {})})
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise LossIsNoNumber(
                f"The loss is {loss} at step {state.global_step}: lower learning_rate "
                f"({args.learning_rate}), or train in bf16 rather than fp16. The last good "
                f"checkpoint is in {args.output_dir}."
            )

    def warnings(self) -> list[str]:
        """What a person should know about how training went, in plain words."""
        evaluations = [logs for logs in self.history if self.metric in logs]
        if not evaluations:
            return []
        best = max(evaluations, key=lambda logs: logs[self.metric])
        found = []
        if best.get("eval_labels_predicted") == 1 and best.get("eval_labels_present", 1) > 1:
            found.append(
                "Training collapsed: the best checkpoint predicts one label for every dev text. "
                "Try another seed, a lower learning_rate, or init 'task'."
            )
        elif self.floor is not None and best[self.metric] <= self.floor:
            found.append(
                f"Nothing was learned: the best dev score {best[self.metric]:.3f} is no better "
                f"than always giving the commonest label ({self.floor:.3f}). Try a higher "
                "learning_rate, more steps, or a clearer template."
            )
        elif len({logs[self.metric] for logs in evaluations}) == 1 and len(evaluations) > 2:
            found.append(
                f"The dev score never moved from {best[self.metric]:.3f}: try a higher "
                "learning_rate or more steps."
            )
        return found


_ROOT = "runs"


def check_trackers(report_to: str | Sequence[str] | None) -> None:
    """Refuse trackers that are unknown or not installed, before anything is loaded.

    Args:
        report_to: Their names; transformers has made a list of them.

    Raises:
        TrainingError: Says which, and what installs it.
    """
    for name in [report_to] if isinstance(report_to, str) else report_to or ():
        try:
            get_reporting_integration_callbacks([name])
        except ValueError as error:
            raise TrainingError(f"report_to: {error}") from None
        if name in ("tensorboard", "trackio", "wandb") and not _installed(name):
            raise TrainingError(
                f"report_to asks for {name}, which is not installed: pip install {name}, or leave "
                "report_to out. Losses and scores are in report.json and curve.png all the same."
            )


def _installed(name: str) -> bool:
    return name in get_available_reporting_integrations()


def run_name(output_dir: str) -> str:
    """What trackers call a run: its folder, without the `runs/` that all have in common.

    Of an absolute path only the end is told.
    """
    parts = Path(output_dir).parts
    if Path(output_dir).is_absolute():
        parts = parts[-2:] if parts[-1].startswith("restart-") else parts[-1:]
    elif parts[:1] == (_ROOT,) and len(parts) > 1:
        parts = parts[1:]
    return "/".join(parts)


@contextmanager
def tracked(args: TrainingArguments) -> Iterator[None]:
    """Name a run for its trackers, and end it there; what they print goes to stderr.

    A tracker that is left open would take the next run of this process for the same one.

    Args:
        args: The run's arguments; those without a `run_name` have one meanwhile.
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
