"""Comparison of a student with its teacher: score, answers and cost of a request."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from softhub.evaluation.evaluate import Evaluation, evaluate, score_predictions
from softhub.experiments.distillation.teachers import ModelTeacher, Teacher, template_tokens
from softhub.inference.engine import PromptModel
from softhub.metrics import compute, find_metric
from softhub.metrics.intervals import Interval, Resampled, Resamples
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Example, Task

_STUDENT = "student"


@dataclass(frozen=True)
class Retention:
    """A student compared with its teacher on the same labeled texts.

    Attributes:
        teacher: Scores of the teacher.
        student: Scores of the soft prompt.
        short: Scores of the base with the student's template and no prompt: without training.
        agreement: Agreement of the student's answers with the teacher's: the fraction that are
            equal, or chrF for generated texts.
        share: The student's score divided by the teacher's, by metric, with its 95 % interval; None
            if the teacher's score may be 0.
        difference: The student's score minus the teacher's, by metric, paired over the texts.
        tokens: Tokens of a request in addition to its text, as `request_tokens` returns them.
    """

    teacher: Evaluation
    student: Evaluation
    short: Evaluation
    agreement: float
    share: Mapping[str, Interval | None]
    difference: Mapping[str, Interval]
    tokens: Mapping[str, int | None]

    def to_record(self) -> dict[str, Any]:
        """Return plain JSON values."""
        evaluations = {"teacher": self.teacher, "student": self.student, "short": self.short}
        return {
            "examples": len(self.student.references),
            "scores": {
                name: {metric: each._asdict() for metric, each in evaluation.metrics.items()}
                for name, evaluation in evaluations.items()
            },
            "agreement": self.agreement,
            "share": {name: each and each._asdict() for name, each in self.share.items()},
            "difference": {name: each._asdict() for name, each in self.difference.items()},
            "tokens": dict(self.tokens),
        }


def evaluate_student(
    model: PromptModel,
    task: Task,
    prompt: SoftPrompt,
    teacher: Teacher,
    examples: Sequence[Example],
    *,
    batch_size: int = 32,
) -> Retention:
    """Evaluate a distilled prompt, its teacher and the bare template on labeled texts.

    Args:
        model: The engine of the student's base.
        task: The student's task, with the metrics.
        prompt: The student.
        teacher: The teacher.
        examples: Labeled texts on which neither was trained.
        batch_size: Texts in one pass.

    Returns:
        The scores, and how much of them the student retains.

    Raises:
        DatasetError: An example has no label or reference text.
    """
    model.load_prompt(prompt, name=_STUDENT)
    student = evaluate(model, task, examples, prompt=_STUDENT, batch_size=batch_size)
    short = evaluate(model, task, examples, batch_size=batch_size)
    start = time.perf_counter()
    answers = teacher.answer(task, examples)
    taught = score_predictions(task, examples, answers, time.perf_counter() - start)
    share, difference = _share_and_difference(taught, student, [each.group for each in examples])
    alike = _agreement(task, student.predictions, answers)
    tokens = request_tokens(model, task, prompt, teacher, examples[0])
    return Retention(taught, student, short, alike, share, difference, tokens)


def agreement(
    model: PromptModel,
    task: Task,
    prompt: SoftPrompt,
    teacher: Teacher,
    examples: Sequence[Example],
) -> float:
    """Return the agreement of a student with its teacher, on texts that need no labels.

    Args:
        model: The engine of the student's base.
        task: The student's task.
        prompt: The student.
        teacher: The teacher.
        examples: Texts.

    Returns:
        As `Retention.agreement`.
    """
    student = ModelTeacher(model, task, prompt=prompt)
    return _agreement(task, *(each.answer(task, examples) for each in (student, teacher)))


def request_tokens(
    model: PromptModel, task: Task, prompt: SoftPrompt, teacher: Teacher, example: Example
) -> dict[str, int | None]:
    """Return the number of tokens that a request carries in addition to an example's text.

    Returns:
        That of the `teacher` (None if it has no prompt), of the `student` (virtual tokens and
        template) and of the `short` template alone.
    """
    short = template_tokens(model, task, example)
    return {
        "teacher": teacher.prompt_tokens(example),
        "student": prompt.num_virtual_tokens + short,
        "short": short,
    }


def _agreement(task: Task, answers: Sequence[str], teachers: Sequence[str]) -> float:
    if task.kind == "generation":
        return compute("chrf", answers, teachers)
    return sum(a == b for a, b in zip(answers, teachers, strict=True)) / len(teachers)


def _share_and_difference(
    teacher: Evaluation, student: Evaluation, groups: Sequence[str | None]
) -> tuple[dict[str, Interval | None], dict[str, Interval]]:
    """Return ratio and difference by metric on the same resamples; metrics of code have none."""
    resamples = Resamples(len(groups), groups)
    share: dict[str, Interval | None] = {}
    difference: dict[str, Interval] = {}
    for metric in student.metrics:
        if find_metric(metric).input_kind != "answers":
            continue
        theirs, ours = (
            resamples.score([list(each.predictions)], list(each.references), metric)
            for each in (teacher, student)
        )
        difference[metric] = (ours - theirs).interval()
        share[metric] = _ratio(ours, theirs)
    return share, difference


def _ratio(ours: Resampled, theirs: Resampled) -> Interval | None:
    if theirs.value <= 0:
        return None
    positive = np.where(theirs.samples > 0, theirs.samples, np.nan)
    samples = np.nan_to_num(ours.samples / positive, nan=np.inf)
    least, greatest = ours.least / theirs.greatest, ours.greatest / theirs.least
    apart = ours.by_group - theirs.by_group
    interval = Resampled(ours.value / theirs.value, samples, apart, least, greatest).interval()
    return interval if np.isfinite(interval).all() else None
