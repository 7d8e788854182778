"""Dividing: nothing on two sides, nothing lost, each time the same."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softhub.errors import DatasetError
from softhub.tasks.drafting.columns import Roles
from softhub.tasks.drafting.rows import RowSet, divide, read_rows
from softhub.tasks.split_table import SplitTable

PLAIN = Roles("classification", ("text",), "text", "label", None)
GROUPED = Roles("classification", ("text",), "text", "label", "user")

Rows = list[tuple[str, str, str]]
ROWS = st.lists(
    st.tuples(
        st.integers(0, 60).map(lambda n: f"Text  {n}" if n % 2 else f"text {n}"),
        st.sampled_from("abc"),
        st.integers(0, 30).map(str),
    ),
    min_size=1,
    max_size=60,
)


def table(rows: Rows, roles: Roles) -> RowSet:
    dicts = [dict(zip(("text", "label", "user"), row, strict=True)) for row in rows]
    return read_rows(SplitTable.of(dicts, "data", lambda row: f"row {row + 1}"), roles)


def division(rows: Rows, roles: Roles = PLAIN) -> dict[str, list[int]]:
    parts = divide(table(rows, roles), roles)
    return {split: [row.index for row in part.rows] for split, part in parts.items()}


def same_text(text: str) -> str:
    return " ".join(text.split()).casefold()


@given(ROWS, st.booleans())
@settings(max_examples=50, deadline=None)
def test_no_text_and_no_group_stands_on_two_sides(rows: Rows, grouped: bool) -> None:
    try:
        parts = division(rows, GROUPED if grouped else PLAIN)
    except DatasetError:
        return
    members = [row for part in parts.values() for row in part]
    assert len(members) == len(set(members))
    for column in ("text", "user") if grouped else ("text",):
        at = 0 if column == "text" else 2
        sides = [{same_text(rows[row][at]) for row in part} for part in parts.values()]
        assert sum(map(len, sides)) == len(set().union(*sides))
    labels = {split: {rows[row][1] for row in part} for split, part in parts.items()}
    assert labels["dev"] | labels["test"] <= labels["train"]
    if not grouped:
        assert sorted(members) == list(range(len(rows)))


def test_each_label_is_divided_like_the_whole() -> None:
    rows = [(f"text {n}", "rare" if n % 10 == 0 else "common", "") for n in range(1000)]
    parts = division(rows)
    assert {split: len(part) for split, part in parts.items()} == {
        "train": 800,
        "dev": 100,
        "test": 100,
    }
    for split, share in (("train", 80), ("dev", 10), ("test", 10)):
        assert Counter(rows[row][1] for row in parts[split])["rare"] == share


def test_rows_in_another_order_are_divided_alike() -> None:
    rows = [(f"text {n}", "ab"[n % 2], "") for n in range(100)]
    first = division(rows)
    assert division(rows) == first
    moved = [*rows[50:], *rows[:50]]
    again = division(moved)
    assert {moved[row] for row in again["test"]} == {rows[row] for row in first["test"]}


def test_incomplete_rows_are_left_out() -> None:
    rows = [("x", "", ""), *((f"t{n}", "ab"[n % 2], "") for n in range(30))]
    parts = division(rows)
    assert 0 not in [row for part in parts.values() for row in part]


def test_too_few_rows_are_not_divided() -> None:
    rows = [("Same text", "a", "1"), ("same  TEXT", "b", "2")] * 20
    with pytest.raises(
        DatasetError, match="row 1 and following: found 1 different texts; expected 10"
    ):
        division(rows)
    with pytest.raises(DatasetError, match="2 groups by 'user'; expected 10 or more"):
        division(rows, GROUPED)


def test_labels_that_stand_once_leave_nothing_to_judge() -> None:
    rows = [(f"text {n}", f"label {n}", "") for n in range(30)]
    with pytest.raises(DatasetError, match="nothing is left for dev"):
        division(rows)
