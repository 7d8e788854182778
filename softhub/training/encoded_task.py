"""A task with its examples, encoded for a base."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from softhub.adapter.manifest import check_task
from softhub.model.base import BaseModel
from softhub.model.encoding import Candidates, render_chat
from softhub.tasks import Example, Task
from softhub.training.data import EncodedExamples, encode_examples


@dataclass(frozen=True)
class EncodedTask:
    """A task and its tokenized examples, as the trainer reads them.

    Attributes:
        task: The task, its chat template rendered.
        candidates: Label words of a classification task; None for generation.
        train: Rows to train on.
        dev: Rows used to select the best checkpoint.
        label_weights: Weight of each label in the loss; None if all have the same.
    """

    task: Task
    candidates: Candidates | None
    train: EncodedExamples
    dev: EncodedExamples
    label_weights: Mapping[str, float] | None

    @property
    def width(self) -> int:
        """The most columns of a batch without the prompt, in training and in use.

        They are those of the longest text, and of the longest answer that follows it.
        """
        texts = max(len(ids) for split in (self.train, self.dev) for ids in split.inputs)
        generated = self.candidates is None and self.task.generation.get("max_new_tokens")
        return texts + max(self.longest_answer, int(generated or 0))

    @property
    def longest_answer(self) -> int:
        """The most tokens of an answer that training scores."""
        if self.candidates is not None:
            return max(map(len, self.candidates.sequences))
        targets = (answer for split in (self.train, self.dev) for answer in split.answers)
        return max(len(answer) for answer in targets if isinstance(answer, tuple))

    @property
    def label_entropy(self) -> float | None:
        """The dev loss of predicting the label frequencies for every text.

        None where it does not indicate failure: for generation, for several labels per text, for
        weighted labels, for the probabilities of a teacher, which may be nearly the same for every
        text, and for a dev split of one label, of which it is 0.
        """
        plain = all(isinstance(answer, int) for answer in self.dev.answers)
        counts = Counter(self.dev.answers).values()
        weighted = self.label_weights is not None
        if self.candidates is None or not plain or weighted or len(counts) < 2:
            return None
        return -sum(n / len(self.dev) * math.log(n / len(self.dev)) for n in counts)


def encode_task(
    base: BaseModel,
    task: Task,
    train: Sequence[Example],
    dev: Sequence[Example],
    *,
    virtual_tokens: int,
) -> EncodedTask:
    """Encode a task's examples for a base.

    Args:
        base: The base.
        task: The task.
        train: Examples to train on.
        dev: Examples used to select the best checkpoint.
        virtual_tokens: Positions that the prompt takes.

    Returns:
        The encoded task.

    Raises:
        TaskError: The template, the label words and the tokenizer do not fit together, an answer is
            longer than the base's decoder reads, or no adapter can hold the task.
        TrainingError: A split is empty.
    """
    task = render_chat(task, base.tokenizer)
    check_task(task)
    encoder = base.encoder
    candidates = encoder.candidates_of(task)
    room = None if base.max_positions is None else base.max_positions - virtual_tokens
    encoded = EncodedTask(
        task,
        candidates,
        train=encode_examples(encoder, task, train, candidates, room),
        dev=encode_examples(encoder, task, dev, candidates, room),
        label_weights=task.training_weights(train),
    )
    base.check_answer(encoded.longest_answer)
    return encoded


def truncation_warnings(tasks: Sequence[EncodedTask]) -> list[str]:
    """Return a warning with the number of truncated texts of each split, if there are any."""
    found = []
    for name in ("train", "dev"):
        splits = [getattr(encoded, name) for encoded in tasks]
        truncated = sum(split.truncated for split in splits)
        if truncated:
            found.append(f"{truncated} of {sum(map(len, splits))} {name} texts")
    return [f"{' and '.join(found)} were too long and were truncated."] if found else []
