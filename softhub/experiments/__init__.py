"""Runs with reports, comparisons of methods, and distillation."""

from softhub.experiments.config import MultitaskConfig, RunConfig

__all__ = ["MultitaskConfig", "RunConfig"]
