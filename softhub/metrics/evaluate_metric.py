"""softhub's metrics as `evaluate.Metric`, instantiated because `evaluate.load` would download."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from softhub.metrics.base import Metric

_CITATION = "softhub: metrics as sums of per-example statistics"


class EvaluateMetric(evaluate.Metric):  # type: ignore[misc]
    """A metric in the form that the `evaluate` library expects.

    Attributes:
        metric: The metric that is computed.
    """

    def __init__(self, metric: Metric) -> None:
        """Wrap a metric; nothing is downloaded or written to disk."""
        self.metric = metric
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        scores_tokens = self.metric.input_kind == "log_probabilities"
        prediction = [datasets.Value("float64")] if scores_tokens else text
        return evaluate.MetricInfo(
            description=self.metric.description,
            citation=_CITATION,
            features=datasets.Features({"predictions": prediction, "references": text}),
        )

    def _compute(self, predictions: Sequence[Any], references: Sequence[str]) -> dict[str, float]:
        totals = self.metric.statistics(predictions, references).sum(axis=0)
        return {self.metric.name: float(self.metric.score(totals))}
