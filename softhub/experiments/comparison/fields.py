"""What the rows of all methods share: scores, training, and sizes, as fields of a row."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from softhub.evaluation.evaluate import Evaluation
from softhub.evaluation.few_shot import written_out
from softhub.experiments.comparison.fine_tuning import WeightsResult
from softhub.experiments.comparison.setup import ComparisonSetup
from softhub.tasks import Example, Task, Template
from softhub.training import FitResult

Fields = dict[str, Any]
"""Fields of a `ComparedRow` other than its key."""

_END = 1 / 6  # of a run, over which the training loss is averaged


def scored(evaluation: Evaluation, **fields: Any) -> Fields:
    """Return scores and predictions, and further fields."""
    ends = [outcome.kind for outcome in evaluation.outcomes]
    judged = {"code": list(evaluation.programs), "outcomes": ends}
    return {
        "metrics": {name: interval.value for name, interval in evaluation.metrics.items()},
        "predictions": list(evaluation.predictions),
        "judged": {kind: values for kind, values in judged.items() if values},
        "predict_seconds": evaluation.seconds / len(evaluation.predictions),
        **fields,
    }


def trained(result: FitResult | WeightsResult, **details: Any) -> Fields:
    """Return the fields of training, with the loss on training texts at its end as a detail."""
    history = [
        {key.removeprefix("eval_"): value for key, value in logs.items()}
        for logs in result.history
        if "eval_loss" in logs
    ]
    return {
        "train_seconds": result.seconds,
        "steps": result.steps,
        "best_step": result.best_step,
        "history": history,
        "details": {**details, "train_loss_at_end": _train_loss(result)},
    }


def _train_loss(result: FitResult | WeightsResult) -> float | None:
    """Return the mean loss of the last steps, whose texts are new in a run of less than a pass."""
    logs = [each for each in result.history if "loss" in each and "eval_loss" not in each]
    last = max((each["step"] for each in logs), default=0)
    losses = [each["loss"] for each in logs if each["step"] > (1 - _END) * last]
    return round(fmean(losses), 4) if losses else None


def template_tokens(setup: ComparisonSetup, template: Template) -> int:
    """Return the number of tokens that a template adds to the text of the first test example."""
    encoder = setup.base.encoder
    return encoder.tokens_around(template, setup.data.test[0].row, setup.task.text_column)


def text_bytes(task: Task, template: Template, shots: Sequence[Example] = ()) -> int:
    """Return the size of a hard prompt, which is what its task has to store: UTF-8."""
    return len((written_out(task, template, shots) + template.text).encode())
