"""Our metrics as `evaluate.Metric`, instantiated directly: `evaluate.load` would need the Hub."""

from collections.abc import Sequence

import datasets
import evaluate

from softhub.metrics import Metric

_CITATION = "softhub: metrics as sums of per-example statistics"


class EvaluateMetric(evaluate.Metric):  # type: ignore[misc]
    """One metric in the form that `evaluate` and its users expect.

    Attributes:
        metric: The metric that does the counting.
    """

    def __init__(self, metric: Metric) -> None:
        """Wrap a metric; nothing is downloaded and nothing is written to disk.

        Args:
            metric: The metric that does the counting.
        """
        self.metric = metric
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=self.metric.description,
            citation=_CITATION,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        totals = self.metric.statistics(predictions, references).sum(axis=0)
        return {self.metric.name: float(self.metric.score(totals))}
