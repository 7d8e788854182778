"""Rows on disk: kept one by one, never mixed with those of another comparison."""

import json
from dataclasses import asdict

import pytest

from softhub.comparison import ComparedRow, RowStore
from softhub.errors import ConfigError

ABOUT = {"task": {"name": "mood"}, "data": {"test": {"examples": 2}}}


def row(method="soft prompt", seed=0):
    return ComparedRow(method, {"accuracy": 0.5}, ["good", "schlecht, ärgerlich"], "P = 1", seed)


def test_rows_come_back_as_they_were_added(tmp_path):
    store = RowStore(tmp_path / "run")
    store.open(ABOUT)
    added = [row(seed=seed) for seed in range(3)]
    for one in added:
        store.add(one)
    assert RowStore(tmp_path / "run").rows() == added
    assert store.about() == ABOUT
    assert [one.key for one in added] == [("soft prompt", "P = 1", seed) for seed in range(3)]


def test_a_line_that_was_cut_off_is_left_out_and_mended(tmp_path):
    store = RowStore(tmp_path)
    store.open(ABOUT)
    store.add(row(seed=0))
    whole = json.dumps(asdict(row(seed=1)))
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write(whole[: len(whole) // 2])
    assert [one.seed for one in store.rows()] == [0]
    store.add(row(seed=2))
    assert [one.seed for one in store.rows()] == [0, 2]


def test_another_comparison_in_the_folder_is_refused_by_what_differs(tmp_path):
    store = RowStore(tmp_path)
    store.open(ABOUT)
    store.add(row())
    store.open(ABOUT)
    with pytest.raises(ConfigError, match=r"other data\).*another output_dir"):
        store.open({**ABOUT, "data": {"test": {"examples": 3}}})
    with pytest.raises(ConfigError, match=r"other task\)"):
        store.open({**ABOUT, "task": {"name": "topic"}})
    assert len(store.rows()) == 1


def test_other_words_about_a_task_are_no_other_comparison(tmp_path):
    store = RowStore(tmp_path)
    store.open({**ABOUT, "task": {"name": "mood", "description": "Moods."}})
    store.add(row())
    store.open({**ABOUT, "task": {"name": "mood", "limitations": "Not for pets."}})
    assert store.about()["task"]["description"] == "Moods."


def test_without_rows_a_folder_is_taken_over(tmp_path):
    """A run that ended before its first row has nothing that could be mixed up."""
    store = RowStore(tmp_path)
    store.open({"task": "other"})
    store.open(ABOUT)
    assert store.about() == ABOUT


def test_an_empty_folder_says_what_to_run(tmp_path):
    with pytest.raises(ConfigError, match=r"no comparison in .*softhub compare"):
        RowStore(tmp_path / "nowhere").about()
