"""Templates: literal replacement, in one pass."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softhub.errors import DatasetError, TaskError
from softhub.tasks import Segment, Task, Template

REVIEW = Template("Review: {text}\nSentiment:")


@given(st.text())
def test_the_value_stands_in_the_text_unchanged_whatever_it_is(value: str) -> None:
    assert REVIEW.render({"text": value}) == f"Review: {value}\nSentiment:"


@given(st.text(), st.text())
def test_segments_joined_are_the_rendered_text(question: str, context: str) -> None:
    template = Template("{context}\nQ: {question}\nA:")
    row = {"question": question, "context": context}
    segments = template.segments(row)
    assert "".join(segment.text for segment in segments) == template.render(row)
    assert all(segment.text for segment in segments)


def test_a_value_that_looks_like_a_placeholder_is_not_expanded_again() -> None:
    template = Template("{text} | {label}")
    assert template.render({"text": "{label}", "label": "secret"}) == "{label} | secret"


@pytest.mark.parametrize("text", ["{{x}", "{}", "{0}", '{"a": 1}', "{ text}", "}{", "%s ${}"])
def test_other_braces_are_ordinary_characters(text: str) -> None:
    template = Template(text + " {text}")
    assert template.render({"text": "a", "x": "1"}) == text.replace("{x}", "1") + " a"


def test_columns_may_be_named_in_any_script_and_with_spaces() -> None:
    template = Template("{long answer} {größe} {final-decision} {größe}")
    assert template.columns == ("long answer", "größe", "final-decision")


def test_segments_say_which_words_are_the_templates_own() -> None:
    assert REVIEW.segments({"text": "fine"}) == (
        Segment("Review: ", None),
        Segment("fine", "text"),
        Segment("\nSentiment:", None),
    )


def test_numbers_are_rendered_as_they_print() -> None:
    assert Template("{n} of {m}").render({"n": 3, "m": 4.5}) == "3 of 4.5"


@pytest.mark.parametrize(
    ("row", "columns"), [({"txt": "fine", "id": 1}, "txt, id"), ({"x": "fine"}, "x"), ({}, "none")]
)
def test_a_missing_column_is_named_with_those_that_are_there(
    row: dict[str, object], columns: str
) -> None:
    there = rf"reads \{{text\}}, which the row does not have; its columns are {columns}$"
    with pytest.raises(TaskError, match=there):
        REVIEW.render(row)


def test_none_is_refused_instead_of_rendered() -> None:
    with pytest.raises(TaskError, match="empty"):
        REVIEW.render({"text": None})


def test_split_gives_what_is_before_and_after_the_column() -> None:
    before, after = Template("{a} then {text} then {b}").split("text")
    assert (before, after) == (Template("{a} then "), Template(" then {b}"))


@pytest.mark.parametrize(("text", "times"), [("no column", "0"), ("{text} {text}", "2")])
def test_split_refuses_a_column_that_is_not_there_once(text: str, times: str) -> None:
    with pytest.raises(TaskError, match=f"{times} times; expected exactly once"):
        Template(text).split("text")


@pytest.mark.parametrize("name", ["Text (EN)", "text/body", "1st text", "comment?", "a:b"])
def test_a_text_column_that_no_placeholder_can_name_is_refused(name: str) -> None:
    with pytest.raises(TaskError, match=r"^text_column: a template cannot read the column"):
        Task(template=f"Review: {{{name}}}\nMood:", text_column=name, labels=["good", "bad"])


def test_another_column_that_no_placeholder_can_name_is_refused_with_the_data() -> None:
    """Without the data, `{question?}` may be text of the template."""
    task = Task(template="{text}\nQ: {question?}\nA:", target_column="answer")
    row = {"text": "a", "question?": "b", "answer": "c"}
    with pytest.raises(DatasetError, match=r"a template cannot read the column 'question[?]'"):
        task.to_examples([row])
    assert task.to_examples([{"text": "a", "answer": "c"}])[0].row == {"text": "a"}


@pytest.mark.parametrize(
    ("text", "opening"),
    [("Input: {review.body}\n", "Input: "), ("a {b c} {d}", "a "), ("{0} {x}", "{0} "), ("", "")],
)
def test_the_opening_is_the_text_before_the_first_column(text: str, opening: str) -> None:
    assert Template(text).opening == opening


def test_a_system_text_has_no_columns() -> None:
    words = {"good": "good", "bad": "bad"}
    chat = {"template": "Review: {text}", "labels": words}
    with pytest.raises(TaskError, match=r"^system: contains {sentiment}.*the same for all rows"):
        Task(**chat, system="Reply with {sentiment} only.")
    assert Task(**chat, system='Reply with {"sentiment": "…"}.').system
