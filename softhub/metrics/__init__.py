"""Metrics as sums of per-example statistics.

Every metric adds up statistics of single examples and turns the totals into a score. So the score
of any resample is a weighted sum, and a bootstrap is one matrix product (`intervals.py`). Each
metric knows whether greater scores are better and in which unit they are written.
"""

from softhub.metrics.base import Floats, Metric, check_pairs
from softhub.metrics.code import OUTCOMES
from softhub.metrics.registry import METRICS, compute, find_metric

__all__ = ["METRICS", "OUTCOMES", "Floats", "Metric", "check_pairs", "compute", "find_metric"]
