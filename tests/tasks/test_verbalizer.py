"""Verbalizers: ordered labels, words that tell them apart."""

import json
from typing import Any

import pytest

from softhub.errors import TaskError
from softhub.tasks import Verbalizer

MOOD = Verbalizer.from_mapping({"positive": " positive", "negative": [" negative", " bad"]})


def test_a_single_word_and_a_list_of_words_are_both_taken() -> None:
    assert MOOD.words == (("positive", (" positive",)), ("negative", (" negative", " bad")))


def test_labels_keep_the_order_in_which_they_were_written() -> None:
    assert MOOD.labels == ("positive", "negative")


def test_the_order_survives_json_with_sorted_keys() -> None:
    record = json.loads(json.dumps(MOOD.to_record(), sort_keys=True))
    assert Verbalizer.from_record(record) == MOOD


def test_words_of_a_label() -> None:
    assert MOOD.words_of("negative") == (" negative", " bad")
    with pytest.raises(TaskError, match="no label 'neutral'"):
        MOOD.words_of("neutral")


@pytest.mark.parametrize("word, spaced", [(" yes", True), ("yes", False)])
def test_spaced_says_whether_words_bring_their_own_space(word: str, spaced: bool) -> None:
    other = word.replace("yes", "no")
    assert Verbalizer.from_mapping({"a": word, "b": other}).spaced is spaced


def test_a_word_may_begin_another_because_scores_end_in_a_terminator() -> None:
    assert Verbalizer.from_mapping({"a": " heart", "b": " heart failure"}).labels == ("a", "b")


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({}, "0 labels; expected at least two"),
        ({"a": " x"}, "1 label; expected at least two"),
        ({"a": " x", "b": " x"}, "is already used for 'a'"),
        ({"a": [" x", " x"], "b": " y"}, "is already used for 'a'"),
        ({"a": " x", "b": [" y", " x"]}, "is already used for 'a'"),
        ({"a": " x", "b": "x"}, "is already used for 'a'"),
        ({"a": " x", "b": "y"}, "write all words the same way"),
        ({"a": " x", "b": []}, "'b' has no words"),
        ({"a": " x", "b": "  "}, "'b' has an empty word"),
        ({"a": " x", "b": ""}, "'b' has an empty word"),
        ({"a": " x", "b": " y "}, "ends with white space; write ' y'"),
        ({"": " x", "b": " y"}, "without a name"),
        ({"a": " x", False: " no"}, "put them in quotes"),
        ({"a": " x", "b": True}, "expected a word or a list of words, in quotes"),
        ({"a": " x", "b": [True]}, "put them in quotes"),
        ({"a": " x", 1: " y"}, "put it in quotes"),
        ({"a": " x", "b": [3]}, "put it in quotes"),
    ],
)
def test_words_that_cannot_tell_labels_apart_are_refused(
    mapping: dict[Any, Any], message: str
) -> None:
    with pytest.raises(TaskError, match=message):
        Verbalizer.from_mapping(mapping)


@pytest.mark.parametrize(
    "record",
    [
        {"a": [" x"]},
        [["a", [" x"]]],
        [{"label": "a"}],
        [{"label": "a", "words": [" x"], "code": "print()"}],
        [{"label": "a", "words": 5}, {"label": "b", "words": [" y"]}],
        [{"label": "a", "words": [" x"]}, {"label": "a", "words": [" y"]}],
    ],
)
def test_a_record_of_another_shape_is_refused(record: Any) -> None:
    with pytest.raises(TaskError):
        Verbalizer.from_record(record)
