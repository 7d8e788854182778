"""What a student keeps of its teacher: score, answers, and what a request costs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from softhub.evaluation.evaluate import Evaluation, evaluate, score_predictions
from softhub.experiments.distillation.teachers import ModelTeacher, Teacher
from softhub.inference.engine import PromptModel
from softhub.metrics import compute, find_metric
from softhub.metrics.intervals import Interval, Resampled, Resamples
from softhub.model.encoding import render_chat
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Example, Task

_STUDENT = "student"


@dataclass(frozen=True)
class Kept:
    """A student beside its teacher, on the same labelled texts.

    Attributes:
        teacher: The teacher's scores.
        student: The soft prompt's.
        short: Those of the base with the student's template and no prompt: what needs no training.
        agreement: How like the teacher's answers the student's are: the share of equal ones, for
            generated texts their chrF.
        share: For each metric the student's score over the teacher's, with its 95 % interval; None
            where the teacher's may be 0.
        difference: For each metric the student's score minus the teacher's, paired over the texts.
        tokens: What stands beside the text in a request: of `teacher` (None: it has no prompt),
            `student` (virtual tokens and template) and `short` (the template).
    """

    teacher: Evaluation
    student: Evaluation
    short: Evaluation
    agreement: float
    share: Mapping[str, Interval | None]
    difference: Mapping[str, Interval]
    tokens: Mapping[str, int | None]

    def to_record(self) -> dict[str, Any]:
        """Plain JSON values."""
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


def judge_student(
    model: PromptModel,
    task: Task,
    prompt: SoftPrompt,
    teacher: Teacher,
    examples: Sequence[Example],
    *,
    batch_size: int = 32,
) -> Kept:
    """Judge a distilled prompt, its teacher and the bare template on labelled texts.

    Args:
        model: The engine of the student's base.
        task: The student's task, with the metrics.
        prompt: The student.
        teacher: The teacher.
        examples: Labelled texts that neither learned from.
        batch_size: Texts in one pass.

    Returns:
        The scores, and what is kept of them.

    Raises:
        DatasetError: An example has no label or reference text.
    """
    model.load_prompt(prompt, name=_STUDENT)
    student = evaluate(model, task, examples, prompt=_STUDENT, batch_size=batch_size)
    short = evaluate(model, task, examples, batch_size=batch_size)
    start = time.perf_counter()
    answers = answers_of(teacher, task, examples)
    taught = score_predictions(task, examples, answers, time.perf_counter() - start)
    share, difference = _kept(taught, student, [example.group for example in examples])
    return Kept(
        taught,
        student,
        short,
        _alike(task, student.predictions, answers),
        share,
        difference,
        tokens_beside(model, task, prompt, teacher, examples[0]),
    )


def answers_of(teacher: Teacher, task: Task, examples: Sequence[Example]) -> list[str]:
    """A teacher's answers: labels, or the texts that it writes."""
    if task.kind == "generation":
        return teacher.write(examples)
    return [prediction.best for prediction in teacher.classify(examples)]


def agreement(
    model: PromptModel,
    task: Task,
    prompt: SoftPrompt,
    teacher: Teacher,
    examples: Sequence[Example],
) -> float:
    """How like the teacher's a student's answers are, on texts that need no labels.

    Args:
        model: The engine of the student's base.
        task: The student's task.
        prompt: The student.
        teacher: The teacher.
        examples: Texts.

    Returns:
        As `Kept.agreement`.
    """
    student = ModelTeacher(model, task, prompt=prompt)
    answers = (answers_of(each, task, examples) for each in (student, teacher))
    return _alike(task, *answers)


def _alike(task: Task, answers: Sequence[str], teachers: Sequence[str]) -> float:
    if task.kind == "generation":
        return compute("chrf", answers, teachers)
    return sum(a == b for a, b in zip(answers, teachers, strict=True)) / len(teachers)


def _kept(
    teacher: Evaluation, student: Evaluation, groups: Sequence[str | None]
) -> tuple[dict[str, Interval | None], dict[str, Interval]]:
    """Ratio and difference of each metric, on the same resamples; those of code have none."""
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
    bounded = np.where(theirs.samples > 0, theirs.samples, np.nan)
    samples = np.nan_to_num(ours.samples / bounded, nan=np.inf)
    interval = Resampled(ours.value / theirs.value, samples).interval()
    return interval if np.isfinite(interval).all() else None


def tokens_beside(
    model: PromptModel, task: Task, prompt: SoftPrompt, teacher: Teacher, example: Example
) -> dict[str, int | None]:
    """What stands beside an example's text in a request, as `Kept.tokens` has it."""
    template = render_chat(task, model.base.tokenizer).template
    short = model.encoder.tokens_around(template, example.row, task.text_column)
    return {
        "teacher": teacher.tokens_beside(example),
        "student": prompt.num_virtual_tokens + short,
        "short": short,
    }
