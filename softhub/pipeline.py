"""Judge a prompt, or the bare base, on examples: scores with intervals, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from softhub.engine import Prediction, PromptModel
from softhub.tasks import Example, Task
from softhub.tasks.intervals import Interval, bootstrap_interval


@dataclass(frozen=True)
class Evaluation:
    """Scores of one way of answering on one set of examples.

    Attributes:
        metrics: For each of the task's metrics its value and 95 % interval, resampled by group.
        predictions: Predicted label of each example.
        references: Right label of each example.
        seconds: Wall time of predicting.
    """

    metrics: Mapping[str, Interval]
    predictions: tuple[str, ...]
    references: tuple[str, ...]
    seconds: float

    @property
    def examples_per_second(self) -> float:
        """Examples answered per second of wall time."""
        return len(self.predictions) / max(self.seconds, 1e-9)

    @property
    def correct(self) -> list[bool]:
        """Whether each example was answered right, for paired comparisons."""
        return [a == b for a, b in zip(self.predictions, self.references, strict=True)]


def judge(
    task: Task, examples: Sequence[Example], predictions: Sequence[str], seconds: float
) -> Evaluation:
    """Score predictions that were made in any way.

    Args:
        task: Names the metrics.
        examples: The examples, with their labels and groups.
        predictions: One label for each.
        seconds: How long predicting took.

    Returns:
        The evaluation.
    """
    references = [str(example.label) for example in examples]
    groups = [example.group for example in examples]
    metrics = {
        name: bootstrap_interval(predictions, references, name, groups=groups)
        for name in task.metrics or ("accuracy",)
    }
    return Evaluation(metrics, tuple(predictions), tuple(references), seconds)


def evaluate(
    model: PromptModel,
    task: Task,
    examples: Sequence[Example],
    *,
    prompt: str | None = None,
    batch_size: int = 32,
) -> Evaluation:
    """Predict and score examples.

    Args:
        model: The engine.
        task: Template, words and metrics; a prompt that brings its own task predicts with that.
        examples: What to predict.
        prompt: Name of a loaded prompt; None judges the bare base with the task's template.
        batch_size: Examples in one pass; does not change the result.

    Returns:
        The evaluation.
    """
    start = time.perf_counter()
    predictions = predict_examples(model, task, examples, prompt=prompt, batch_size=batch_size)
    labels = [prediction.label for prediction in predictions]
    return judge(task, examples, labels, time.perf_counter() - start)


def predict_examples(
    model: PromptModel,
    task: Task,
    examples: Sequence[Example],
    *,
    prompt: str | None = None,
    batch_size: int = 32,
) -> list[Prediction]:
    """Predict examples, with a progress bar on a terminal."""
    return model.predict(
        [example.row for example in examples],
        prompt=prompt,
        task=task,
        batch_size=batch_size,
        progress=prompt or "bare base",
    )
