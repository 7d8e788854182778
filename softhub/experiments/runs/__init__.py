"""The index of training runs in a folder, with the provenance of each prompt."""

from softhub.experiments.runs.index import ORDERS, find_runs, sort_runs
from softhub.experiments.runs.reading import is_run, read_run
from softhub.experiments.runs.run import Run

__all__ = ["ORDERS", "Run", "find_runs", "is_run", "read_run", "sort_runs"]
