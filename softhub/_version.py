"""The version of softhub, without importing anything else."""

__version__ = "0.1.0"
