"""Examples as training rows: encoded once, batched with rows of like length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from softhub.errors import TrainingError
from softhub.metrics.label_sets import split_labels
from softhub.model.assembly import pad_rows
from softhub.model.encoding import Candidates, Encoder
from softhub.tasks import Example, Task

_MEGA_BATCH = 50
"""Batches sorted together: enough to pad little, few enough to mix lengths over an epoch."""

IGNORED = -100

Answer = int | tuple[int, ...] | tuple[float, ...]
"""A label's index, a bool or a probability for each label, or the token ids of a target."""


@dataclass(frozen=True)
class EncodedExamples(Dataset[Mapping[str, Any]]):
    """Rows ready for the collator.

    Attributes:
        inputs: Token ids of each text.
        answers: For each row its label's index, whether each label applies, the probability of each
            label, or the target's token ids.
        cut: How many texts were too long and lost their end.
    """

    inputs: tuple[tuple[int, ...], ...]
    answers: tuple[Answer, ...]
    cut: int = 0

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.inputs)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """One row for the collator."""
        return {"input_ids": self.inputs[index], "labels": self.answers[index]}

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row, the answer's included where it is fed."""
        return [
            len(ids) + len(_target(answer))
            for ids, answer in zip(self.inputs, self.answers, strict=True)
        ]

    def by_length(self) -> EncodedExamples:
        """The same rows, longest first: little padding, and a batch too large fails early."""
        lengths = self.lengths
        return self.take(sorted(range(len(self)), key=lambda index: -lengths[index]))

    def take(self, indices: Sequence[int]) -> EncodedExamples:
        """Some of the rows, in the order given."""
        return EncodedExamples(
            tuple(self.inputs[i] for i in indices),
            tuple(self.answers[i] for i in indices),
            self.cut,
        )


def encode_examples(
    encoder: Encoder,
    task: Task,
    examples: Sequence[Example],
    candidates: Candidates | None,
    room: int | None,
) -> EncodedExamples:
    """Render and tokenise examples.

    Args:
        encoder: The base's encoder.
        task: The task.
        examples: Rows of one split; at least one.
        candidates: Label words of a classification task; None for generation.
        room: Tokens of text and answer that fit beside the prompt; None for no limit. The text
            alone has at most the task's `max_length`, as it has in prediction.

    Returns:
        The encoded rows, in order.

    Raises:
        TrainingError: There is no example.
        TaskError: A row does not fit even without its text.
    """
    if not examples:
        raise TrainingError("There are no examples to train or evaluate on; check the task's data.")
    inputs, answers, cut = [], [], 0
    for example in examples:
        if candidates is None:
            answer: Answer = encoder.target(task.template, str(example.target))
        else:
            answer = _label_answer(candidates, example)
        limits = [task.max_length] if task.max_length else []
        if room is not None:
            limits.append(room - _reserve(answer, candidates))
        text = encoder.encode(
            task.template,
            example.row,
            text_column=task.text_column,
            room=min(limits, default=None),
        )
        inputs.append(text.ids)
        answers.append(answer)
        cut += text.truncated > 0
    return EncodedExamples(tuple(inputs), tuple(answers), cut)


def _label_answer(candidates: Candidates, example: Example) -> Answer:
    if example.soft_label is not None:
        return tuple(float(example.soft_label[label]) for label in candidates.labels)
    if not candidates.yes_no:
        return candidates.labels.index(str(example.label))
    applying = split_labels(str(example.label))
    return tuple(label in applying for label in candidates.labels)


def _target(answer: Answer) -> tuple[int, ...]:
    """The tokens of an answer that are fed behind the text: none of a label's."""
    fed = isinstance(answer, tuple) and type(answer[0]) is int  # no bool, no probability
    return answer if fed else ()  # type: ignore[return-value]


def _reserve(answer: Answer, candidates: Candidates | None) -> int:
    """Tokens that the answer takes behind the text."""
    return len(_target(answer)) if candidates is None else max(map(len, candidates.sequences))


def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Stack rows: texts padded on the left, target tokens on the right with -100."""
    texts = pad_rows([row["input_ids"] for row in rows])
    batch = {"input_ids": texts.ids, "attention_mask": texts.mask}
    if not _target(rows[0]["labels"]):
        batch["labels"] = torch.tensor([row["labels"] for row in rows])
    else:
        targets = pad_rows([row["labels"] for row in rows], side="right")
        batch["labels"] = targets.ids.masked_fill(~targets.mask, IGNORED)
    return batch


def items_of(labels: torch.Tensor) -> torch.Tensor:
    """How many labels or target tokens each row of a batch's `labels` has, `[B]`."""
    return (labels != IGNORED).reshape(len(labels), -1).sum(-1)


class LengthBucketSampler(Sampler[int]):
    """Shuffled batches of rows of like length, each of exactly `batch_size` rows.

    Rows are shuffled, sorted by length within mega-batches of 50 batches, cut into batches, and the
    batches shuffled. The order depends on seed and epoch alone: resumed and multi-process runs see
    the same batches. The few rows that fill no batch wait for another epoch.

    Args:
        lengths: Tokens of each row.
        batch_size: Rows of one optimizer step over all processes.
        seed: Seed of the order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = list(lengths)
        self.batch_size = min(batch_size, len(self.lengths))
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Accelerate calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Rows of an epoch."""
        return len(self.lengths) // self.batch_size * self.batch_size

    def __iter__(self) -> Iterator[int]:
        """Row indices of the epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()[: len(self)]
        span = self.batch_size * _MEGA_BATCH
        ordered: list[int] = []
        for start in range(0, len(order), span):
            ordered += sorted(order[start : start + span], key=lambda row: -self.lengths[row])
        size = self.batch_size
        batches = [ordered[start : start + size] for start in range(0, len(ordered), size)]
        for index in torch.randperm(len(batches), generator=generator).tolist():
            yield from batches[index]
