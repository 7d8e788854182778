"""Examples as training rows: encoded once, batched with rows of similar length."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from softhub.errors import DatasetError, TaskError, TrainingError, did_you_mean
from softhub.metrics.label_sets import split_labels
from softhub.model.assembly import pad_rows
from softhub.model.encoding import Candidates, EncodedText, Encoder
from softhub.tasks import Example, Task

_MEGA_BATCH = 50
"""Batches sorted together: enough to pad little, few enough to mix lengths over an epoch."""

IGNORE_INDEX = -100

Answer = int | tuple[int, ...] | tuple[float, ...]
"""A label's index, a bool or a probability for each label, or the token ids of a target."""


@dataclass(frozen=True)
class EncodedExamples(Dataset[Mapping[str, Any]]):
    """Tokenized rows, ready for the collator.

    Attributes:
        inputs: Token ids of each text.
        answers: For each row its label's index, whether each label applies, the probability of each
            label, or the target's token ids.
        truncated: Number of texts that were too long and were truncated.
    """

    inputs: tuple[tuple[int, ...], ...]
    answers: tuple[Answer, ...]
    truncated: int = 0

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.inputs)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """Return one row for the collator."""
        return {"input_ids": self.inputs[index], "labels": self.answers[index]}

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row, with those of the answer where the base reads them."""
        return [
            len(ids) + len(_target(answer))
            for ids, answer in zip(self.inputs, self.answers, strict=True)
        ]

    @cached_property
    def shuffled(self) -> list[int]:
        """Indices of the rows in a random order that depends on their content alone."""

        def digest(index: int) -> bytes:
            row = repr((self.inputs[index], self.answers[index]))
            return hashlib.sha256(row.encode()).digest()

        return sorted(range(len(self)), key=digest)

    def by_length(self) -> EncodedExamples:
        """Return the rows longest first: little padding, and a batch too large fails early."""
        lengths = self.lengths
        order = sorted(range(len(self)), key=lambda index: -lengths[index])
        inputs = tuple(self.inputs[index] for index in order)
        return replace(self, inputs=inputs, answers=tuple(self.answers[index] for index in order))


def encode_examples(
    encoder: Encoder,
    task: Task,
    examples: Sequence[Example],
    candidates: Candidates | None,
    room: int | None,
) -> EncodedExamples:
    """Render and tokenize examples.

    Args:
        encoder: The base's encoder.
        task: The task.
        examples: Rows of one split; at least one.
        candidates: Label words of a classification task; None for generation.
        room: Maximum number of tokens of text and answer, without the prompt; None for no limit.
            The text alone has at most the task's `max_length`, as in prediction.

    Returns:
        The encoded rows, in order.

    Raises:
        TrainingError: There is no example.
        TaskError: A row lacks a column, or does not fit even without its text; names the row.
        DatasetError: An example has no answer, or one that the task does not know; names it.
    """
    if not examples:
        raise TrainingError("There are no examples to train or evaluate on; check the task's data.")
    answers, texts = list[Answer](), list[EncodedText]()
    soft = examples[0].soft_label is not None
    for index, example in enumerate(examples):
        place = example.place or f"example {index + 1} of {len(examples)}"
        problem = _problem_of_answer(task, example, soft=soft)
        if problem:
            raise DatasetError(f"{place}: {problem}")
        try:
            answers.append(_encode_answer(encoder, task, example, candidates))
            room_for_text = _room_for_text(task, room, answers[-1], candidates)
            texts.append(
                encoder.encode(
                    task.template, example.row, text_column=task.text_column, room=room_for_text
                )
            )
        except TaskError as error:
            raise TaskError(f"{place}: {error}") from error
    truncated = sum(text.truncated > 0 for text in texts)
    return EncodedExamples(tuple(text.ids for text in texts), tuple(answers), truncated)


def _problem_of_answer(task: Task, example: Example, *, soft: bool) -> str | None:
    """Return why an example cannot be learned from, or None; `soft` is whether others are soft."""
    if task.verbalizer is None:
        return None if example.target is not None else "has no target, the text to train on"
    labels = task.verbalizer.labels
    if (example.soft_label is not None) != soft:
        one = "no soft label, and others have one" if soft else "a soft label, and others have none"
        return f"has {one}; give all examples of a split labels, or soft labels"
    if example.soft_label is not None:
        if {*example.soft_label} == {*labels}:
            return None
        return (
            f"has soft labels of {', '.join(example.soft_label)}; expected the probability of each "
            f"of {', '.join(labels)}"
        )
    if example.label is None:
        return "has no label; load or create the examples with a task that names their labels"
    found = split_labels(example.label) if task.multilabel else (example.label,)
    unknown = next((label for label in found if label not in labels), None)
    if unknown is None:
        return None
    return f"has the label {unknown!r}, which the task does not have{did_you_mean(unknown, labels)}"


def _encode_answer(
    encoder: Encoder, task: Task, example: Example, candidates: Candidates | None
) -> Answer:
    if candidates is None:
        return encoder.target(task.template, str(example.target))
    if example.soft_label is not None:
        return tuple(float(example.soft_label[label]) for label in candidates.labels)
    if not candidates.yes_no:
        return candidates.labels.index(str(example.label))
    applying = split_labels(str(example.label))
    return tuple(label in applying for label in candidates.labels)


def _room_for_text(
    task: Task, room: int | None, answer: Answer, candidates: Candidates | None
) -> int | None:
    """Return the maximum number of tokens of a text; None for no limit."""
    limits = [task.max_length] if task.max_length else []
    if room is not None:
        # Whatever the label, the longest one is scored behind the text.
        labels = () if candidates is None else candidates.sequences
        limits.append(room - max(map(len, labels), default=len(_target(answer))))
    return min(limits, default=None)


def _target(answer: Answer) -> tuple[int, ...]:
    """Return the tokens of an answer that the base reads after the text: none for a label."""
    is_target = isinstance(answer, tuple) and type(answer[0]) is int  # no bool, no probability
    return answer if is_target else ()  # type: ignore[return-value]


def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Stack rows: texts are padded on the left, target tokens on the right with -100."""
    texts = pad_rows([row["input_ids"] for row in rows])
    batch = {"input_ids": texts.ids, "attention_mask": texts.mask}  # [B, T] each
    if not _target(rows[0]["labels"]):
        batch["labels"] = torch.tensor([row["labels"] for row in rows])  # [B] or [B, labels]
    else:
        targets = pad_rows([row["labels"] for row in rows], side="right")
        batch["labels"] = targets.ids.masked_fill(~targets.mask, IGNORE_INDEX)  # [B, N]
    return batch


