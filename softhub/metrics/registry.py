"""The metrics by name."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from softhub.errors import TaskError, did_you_mean
from softhub.metrics.base import Metric, check_pairs
from softhub.metrics.classification import (
    Accuracy,
    MacroF1,
    MultilabelMacroF1,
    MultilabelMicroF1,
)
from softhub.metrics.code import PassAt1, ValidPython
from softhub.metrics.perplexity import Perplexity
from softhub.metrics.texts import ChrF, ExactMatch, Rouge, SacreBleu

_ALL: tuple[Metric, ...] = (
    Accuracy(),
    MacroF1(),
    MultilabelMicroF1(),
    MultilabelMacroF1(),
    ExactMatch(),
    SacreBleu(),
    ChrF(),
    Rouge("1"),
    Rouge("2"),
    Rouge("L"),
    ValidPython(),
    PassAt1(),
    Perplexity(),
)
METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _ALL})


def find_metric(name: str) -> Metric:
    """Return the metric with this name.

    Args:
        name: A key of `METRICS`.

    Raises:
        TaskError: There is no such metric.
    """
    if name not in METRICS:
        raise TaskError(f"unknown metric {name!r}{did_you_mean(name, METRICS)}")
    return METRICS[name]


def compute(name: str, predictions: Sequence[Any], references: Sequence[str]) -> float:
    """Compute a metric through the `evaluate` library, without a download.

    Args:
        name: A key of `METRICS`.
        predictions: N predictions of the metric's `input_kind`.
        references: N correct answers.

    Raises:
        TaskError: There is no such metric.
        DatasetError: There is nothing to score, or the numbers differ.
    """
    metric = find_metric(name)
    check_pairs(predictions, references)
    # `evaluate` imports torch, which reading a task must not.
    from softhub.metrics.evaluate_metric import EvaluateMetric

    scores = EvaluateMetric(metric).compute(predictions=predictions, references=references)
    return float(scores[name])
