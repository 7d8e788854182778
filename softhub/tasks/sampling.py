"""Choosing a few examples of each label: for few-shot training, and for few-shot prompts."""

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from softhub.errors import TaskError
from softhub.tasks.dataset import Example

if TYPE_CHECKING:
    from softhub.tasks.task import Task


def choose_shots(task: "Task", train: Sequence[Example], count: int, seed: int) -> list[Example]:
    """Draw examples as evenly over the labels as the count allows, in random order.

    Args:
        task: The task.
        train: Examples to draw from.
        count: Number of examples to draw.
        seed: Chooses the examples and their order.

    Returns:
        The examples, in the order in which a prompt shows them.

    Raises:
        TaskError: The task is multi-label, so an example does not belong to one label.
    """
    draw = random.Random(seed)
    if task.verbalizer is None:
        return draw.sample(train, min(count, len(train)))
    shots: list[Example] = []
    for drawn in _rounds(task, train, draw):
        if len(shots) >= count:
            break
        shots += drawn
    shots = shots[:count]
    draw.shuffle(shots)
    return shots


def choose_per_label(
    task: "Task", examples: Sequence[Example], count: int, seed: int
) -> list[Example]:
    """Draw a number of examples of each label, or all that there are, in random order.

    Where each label has as many, they are those of `choose_shots`.

    Args:
        task: The task, a classification.
        examples: Examples to draw from.
        count: Maximum number of examples of each label.
        seed: Chooses the examples and their order.

    Raises:
        TaskError: The task is multi-label, so an example does not belong to one label.
    """
    draw = random.Random(seed)
    chosen = [
        example for drawn in islice(_rounds(task, examples, draw), count) for example in drawn
    ]
    draw.shuffle(chosen)
    return chosen


def _rounds(
    task: "Task", examples: Sequence[Example], draw: random.Random
) -> Iterator[list[Example]]:
    """Yield one example of each label that has one left, until there is none."""
    if task.multilabel:
        raise TaskError(f"{task.name} is multi-label; expected one label for each example.")
    assert task.verbalizer is not None
    labels = list(task.verbalizer.labels)
    by_label = {label: [e for e in examples if e.label == label] for label in labels}
    for own in by_label.values():
        draw.shuffle(own)
    draw.shuffle(labels)  # with fewer shots than labels, chance decides which are shown
    while any(by_label.values()):
        yield [by_label[label].pop() for label in labels if by_label[label]]
