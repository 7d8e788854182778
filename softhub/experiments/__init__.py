"""What people do with the other rooms: runs with their reports, comparisons, distillation."""

from softhub.experiments.config import MultitaskConfig, RunConfig

__all__ = ["MultitaskConfig", "RunConfig"]
