"""What is said of the data: each finding where it holds, and none where it does not."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from softhub.tasks.drafting import data_checks
from softhub.tasks.drafting.columns import Roles
from softhub.tasks.drafting.data_checks import check_data, missing_rows
from softhub.tasks.drafting.lengths import Lengths
from softhub.tasks.drafting.rows import read_rows
from softhub.tasks.drafting.templates import find_labels
from softhub.tasks.split_table import SplitTable

Table = dict[str, Sequence[Any]]

CLASSIFY = Roles("classification", ("text",), "text", "label", None)
GROUPED = Roles("classification", ("text",), "text", "label", "user")
GENERATE = Roles("generation", ("text",), "text", "target", None)
SHORT = Lengths("words", 5, 9, 12, None, 0, 100)


def sound(start: int, count: int) -> Table:
    texts = [f"the {'sun' if n % 2 else 'rain'} came on day {start + n}" for n in range(count)]
    return {"text": texts, "label": ["ab"[n // 2 % 2] for n in range(count)]}


def read(tables: Mapping[str, Table], roles: Roles) -> dict[str, Any]:
    found = {}
    for split, columns in tables.items():
        rows = [
            dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)
        ]
        table = SplitTable.of(rows, "data.csv", lambda row: f"data.csv, line {row + 2}")
        found[split] = read_rows(table, roles)
    return found


def found(
    tables: Mapping[str, Table], roles: Roles = CLASSIFY, lengths: Lengths = SHORT
) -> list[str]:
    read_tables = read(tables, roles)
    labels = find_labels(read_tables, roles) if roles.kind == "classification" else None
    return check_data(read_tables, roles, labels, lengths)


def splits(train: Table, **others: Table) -> dict[str, Table]:
    return {"train": train, "dev": sound(1000, 100), "test": sound(2000, 100), **others}


def test_nothing_is_said_of_sound_data() -> None:
    assert found(splits(sound(0, 100))) == []


def test_a_missing_test_split_and_a_small_one() -> None:
    (missing,) = found({"train": sound(0, 100)})
    assert "no test split" in missing and "--split" in missing
    small = found(splits(sound(0, 100), test=sound(2000, 25)))
    assert small == ["test has 25 rows, so a score on it is uncertain by about 20 points"]


def test_missing_values_are_said_with_the_first_line() -> None:
    tables = {"train": dict(text=["a", None, "c"], label=["x", "y", None])}
    (finding,) = missing_rows(read(tables, CLASSIFY))
    assert finding == (
        "data.csv, line 3: 'text' or 'label' is missing, as in 2 of 3 rows in total; "
        "these rows are left out"
    )


def test_repeated_texts_and_contradictions() -> None:
    train = sound(0, 100)
    texts = [*train["text"], "Twice  said", "twice said", "twice said"]
    doubled = dict(text=texts, label=[*train["label"], "a", "b", "a"])
    assert found(splits(doubled)) == [
        "2 of 103 training texts repeat another",
        "1 text with two different labels, e.g. 'twice said': a and b",
    ]


def test_texts_and_groups_on_two_sides() -> None:
    train = sound(0, 100)
    (told,) = found(splits(train, test=sound(90, 100)))
    assert told.startswith("10 of 100 different texts of test are in train too")
    users = [f"u{n % 20}" for n in range(100)]
    parts = {
        split: dict(**part, user=[f"{split} {user}" for user in users])
        for split, part in splits(train).items()
    }
    assert found(parts, GROUPED) == []
    parts["test"] = dict(**splits(train)["test"], user=[f"train {user}" for user in users])
    (told,) = found(parts, GROUPED)
    assert "20 of 20 values of 'user' in test are in train" in told


def test_imbalance_small_labels_and_absent_ones() -> None:
    train = sound(0, 100)
    labels = ["a"] * 95 + ["b"] * 5
    told = found(splits(dict(text=train["text"], label=labels)))
    assert told[0].startswith("'a' has 95 training rows and 'b' 5;")
    assert told[1].startswith("1 label with fewer than 8 training rows ('b')")
    told = found(splits(dict(text=train["text"], label=["a", "c"] * 50)))
    assert "test has no row of 1 label ('c')" in told


def test_a_label_that_stands_only_in_test_cannot_be_learned() -> None:
    other = dict(text=sound(2000, 100)["text"], label=["a", "c"] * 50)
    assert found({"train": sound(0, 100), "test": other}) == [
        "train has no row of 1 label ('c'), which cannot be learned",
        "test has no row of 1 label ('b')",
    ]


def test_spellings_and_numbers() -> None:
    train = sound(0, 100)
    told = found(splits(dict(text=train["text"], label=["a", "b", "A ", "b"] * 25)))
    assert "labels are spelled in several ways ('A '); label_map merges them" in told
    numbers = {
        split: dict(text=part["text"], label=["0", "1"] * 50)
        for split, part in splits(train).items()
    }
    assert found(numbers)[0].startswith("the labels are numbers ('0', '1')")


def test_words_that_give_the_label_away() -> None:
    texts = [f"{'ham:' if n % 2 else 'spam:'} buy number {n}" for n in range(100)]
    leaking = dict(text=texts, label=["ab"[n % 2] for n in range(100)])
    told = found(splits(leaking))
    assert "'ham' is in 50 of 50 texts of 'b' and in 0 others: the text may" in " ".join(told)


def test_a_word_that_was_looked_for_in_a_sample_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_checks, "_SAMPLED", 40)
    texts = [f"{'ham:' if n % 2 else 'spam:'} buy number {n}" for n in range(120)]
    told = found(splits(dict(text=texts, label=["ab"[n % 2] for n in range(120)])))
    assert "in 0 others (of 40 training rows, a sample): the text may" in " ".join(told)


def test_texts_that_lose_their_end() -> None:
    cut = Lengths("tokens", 100, 900, 3000, 512, 7, 100)
    (told,) = found(splits(sound(0, 100)), lengths=cut)
    assert told.startswith("7 of 100 training texts have more than 512 tokens (the longest")
