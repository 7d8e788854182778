"""What a student retains: the arithmetic, on teachers and students whose answers are known."""

import json

import pytest

from softhub.errors import DatasetError
from softhub.experiments.distillation import (
    ModelTeacher,
    agreement,
    evaluate_student,
    request_tokens,
)
from tests.experiments.distillation.conftest import ECHO, TASK, Table, labelled, texts
from tests.prompts import soft_prompt


def test_shares_differences_and_agreement_are_those_of_the_answers(model):
    prompt = soft_prompt(model.base, 4, TASK, seed=5)
    examples = labelled(texts(30))
    right = [example.label == "good" for example in examples]
    table = [[1.0, 0.0] if good or i % 4 else [0.0, 1.0] for i, good in enumerate(right)]
    retention = evaluate_student(model, TASK, prompt, Table(TASK, examples, table), examples)
    answers = {"teacher": retention.teacher.predictions, "student": retention.student.predictions}
    scores = {
        name: sum(a == e.label for a, e in zip(given, examples, strict=True)) / 30
        for name, given in answers.items()
    }
    same = sum(a == b for a, b in zip(*answers.values(), strict=True))
    assert retention.agreement == same / 30
    share, difference = retention.share["accuracy"], retention.difference["accuracy"]
    assert share.value == pytest.approx(scores["student"] / scores["teacher"])
    assert share.low <= share.value <= share.high
    assert difference.value == pytest.approx(scores["student"] - scores["teacher"])
    assert retention.tokens["teacher"] is None
    assert retention.tokens["student"] == 4 + retention.tokens["short"]
    record = json.loads(json.dumps(retention.to_record()))
    assert record["scores"]["student"]["accuracy"]["value"] == pytest.approx(scores["student"])
    assert record["examples"] == 30


def test_a_student_that_is_its_teacher_keeps_everything(model):
    prompt = soft_prompt(model.base, 4, TASK, seed=5)
    teacher = ModelTeacher(model, TASK, prompt=prompt)
    retention = evaluate_student(model, TASK, prompt, teacher, labelled(texts(24)))
    assert retention.agreement == 1.0
    share, low, high = retention.share["accuracy"]
    assert share == 1.0
    assert 0.5 < low < 1.0 < high < 2.0  # twenty-four texts cannot show that it always does
    difference, low, high = retention.difference["accuracy"]
    assert difference == 0.0
    assert -0.2 < low < 0.0 < high < 0.2
    assert retention.tokens["teacher"] == retention.tokens["student"]


def test_agreement_needs_no_labels_and_judging_does(model, teacher):
    prompt = soft_prompt(model.base, 4, TASK, seed=5)
    alike = agreement(model, TASK, prompt, teacher, texts(12))
    assert agreement(model, TASK, prompt, ModelTeacher(model, TASK, prompt=prompt), texts(12)) == 1
    assert 0 <= alike <= 1
    with pytest.raises(DatasetError, match="no label"):
        evaluate_student(model, TASK, prompt, teacher, texts(12))


def test_texts_are_alike_by_chrf(model):
    prompt = soft_prompt(model.base, 4, ECHO, seed=5)
    same = ModelTeacher(model, ECHO, prompt=prompt)
    assert agreement(model, ECHO, prompt, same, texts(4)) == pytest.approx(1.0)
    assert agreement(model, ECHO, prompt, ModelTeacher(model, ECHO), texts(4)) < 1.0
    beside = request_tokens(model, ECHO, prompt, same, texts(1)[0])
    assert beside["teacher"] == beside["student"] == 4 + beside["short"]


def test_nothing_is_a_share_of_nothing(model):
    prompt = soft_prompt(model.base, 4, TASK, seed=5)
    examples = labelled(texts(12))
    wrong = [[0.0, 1.0] if example.label == "good" else [1.0, 0.0] for example in examples]
    retention = evaluate_student(model, TASK, prompt, Table(TASK, examples, wrong), examples)
    assert retention.share["accuracy"] is None
    assert retention.difference["accuracy"].value == retention.student.metrics["accuracy"].value
