"""Calibrate a prompt's probabilities on dev and store the decision rule in its manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from softhub.errors import TaskError
from softhub.evaluation.evaluate import (
    check_task,
    leading_metric,
    predict_examples,
    references_of,
)
from softhub.inference.engine import Prediction, PromptModel
from softhub.inference.prediction import decide
from softhub.metrics import Metric, compute
from softhub.metrics.calibration import (
    OperatingPoint,
    expected_calibration_error,
    fit_temperature,
    operating_point,
    operating_points,
    threshold_for_accuracy,
)
from softhub.metrics.label_sets import split_labels
from softhub.model.encoding import Candidates
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Example, Task
from softhub.tasks.decision import ALWAYS_ANSWER, Decision

_THRESHOLDS = tuple(n / 20 for n in range(1, 20))


@dataclass(frozen=True)
class Reliability:
    """Calibration of the probabilities of a set of predictions.

    Attributes:
        error: Expected calibration error with the decision's temperature. For a multi-label task
            it is that of the decisions about single labels.
        error_before: The same at temperature 1.
        answered: Coverage and selective accuracy at the decision's threshold of abstention.
        operating_points: The same at several thresholds.
    """

    error: float
    error_before: float
    answered: OperatingPoint
    operating_points: tuple[OperatingPoint, ...]

    def to_record(self) -> dict[str, Any]:
        """Return plain JSON values."""
        points = [point.to_record() for point in self.operating_points]
        return {
            "expected_calibration_error": self.error,
            "expected_calibration_error_before": self.error_before,
            "answered": self.answered.to_record(),
            "operating_points": points,
        }


@dataclass(frozen=True)
class Calibration:
    """The outcome of a calibration.

    Attributes:
        decision: Temperature, threshold of a multi-label task, and threshold of abstention.
        dev: Calibration of the probabilities on dev, on which the decision was fitted.
    """

    decision: Decision
    dev: Reliability

    def applied_to(self, prompt: SoftPrompt) -> SoftPrompt:
        """Return the prompt with this decision in its manifest.

        Raises:
            TaskError: The manifest has no task.
        """
        if prompt.manifest.task is None:
            raise TaskError(
                "The manifest of a PEFT adapter has no task to store a decision in; save the "
                "prompt with a task first."
            )
        task = replace(Task.from_record(prompt.manifest.task), decision=self.decision)
        return replace(prompt, manifest=replace(prompt.manifest, task=task.to_record()))


def calibrate(
    model: PromptModel,
    task: Task,
    dev: Sequence[Example],
    *,
    prompt: str | None = None,
    accuracy: float | None = None,
    abstain_below: float | None = None,
    batch_size: int = 32,
) -> Calibration:
    """Fit a prompt's temperature on dev and, for a multi-label task, its threshold.

    Args:
        model: The engine.
        task: The task; its first metric chooses the threshold of a multi-label task.
        dev: Examples that were not used for training; never the test split.
        prompt: Name of a loaded prompt; None calibrates the bare base.
        accuracy: Abstain so that at least this share of the answers is correct on dev.
        abstain_below: Abstain below this confidence instead; without either, as the task says.
        batch_size: Examples per batch.

    Raises:
        TaskError: The task is not a classification, the prompt has other labels, or no threshold
            reaches `accuracy`.
        DatasetError: There is no example, or one without a label.
    """
    if task.verbalizer is None:
        raise TaskError(f"{task.name} is a {task.kind}; only a classification can be calibrated.")
    check_task(model, task, prompt)
    references = references_of(task, dev)
    predictions = predict_examples(model, task, dev, prompt=prompt, batch_size=batch_size)
    temperature = fit_temperature(*_choices(predictions, references))
    decision = replace(task.decision, temperature=temperature)
    if task.multilabel:
        decision = _with_threshold(predictions, references, decision, leading_metric(task))
    if abstain_below is None and accuracy is not None:
        abstain_below = _abstention(predictions, references, decision, accuracy, prompt)
    if abstain_below is not None:
        decision = replace(decision, abstain_below=abstain_below)
    return Calibration(decision, reliability(predictions, references, decision))


def reliability(
    predictions: Sequence[Prediction], references: Sequence[str], decision: Decision
) -> Reliability:
    """Measure the calibration of probabilities.

    Args:
        predictions: Predictions of N texts, of which only the scores are used.
        references: N correct labels, or sets of labels.
        decision: Provides the temperature and the threshold.

    Raises:
        DatasetError: There are no predictions.
    """
    decided = decide_again(predictions, replace(decision, abstain_below=0.0))
    plain = decide_again(predictions, ALWAYS_ANSWER)
    answers = _answers(decided, references)
    return Reliability(
        error=expected_calibration_error(*_decisions(decided, references)),
        error_before=expected_calibration_error(*_decisions(plain, references)),
        answered=operating_point(*answers, decision.abstain_below),
        operating_points=operating_points(*answers),
    )


def decide_again(predictions: Sequence[Prediction], decision: Decision) -> list[Prediction]:
    """Apply another decision rule to the same scores."""
    return [
        decide(
            Candidates(tuple(each.scores), (), (), each.labels is not None),
            list(each.scores.values()),
            decision,
        )
        for each in predictions
    ]


def _choices(
    predictions: Sequence[Prediction], references: Sequence[str]
) -> tuple[list[list[float]], list[int]]:
    """Return scores `[M, K]` and correct indices `[M]`; in multi-label, a label is a row of two."""
    if predictions and predictions[0].labels is None:
        names = list(predictions[0].scores)
        scores = [list(each.scores.values()) for each in predictions]
        return scores, [names.index(reference) for reference in references]
    pairs = [
        ([0.0, odds], int(label in split_labels(reference)))
        for each, reference in zip(predictions, references, strict=True)
        for label, odds in each.scores.items()
    ]
    return [scores for scores, _ in pairs], [right for _, right in pairs]


def _answers(
    predictions: Sequence[Prediction], references: Sequence[str]
) -> tuple[list[float], list[bool]]:
    """Return the confidence of each answer, and whether it is correct, `[N]` each."""
    right = [each.best == b for each, b in zip(predictions, references, strict=True)]
    return [each.confidence for each in predictions], right


def _decisions(
    predictions: Sequence[Prediction], references: Sequence[str]
) -> tuple[list[float], list[bool]]:
    """Return the confidence of each decision (text or label), and whether it is correct."""
    if predictions and predictions[0].labels is None:
        return _answers(predictions, references)
    sure, right = [], []
    for each, reference in zip(predictions, references, strict=True):
        applying = split_labels(reference)
        for label, chance in each.probabilities.items():
            sure.append(max(chance, 1 - chance))
            right.append((chance >= 0.5) == (label in applying))
    return sure, right


def _with_threshold(
    predictions: Sequence[Prediction], references: Sequence[str], decision: Decision, metric: Metric
) -> Decision:
    """Return the threshold with the best score on dev; of equals, the one nearest to 0.5."""

    def value(threshold: float) -> tuple[float, float]:
        again = decide_again(predictions, replace(decision, threshold=threshold))
        score = compute(metric.name, [each.best for each in again], references)
        return metric.goodness(score), -abs(threshold - 0.5)

    return replace(decision, threshold=max(_THRESHOLDS, key=value))


def _abstention(
    predictions: Sequence[Prediction],
    references: Sequence[str],
    decision: Decision,
    accuracy: float,
    prompt: str | None,
) -> float:
    """Return the threshold of abstention at which a share of the answers is correct."""
    decided = decide_again(predictions, decision)
    point = threshold_for_accuracy(*_answers(decided, references), accuracy)
    if point is None:
        raise TaskError(
            f"At no confidence threshold does {prompt or 'the base'} have an accuracy of "
            f"{accuracy} or more on dev; use a lower accuracy, or train longer."
        )
    return point.abstain_below
