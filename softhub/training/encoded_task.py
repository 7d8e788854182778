"""What is learned: a task with its examples, encoded for a base."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from softhub.model.base import BaseModel
from softhub.model.encoding import Candidates, Encoder, render_chat
from softhub.tasks import Example, Task
from softhub.training.data import EncodedExamples, encode_examples


@dataclass(frozen=True)
class Lesson:
    """A task as it is trained on.

    Attributes:
        task: The task, its chat template rendered.
        candidates: Label words of a classification task; None for generation.
        train: Rows to learn from.
        dev: Rows that choose.
        weights: How much each label counts; None for all alike.
        commonest: Share of the commonest label in dev: what a score has to beat; None for
            generation.
    """

    task: Task
    candidates: Candidates | None
    train: EncodedExamples
    dev: EncodedExamples
    weights: Mapping[str, float] | None
    commonest: float | None

    @property
    def entropy(self) -> float | None:
        """The dev loss of giving every text the labels' shares; None where it is no measure.

        A teacher may say nearly the same of every text: what is no better need not have failed.
        """
        plain = all(isinstance(answer, int) for answer in self.dev.answers)
        if self.candidates is None or not plain or self.weights is not None:
            return None
        counts = Counter(self.dev.answers).values()
        return -sum(n / len(self.dev) * math.log(n / len(self.dev)) for n in counts)

    @property
    def cut_warnings(self) -> list[str]:
        """Say how many texts were too long, if any were."""
        cut, total = self.train.cut + self.dev.cut, len(self.train) + len(self.dev)
        return [f"{cut} of {total} texts were too long and lost their end."] if cut else []


def prepare_lesson(
    base: BaseModel,
    task: Task,
    train: Sequence[Example],
    dev: Sequence[Example],
    *,
    virtual_tokens: int,
) -> Lesson:
    """Encode a task's examples for a base.

    Args:
        base: The base.
        task: The task.
        train: Examples to learn from.
        dev: Examples that choose.
        virtual_tokens: Positions that the prompt takes.

    Returns:
        The lesson.

    Raises:
        TaskError: Template, words and tokenizer do not fit together.
        TrainingError: A split is empty.
    """
    task = render_chat(task, base.tokenizer)
    encoder = Encoder(base.tokenizer, is_encoder_decoder=base.is_encoder_decoder)
    candidates = encoder.candidates_of(task)
    room = None if base.max_positions is None else base.max_positions - virtual_tokens
    labels = Counter(example.label for example in dev) if candidates else None
    return Lesson(
        task,
        candidates,
        train=encode_examples(encoder, task, train, candidates, room),
        dev=encode_examples(encoder, task, dev, candidates, room),
        weights=task.training_weights(train),
        commonest=labels.most_common(1)[0][1] / len(dev) if labels else None,
    )
