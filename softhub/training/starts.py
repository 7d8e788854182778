"""Which of several starts is best: `init="auto"` compares their dev losses before any training."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from peft import PromptTuningConfig

from softhub.model.base import BaseModel
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Task
from softhub.training.data import collate, items_of
from softhub.training.encoded_task import Lesson
from softhub.training.initialization import initial_vectors, text_vectors
from softhub.training.module import PromptTuner
from softhub.training.reparameterization import Plain

AUTO = "auto"
GIVEN = "given"
_ROWS, _BATCH = 64, 32
_SHORTEST = 3  # tokens of an instruction that says something


@dataclass(frozen=True)
class Start:
    """A start, and what is known of it.

    Attributes:
        name: Its init, or what it was taken from.
        vectors: The prompt's first vectors, `[P, H]`.
        dev_loss: Loss on dev before training; None where there was nothing to compare with.
        trained: Whether it is a prompt, which may be hard to better.
        parent: Hashes of that prompt's files, by name, if it is a candidate.
    """

    name: str
    vectors: torch.Tensor
    dev_loss: float | None = None
    trained: bool = False
    parent: Mapping[str, str] | None = None


def find_start(
    base: BaseModel,
    config: PromptTuningConfig,
    lesson: Lesson,
    init: str | SoftPrompt | None,
    candidates: Sequence[SoftPrompt] = (),
    *,
    seed: int,
    batch_size: int = _BATCH,
    parts: Sequence[Lesson] = (),
) -> Start:
    """The start that `init` names; for `"auto"`, or with candidates, the best on dev.

    Args:
        base: The base.
        config: PEFT's configuration.
        lesson: What is to be learned.
        init: As in `fit`.
        candidates: Other prompts to compare it with.
        seed: Seed of what is drawn.
        batch_size: Dev rows a pass.
        parts: The tasks that `lesson` is made of, if it is of several.

    Returns:
        The start of the lowest loss over at most 64 dev rows, before training; of several tasks the
        mean of their losses counts, as it does for checkpoints.

    Raises:
        TrainingError: As `initial_vectors`.
    """
    parts = parts or [lesson]
    starts = [*_starts(base, config, lesson, init, seed, parts)]
    starts += [
        Start(
            f"candidate {number}",
            initial_vectors(base, config, prompt, texts=(), task=lesson.task, seed=seed),
            trained=True,
            parent=prompt.manifest.files,
        )
        for number, prompt in enumerate(candidates, start=1)
    ]
    if len(starts) == 1:
        return starts[0]
    losses = (
        fmean(dev_loss(base, part, one.vectors, batch_size=batch_size) for part in parts)
        for one in starts
    )
    judged = [replace(one, dev_loss=loss) for one, loss in zip(starts, losses, strict=True)]
    return min(judged, key=lambda start: start.dev_loss or 0.0)


def _starts(
    base: BaseModel,
    config: PromptTuningConfig,
    lesson: Lesson,
    init: str | SoftPrompt | None,
    seed: int,
    parts: Sequence[Lesson],
) -> Iterator[Start]:
    def named(name: str | SoftPrompt | None) -> torch.Tensor:
        return initial_vectors(
            base,
            config,
            name,
            texts=lesson.train.inputs,
            task=lesson.task,
            seed=seed,
        )

    if init != AUTO:
        given = isinstance(init, SoftPrompt)
        said = init or getattr(config.prompt_tuning_init, "value", config.prompt_tuning_init)
        yield Start(GIVEN if given else str(said).lower(), named(init), trained=given)
        return
    yield Start("vocabulary", named("vocabulary"))
    if lesson.task.description or lesson.candidates is not None:  # else it is the vocabulary's
        yield Start("task", named("task"))
    if lesson.candidates is not None:
        yield Start("labels", named("labels"))
    if config.prompt_tuning_init_text:
        yield Start("text", named("text"))
    tokens = int(config.num_virtual_tokens)
    instructions = (_instructions(part.task, _length(base)) for part in parts)
    for instruction in sorted(set().union(*instructions)):
        yield Start(f"hard prompt {instruction!r}", text_vectors(base, instruction, tokens))


def _length(base: BaseModel) -> Callable[[str], int]:
    return lambda text: len(base.tokenizer(text, add_special_tokens=False)["input_ids"])


def _instructions(task: Task, length: Callable[[str], int]) -> set[str]:
    """What the task's hard templates say before the text, and the template itself does not."""
    own = re.split(r"\{\w+\}", task.template.text)[0]
    texts = [re.split(r"\{\w+\}", hard.text)[0].removesuffix(own) for hard in task.hard_templates]
    return {text for text in texts if length(text) >= _SHORTEST}


def dev_loss(
    base: BaseModel,
    lesson: Lesson,
    vectors: torch.Tensor,
    *,
    limit: int | None = _ROWS,
    batch_size: int = _BATCH,
) -> float:
    """Mean loss of a prompt over dev rows: by label, or by target token.

    Args:
        base: The base.
        lesson: The task.
        vectors: The prompt, `[P, H]`.
        limit: Over how many of the first rows; None for all.
        batch_size: Rows a pass.
    """
    tuner = PromptTuner(base, Plain(vectors), lesson.candidates, lesson.weights).eval()
    rows = [lesson.dev[index] for index in range(len(lesson.dev))[:limit]]
    rows.sort(key=lambda row: -len(row["input_ids"]))
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(rows), batch_size):
            batch = collate(rows[start : start + batch_size])
            batch = {name: value.to(base.device) for name, value in batch.items()}
            total += float(tuner(**batch)["losses"].sum())
            count += int(items_of(batch["labels"]).sum())
    return total / count
