"""What is said of the data: each finding where it holds, and none where it does not."""

from collections.abc import Mapping, Sequence
from typing import Any

from softhub.tasks.drafting.columns import Roles
from softhub.tasks.drafting.data_checks import find_all, missing_rows
from softhub.tasks.drafting.lengths import Lengths
from softhub.tasks.drafting.sources import Table
from softhub.tasks.drafting.templates import find_labels

CLASSIFY = Roles("classification", ("text",), "text", "label", None, {})
GROUPED = Roles("classification", ("text",), "text", "label", "user", {})
GENERATE = Roles("generation", ("text",), "text", "target", None, {})
SHORT = Lengths("words", 5, 9, 12, None, 0, 100)


def table(**columns: Sequence[Any]) -> Table:
    size = len(next(iter(columns.values())))
    return Table(columns, size, lambda row: f"data.csv, line {row + 2}")


def sound(start: int, count: int) -> Table:
    texts = [f"the {'sun' if n % 2 else 'rain'} came on day {start + n}" for n in range(count)]
    return table(text=texts, label=["ab"[n // 2 % 2] for n in range(count)])


def found(
    tables: Mapping[str, Table], roles: Roles = CLASSIFY, lengths: Lengths = SHORT
) -> dict[str, str]:
    labels = find_labels(tables, roles) if roles.kind == "classification" else None
    told: dict[str, list[str]] = {}
    for item in find_all(tables, roles, labels, lengths):
        told.setdefault(item.name, []).append(item.text)
    return {name: "\n".join(texts) for name, texts in told.items()}


def splits(train: Table, **others: Table) -> dict[str, Table]:
    return {"train": train, "dev": sound(1000, 100), "test": sound(2000, 100), **others}


def test_nothing_is_said_of_sound_data() -> None:
    assert found(splits(sound(0, 100))) == {}


def test_a_missing_test_split_and_a_small_one() -> None:
    assert "--split" in found({"train": sound(0, 100)})["no-test"]
    small = found(splits(sound(0, 100), test=sound(2000, 25)))
    assert small == {
        "small-test": "test has 25 rows: a score on so few is uncertain by some 20 points"
    }


def test_missing_values_are_said_with_the_first_line() -> None:
    tables = {"train": table(text=["a", None, "c"], label=["x", "y", None])}
    (finding,) = missing_rows(tables)
    assert finding.text == (
        "data.csv, line 3: 'text' or 'label' is missing, as in 2 of 3 rows in all; "
        "they are left out"
    )


def test_repeated_texts_and_contradictions() -> None:
    train = sound(0, 100)
    texts = [*train.columns["text"], "Twice  said", "twice said", "twice said"]
    doubled = table(text=texts, label=[*train.columns["label"], "a", "b", "a"])
    told = found(splits(doubled))
    assert told["repeated"] == "2 of 103 training texts repeat another"
    assert told["contradictions"] == "1 text has two different labels, e.g. 'twice said': a and b"


def test_texts_and_groups_on_two_sides() -> None:
    train = sound(0, 100)
    told = found(splits(train, test=sound(90, 100)))
    assert told["shared-texts"].startswith("10 of 100 different texts of test stand in train too")
    users = [f"u{n % 20}" for n in range(100)]
    parts = {
        split: table(**part.columns, user=[f"{split} {user}" for user in users])
        for split, part in splits(train).items()
    }
    assert found(parts, GROUPED) == {}
    parts["test"] = table(**splits(train)["test"].columns, user=[f"train {user}" for user in users])
    told = found(parts, GROUPED)
    assert set(told) == {"shared-groups"}
    assert "20 of 20 values of 'user' in test stand in train" in told["shared-groups"]


def test_imbalance_small_labels_and_absent_ones() -> None:
    train = sound(0, 100)
    labels = ["a"] * 95 + ["b"] * 5
    told = found(splits(table(text=train.columns["text"], label=labels)))
    assert told["imbalance"].startswith("'a' has 95 training rows and 'b' 5;")
    assert "1 label has fewer than 8 training rows ('b')" in told["small-labels"]
    told = found(splits(table(text=train.columns["text"], label=["a", "c"] * 50)))
    assert "test has no row of 1 label ('c')" in told["absent-labels"]


def test_a_label_that_stands_only_in_test_cannot_be_learned() -> None:
    other = table(text=sound(2000, 100).columns["text"], label=["a", "c"] * 50)
    told = found({"train": sound(0, 100), "test": other})["absent-labels"].splitlines()
    assert told == [
        "train has no row of 1 label ('c'), which cannot be learned",
        "test has no row of 1 label ('b')",
    ]


def test_spellings_numbers_and_many_labels() -> None:
    train = sound(0, 100)
    told = found(splits(table(text=train.columns["text"], label=["a", "b", "A ", "b"] * 25)))
    assert "several ways ('A ')" in told["spellings"]
    numbers = {
        split: table(text=part.columns["text"], label=["0", "1"] * 50)
        for split, part in splits(train).items()
    }
    assert "the labels are numbers ('0', '1')" in found(numbers)["numbers"]
    many = table(
        text=[f"text {n}" for n in range(900)], label=[f"label {n % 300}" for n in range(900)]
    )
    assert "300 labels" in found({"train": many, "test": many})["many-labels"]


def test_words_that_give_the_label_away() -> None:
    texts = [f"{'ham:' if n % 2 else 'spam:'} buy number {n}" for n in range(100)]
    leaking = table(text=texts, label=["ab"[n % 2] for n in range(100)])
    told = found(splits(leaking))
    assert "'ham' stands in 50 of 50 texts of 'b' and in 0 others" in told["leak"]


def test_targets_that_stand_in_the_text() -> None:
    rows = {
        split: table(
            text=[f"before, the very answer {n}, after {split}" for n in range(100)],
            target=[f"the very answer {n}" for n in range(100)],
        )
        for split in ("train", "test")
    }
    assert "in 100 of 100 rows 'target' stands word for word" in found(rows, GENERATE)["leak"]
    free = {
        split: table(text=part.columns["text"], target=[f"quite other {n}" for n in range(100)])
        for split, part in rows.items()
    }
    assert found(free, GENERATE) == {}


def test_texts_that_lose_their_end() -> None:
    cut = Lengths("tokens", 100, 900, 3000, 512, 7, 100)
    told = found(splits(sound(0, 100)), lengths=cut)
    assert told["cut"].startswith("7 of 100 training texts have more than 512 tokens (the longest")
    long = Lengths("words", 100, 700, 2000, None, 0, 100)
    assert "--base MODEL" in found(splits(sound(0, 100)), lengths=long)["long"]
