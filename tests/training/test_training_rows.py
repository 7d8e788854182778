"""What a prompt cannot be trained on, or saved with, is refused before the first step."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from softhub.errors import DatasetError, TaskError
from softhub.model.base import BaseModel
from softhub.tasks import Example, Task
from softhub.training.encoded_task import encode_task

MOOD = Task(template="Review: {text}\nMood:", labels=["good", "bad"])
TAGS = Task(template="Review: {text}\nTag:", labels=["price", "screen"], multilabel=True)
WRITING = Task(template="Text: {text}\nSummary:\n", kind="generation")
PAIR = Task(template="{ctx}\nQ: {q}\nA:", text_column="q", target_column="answer")
LONG = "word " * 600  # more than the context of 512 tokens
SOFT = {"good": 0.7, "bad": 0.3}

Encode = Callable[..., Any]


@pytest.fixture
def encode(loaded: Callable[[str], BaseModel]) -> Encode:
    def run(task: Task, *examples: Example, tokens: int = 4) -> Any:
        return encode_task(loaded("llama"), task, examples, examples, virtual_tokens=tokens)

    return run


def example(**fields: Any) -> Example:
    return Example({"text": "fine", "ctx": "a day", "q": "who?"}, **fields)


@pytest.mark.parametrize(
    ("task", "sound", "wrong", "message"),
    [
        (WRITING, {"target": "a"}, {}, "has no target"),
        (MOOD, {"label": "good"}, {}, "has no label"),
        (MOOD, {"label": "good"}, {"label": "god"}, "has the label 'god'.*mean 'good'"),
        (TAGS, {"label": ""}, {}, "has no label"),
        (
            TAGS,
            {"label": "price"},
            {"label": "price;scren"},
            "has the label 'scren'.*mean 'screen'",
        ),
        (MOOD, {"soft_label": SOFT}, {"soft_label": {"good": 1.0}}, "has soft labels of good;"),
        (MOOD, {"soft_label": SOFT}, {"label": "good"}, "has no soft label, and others have one"),
        (
            MOOD,
            {"label": "good"},
            {"label": "bad", "soft_label": SOFT},
            "has a soft label, and others have none",
        ),
    ],
)
def test_an_example_without_a_sound_answer_is_named(
    encode: Encode, task: Task, sound: Any, wrong: Any, message: str
) -> None:
    encode(task, example(**sound))
    with pytest.raises(DatasetError, match=f"^example 2 of 2: {message}"):
        encode(task, example(**sound), example(**wrong))
    with pytest.raises(DatasetError, match=f"^a.csv, line 3: {message}"):
        encode(task, example(**sound), example(**wrong, place="a.csv, line 3"))


def test_class_weights_of_soft_labels_are_refused(encode: Encode) -> None:
    """The loss of soft labels has no weights, and labels alone cannot be counted."""
    for weights in ("balanced", {"good": 1.0, "bad": 2.0}):
        with pytest.raises(TaskError, match=r"class_weights: .* soft labels"):
            encode(replace(MOOD, class_weights=weights), example(soft_label=SOFT))
    tags = {"price": 0.5, "screen": 0.1}
    with pytest.raises(TaskError, match=r"class_weights: .* soft labels"):
        encode(replace(TAGS, class_weights="balanced"), example(soft_label=tags))


def test_a_row_too_long_without_its_text_is_named_with_the_column(encode: Encode) -> None:
    long = Example({"ctx": LONG, "q": "who?"}, target="me", place="a.csv, line 9")
    with pytest.raises(TaskError) as error:
        encode(PAIR, example(target="me"), long)
    assert "a.csv, line 9: " in str(error.value)
    assert "its template with its 'ctx' has more than the" in str(error.value)
    assert "shorten its 'ctx'" in str(error.value)
    with pytest.raises(TaskError, match=r"^example 1 of 1: .* its template alone has more than"):
        encode(replace(WRITING, template=f"{LONG}{{text}}\nSummary:\n"), example(target="me"))


def test_a_row_that_lacks_a_column_is_named(encode: Encode) -> None:
    with pytest.raises(TaskError, match=r"^example 1 of 1: .* reads \{ctx\}, which the row"):
        encode(PAIR, Example({"q": "who?"}, target="me"))


@pytest.mark.parametrize(
    "task",
    [
        Task(template="{text}\nMood:", labels=["don\x92t know", "good"]),
        replace(MOOD, description="a\x00b"),
        replace(MOOD, limitations="a\x85b"),
        replace(WRITING, generation={"stop": ["\x1b"]}),
        replace(MOOD, description="x" * 70_000),
    ],
)
def test_a_task_that_no_adapter_can_hold_is_refused(encode: Encode, task: Task) -> None:
    with pytest.raises(TaskError, match=r"^the task .* cannot be saved .* (control|string of)"):
        encode(task, example(label="good", target="a"))
