"""The toy task of the training tests, for comparisons too."""

from tests.training.conftest import toy_examples, toy_task

__all__ = ["toy_examples", "toy_task"]
