"""Fit on dev how a prompt's scores become answers, and keep that in its manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from softhub.errors import TaskError
from softhub.evaluation.evaluate import check_task, predict_examples, references_of
from softhub.inference.engine import Prediction, PromptModel
from softhub.inference.prediction import decide
from softhub.metrics import compute
from softhub.metrics.calibration import (
    Operating,
    abstain_for,
    expected_calibration_error,
    fit_temperature,
    operating_points,
)
from softhub.metrics.label_sets import split_labels
from softhub.model.encoding import Candidates
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Example, Task
from softhub.tasks.decision import ALWAYS_ANSWER, Decision

_THRESHOLDS = tuple(n / 20 for n in range(1, 20))


@dataclass(frozen=True)
class Reliability:
    """How far the probabilities of one set of predictions can be trusted.

    Attributes:
        error: Expected calibration error with the decision's temperature. For a multi-label task
            it is that of the single decisions.
        error_before: The same at temperature 1.
        operating_points: Coverage and selective accuracy at several thresholds.
    """

    error: float
    error_before: float
    operating_points: tuple[Operating, ...]

    def to_record(self) -> dict[str, Any]:
        """Return plain JSON values."""
        points = [point.to_record() for point in self.operating_points]
        return {
            "expected_calibration_error": self.error,
            "expected_calibration_error_before": self.error_before,
            "operating_points": points,
        }


@dataclass(frozen=True)
class Calibration:
    """What was fitted on dev.

    Attributes:
        decision: Temperature, threshold and when to abstain.
        dev: How far the probabilities can be trusted on dev, on which they were fitted.
    """

    decision: Decision
    dev: Reliability

    def applied_to(self, prompt: SoftPrompt) -> SoftPrompt:
        """The prompt with this decision in its manifest.

        Raises:
            TaskError: The manifest holds no task.
        """
        if prompt.manifest.task is None:
            raise TaskError(
                "A foreign adapter's manifest holds no task to keep a decision in; save the prompt "
                "with a task first."
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
    """Fit a prompt's temperature on dev and, for several labels, its threshold.

    Args:
        model: The engine.
        task: The task; its first metric chooses the threshold of a multi-label task.
        dev: Examples that training did not see; never the test split.
        prompt: Name of a loaded prompt; None calibrates the bare base.
        accuracy: Abstain where that is needed for this share of the answers to be right on dev.
        abstain_below: Abstain below this confidence instead; without either, as the task says.
        batch_size: Examples in one pass.

    Returns:
        What was fitted; `applied_to` puts it into the prompt's manifest.

    Raises:
        TaskError: The task does not classify, the prompt was made for other labels, or no
            threshold reaches `accuracy`.
        DatasetError: There is no example, or one without a label.
    """
    if task.verbalizer is None:
        raise TaskError(f"The task {task.name} is of kind {task.kind}; only labels are calibrated.")
    check_task(model, task, prompt)
    references = references_of(task, dev)
    predictions = predict_examples(model, task, dev, prompt=prompt, batch_size=batch_size)
    temperature = fit_temperature(*_choices(predictions, references))
    decision = replace(task.decision, temperature=temperature)
    if task.multilabel:
        metric = task.metrics[0] if task.metrics else "accuracy"
        decision = _with_threshold(predictions, references, decision, metric)
    decided = decide_again(predictions, decision)
    if abstain_below is not None:
        decision = replace(decision, abstain_below=abstain_below)
    elif accuracy is not None:
        point = abstain_for(*_answers(decided, references), accuracy)
        if point is None:
            raise TaskError(
                f"No confidence of {prompt or 'the base'} gives an accuracy of {accuracy} on dev: "
                "ask for less, or train longer."
            )
        decision = replace(decision, abstain_below=point.abstain_below)
    return Calibration(decision, reliability(predictions, references, decision))


def reliability(
    predictions: Sequence[Prediction], references: Sequence[str], decision: Decision
) -> Reliability:
    """Measure how far probabilities can be trusted.

    Args:
        predictions: Predictions of N texts; their scores count, not what was decided.
        references: N right labels, or sets of labels.
        decision: Gives the temperature and the threshold.

    Raises:
        DatasetError: There are no predictions.
    """
    decided = decide_again(predictions, replace(decision, abstain_below=0.0))
    plain = decide_again(predictions, ALWAYS_ANSWER)
    return Reliability(
        error=expected_calibration_error(*_decisions(decided, references)),
        error_before=expected_calibration_error(*_decisions(plain, references)),
        operating_points=operating_points(*_answers(decided, references)),
    )


def decide_again(predictions: Sequence[Prediction], decision: Decision) -> list[Prediction]:
    """The same scores, decided in another way."""
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
    """Scores `[M, K]` and the right one of each row; every label of several is a row of two."""
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
    """Confidence of each answer, and whether it is right."""
    right = [each.best == b for each, b in zip(predictions, references, strict=True)]
    return [each.confidence for each in predictions], right


def _decisions(
    predictions: Sequence[Prediction], references: Sequence[str]
) -> tuple[list[float], list[bool]]:
    """Confidence of each decision, and whether it is right: one a text, or one a label."""
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
    predictions: Sequence[Prediction], references: Sequence[str], decision: Decision, metric: str
) -> Decision:
    """The threshold that scores best on dev; of equals the one nearest to a half."""

    def value(threshold: float) -> tuple[float, float]:
        again = decide_again(predictions, replace(decision, threshold=threshold))
        score = compute(metric, [each.best for each in again], references)
        return score, -abs(threshold - 0.5)

    return replace(decision, threshold=max(_THRESHOLDS, key=value))
