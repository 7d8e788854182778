"""Metrics."""

METRICS = ("accuracy", "macro_f1", "exact_match")
