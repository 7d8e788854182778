"""The toy task of the training tests, for methods that train weights."""

from tests.training.conftest import toy_examples, toy_task

__all__ = ["toy_examples", "toy_task"]
