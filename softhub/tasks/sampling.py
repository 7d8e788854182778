"""Choosing a few examples of each label: for few-shot training, and for few-shot prompts."""

import random
from collections.abc import Sequence
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
    if task.multilabel:
        raise TaskError(f"{task.name} is multi-label; expected one label for each example.")
    draw = random.Random(seed)
    if task.verbalizer is None:
        return draw.sample(train, min(count, len(train)))
    labels = list(task.verbalizer.labels)
    by_label = {label: [e for e in train if e.label == label] for label in labels}
    for examples in by_label.values():
        draw.shuffle(examples)
    draw.shuffle(labels)  # with fewer shots than labels, chance decides which are shown
    shots: list[Example] = []
    while len(shots) < count and any(by_label.values()):
        shots += [by_label[label].pop() for label in labels if by_label[label]]
    shots = shots[:count]
    draw.shuffle(shots)
    return shots