def count_items(labels: torch.Tensor) -> torch.Tensor:
    """Return the number of labels or target tokens in each row of a batch's `labels`, `[B]`."""
    # [B], [B, labels] or [B, N] → [B, 1], [B, labels] or [B, N] → [B]
    return (labels != IGNORE_INDEX).reshape(len(labels), -1).sum(-1)


class EpochSampler(Sampler[int]):
    """A sampler whose order is another one in each epoch."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; the Trainer calls this."""
        self.epoch = epoch


class LengthBucketSampler(EpochSampler):
    """Shuffled batches of rows of similar length, each of exactly `batch_size` rows.

    The order depends on the seed and the epoch alone: resumed and multi-process runs see the same
    batches. The few rows that fill no batch are left for another epoch.

    Args:
        lengths: Tokens of each row.
        batch_size: Rows of one optimizer step over all processes.
        seed: Seed of the order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = list(lengths)
        self.batch_size = min(batch_size, len(self.lengths))
        self.seed = seed

    def __len__(self) -> int:
        """Return the number of rows of an epoch."""
        return len(self.lengths) // self.batch_size * self.batch_size

    def __iter__(self) -> Iterator[int]:
        """Yield the row indices of the epoch."""
        # A generator of its own: whatever else draws random numbers, the order stays.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        # 1. Shuffle all rows, and leave out those that fill no batch.
        order = torch.randperm(len(self.lengths), generator=generator).tolist()[: len(self)]
        # 2. Within each mega-batch, sort by length: its batches then need little padding.
        span = self.batch_size * _MEGA_BATCH
        ordered: list[int] = []
        for start in range(0, len(order), span):
            ordered += sorted(order[start : start + span], key=lambda row: -self.lengths[row])
        # 3. Divide into batches, and shuffle these: a mega-batch now goes from long to short.
        size = self.batch_size
        batches = [ordered[start : start + size] for start in range(0, len(ordered), size)]
        for index in torch.randperm(len(batches), generator=generator).tolist():
            yield from batches[index]
