"""Which column is what: by names and by values, and never against what a person says."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from softhub.errors import DatasetError
from softhub.tasks.drafting.columns import Choices, Column, Roles, describe_columns, guess_roles
from softhub.tasks.drafting.lengths import LengthCounter, count_words, measure
from softhub.tasks.split_table import SplitTable
from softhub.tasks.template import Template

SENTENCES = [
    f"{subject} {verb} the {thing} on day {day}."
    for day, subject in enumerate(("She", "He", "They", "We", "Nobody"))
    for verb in ("liked", "broke")
    for thing in ("old phone", "new screen")
]


def described(dataset: Dataset) -> list[Column]:
    return describe_columns(SplitTable.of(dataset, "data", str))


def roles(columns: Mapping[str, Sequence[Any]], **choices: Any) -> Roles:
    return guess_roles(described(Dataset.from_dict(dict(columns))), Choices(**choices))


def numbered(count: int = 20) -> list[str]:
    return [str(number) for number in range(count)]


def moods(count: int = 20) -> list[str]:
    return [("good", "bad")[number % 2] for number in range(count)]


def test_names_tell_and_values_confirm() -> None:
    found = roles(
        {
            "id": numbered(),
            "review_text": SENTENCES,
            "stars": [str(1 + n % 5) for n in range(20)],
            "sentiment": moods(),
            "user_id": [f"u{n % 6}" for n in range(20)],
        }
    )
    assert (found.kind, found.text, found.answer) == ("classification", "review_text", "sentiment")
    assert found.columns == ("review_text", "sentiment")


def test_values_tell_where_names_say_nothing() -> None:
    found = roles({"a": moods(), "b": numbered(), "c": SENTENCES})
    assert (found.kind, found.text, found.answer, found.group) == ("classification", "c", "a", None)


def test_free_text_is_never_guessed_as_the_answer() -> None:
    columns = {"body": SENTENCES, "summary": [s[::-1] for s in SENTENCES], "part": moods()}
    assert roles(columns).answer == "part"
    assert roles(columns, target="summary").kind == "generation"
    assert roles(columns, label="part").kind == "classification"
    del columns["part"]
    with pytest.raises(DatasetError, match="--target COLUMN"):
        roles(columns)


def test_an_answer_column_depends_on_its_values() -> None:
    assert roles({"question": SENTENCES, "answer": moods()}).kind == "classification"
    with pytest.raises(DatasetError, match="cannot tell which column contains the answers"):
        roles({"question": SENTENCES, "answer": SENTENCES[::-1]})


def test_numbers_are_no_labels_unless_their_name_says_so() -> None:
    counts = [str(n % 7) for n in range(20)]
    with pytest.raises(DatasetError, match="cannot tell which column contains the answers"):
        roles({"text": SENTENCES, "votes": counts})
    assert roles({"text": SENTENCES, "rating": counts}).answer == "rating"
    assert roles({"text": SENTENCES, "spam": [str(n % 2) for n in range(20)]}).answer == "spam"
    assert roles({"text": SENTENCES, "votes": counts}, label="votes").answer == "votes"


def test_classes_that_the_dataset_declares_come_first() -> None:
    features = Features(
        {
            "text": Value("string"),
            "label_id": Value("int64"),
            "kind": ClassLabel(names=["ham", "spam"]),
        }
    )
    rows = {"text": SENTENCES, "label_id": [n % 3 for n in range(20)], "kind": [0, 1] * 10}
    found = guess_roles(described(Dataset.from_dict(rows, features=features)), Choices())
    assert found.answer == "kind"


def test_of_several_texts_the_longer_is_truncated() -> None:
    longer = [f"{text} {text}" for text in SENTENCES]
    columns = {"premise": longer, "hypothesis": SENTENCES, "label": moods()}
    found = roles(columns, texts=("hypothesis", "premise"))
    assert (found.texts, found.text) == (("hypothesis", "premise"), "premise")


def test_thousands_of_labels_are_labels_if_named() -> None:
    labels = [f"intent {number % 1000}" for number in range(2100)]
    texts = [f"please do number {number} for me" for number in range(2100)]
    assert roles({"text": texts, "intent": labels}).kind == "classification"


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ({"label": "mod"}, "there is no column 'mod'; did you mean 'mood'"),
        ({"texts": ("text", "text")}, "'text' is given twice"),
        ({"label": "mood", "group": "mood"}, "'mood' is given twice"),
        ({"label": "mood", "target": "text"}, "choose one"),
        ({"target": "text", "multilabel": True}, "a target for generation; choose one"),
        ({"texts": ("1st note",)}, "a template cannot read the column '1st note'"),
        ({"label": "mood", "group": "text"}, "cannot tell which column contains the texts"),
    ],
)
def test_choices_that_cannot_be(choices: dict[str, Any], reason: str) -> None:
    columns = {"text": SENTENCES, "mood": moods(), "1st note": SENTENCES}
    with pytest.raises(DatasetError, match=reason):
        roles(columns, **choices)


def test_what_is_chosen_is_not_guessed_again() -> None:
    columns = {"text": SENTENCES, "title": SENTENCES[::-1], "mood": moods(), "topic": moods()}
    found = roles(columns, texts=("title", "text"), label="mood")
    assert (found.texts, found.answer) == (("title", "text"), "mood")


def test_a_user_is_no_label_and_a_group_only_if_named() -> None:
    columns = {"text": SENTENCES, "user": [f"u{n % 4}" for n in range(20)]}
    with pytest.raises(DatasetError, match="cannot tell which column contains the answers"):
        roles(columns)
    columns["label"] = moods()
    assert roles(columns).group is None
    found = roles(columns, group="user")
    assert found.group == "user"
    assert found.columns == ("text", "label", "user")


@pytest.mark.parametrize(
    ("texts", "unit"),
    [
        (["我很喜欢这个产品", "太差了不会再买"], "characters"),
        (["とても良い商品です", "二度と買いません"], "characters"),
        (["สินค้าดีมาก", "ไม่ดีเลย"], "characters"),
        (["Good phone", "Bad one"], "words"),
        (["아주 좋은 제품", "다시 안 사요"], "words"),
    ],
)
def test_lengths_are_in_words_or_where_there_are_none_in_characters(
    texts: list[str], unit: str
) -> None:
    lengths = measure([{"text": text} for text in texts], Template("{text}"), LengthCounter())
    assert (lengths.unit, lengths.longest) == (unit, max(map(count_words, texts)))
    assert count_words("我很喜欢") == 4 and count_words("สินค้าดี") == 8
    assert count_words("so good") == 2
