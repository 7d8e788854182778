"""Rows on disk: kept one by one, never mixed with those of another comparison."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest

from softhub.errors import ConfigError
from softhub.experiments.comparison import ComparedRow, RowStore
from softhub.experiments.comparison.results import save_context
from softhub.tasks import Example, Task, Template, Verbalizer

MOOD = Task(
    name="mood",
    kind="classification",
    template=Template("{text}\nMood:"),
    verbalizer=Verbalizer.from_mapping({"good": " good", "bad": " bad"}),
    label_column="label",
)
TEXTS = [Example({"text": str(number)}, label="good") for number in range(500)]
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


def test_answers_may_contain_any_character(tmp_path):
    store = RowStore(tmp_path)
    store.open(ABOUT)
    added = ComparedRow("LoRA", {"chrf": 0.5}, ["a\u2028b\u2029c\x85d"], seed=0)
    store.add(added)
    store.add(row())
    assert store.rows() == [added, row()]


@pytest.mark.parametrize("line", ["", "[1]", '{"method": "LoRA"}', '{"metod": "LoRA"}'])
def test_a_damaged_row_is_named_with_its_line(tmp_path, line):
    store = RowStore(tmp_path)
    store.open(ABOUT)
    store.add(row())
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write(f"{line}\n")
    for read in (store.rows, lambda: store.add(row(seed=1)), lambda: store.open(ABOUT)):
        with pytest.raises(ConfigError, match=r"rows\.jsonl is damaged: line 2 .*delete that line"):
            read()


@pytest.mark.parametrize("text", ["", '{"task', "[]"])
def test_damaged_conditions_are_named(tmp_path, text):
    store = RowStore(tmp_path)
    store.open(ABOUT)
    store.add(row())
    (tmp_path / "comparison.json").write_text(text)
    for read in (store.about, lambda: store.open(ABOUT)):
        with pytest.raises(ConfigError, match=r"comparison\.json is damaged: line 1"):
            read()


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


def test_the_short_runs_of_a_comparison_that_is_taken_over_are_removed(tmp_path):
    store, rates = RowStore(tmp_path), tmp_path / "rates.jsonl"
    store.open({**ABOUT, "data": "other"})
    rates.write_text("{}\n")
    store.open({**ABOUT, "data": "other"})
    assert rates.is_file()
    (tmp_path / "rows.jsonl").write_text('{"method": "cut o')  # no row either
    store.open(ABOUT)
    assert not rates.exists()


def test_an_empty_folder_says_what_to_run(tmp_path):
    with pytest.raises(ConfigError, match=r"no comparison in .*softhub compare"):
        RowStore(tmp_path / "nowhere").about()


def at_once(count: int, act: Callable[[int], object]) -> None:
    """Run `act(0)` … `act(count - 1)` at the same time; what one raises is raised."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(act, range(count)))


def test_runs_of_other_rows_share_a_folder(tmp_path):
    """Two commands at once, each with methods of its own: neither fails, and no row is lost."""

    def run(seed):
        store = RowStore(tmp_path)
        store.open(ABOUT)
        save_context(tmp_path, MOOD, TEXTS)
        store.add(row("soft prompt" if seed % 2 else "LoRA", seed))

    at_once(60, run)
    assert sorted(one.seed for one in RowStore(tmp_path).rows()) == list(range(60))
    context = json.loads((tmp_path / "context.json").read_text())
    assert len(context["references"]) == len(TEXTS)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"rows.jsonl", "comparison.json", "context.json", ".lock"}


def test_a_cut_line_is_mended_once_by_those_who_add_at_once(tmp_path):
    store = RowStore(tmp_path)
    store.open(ABOUT)
    store.add(row(seed=100))
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"method": "cut o')
    at_once(40, lambda seed: RowStore(tmp_path).add(row(seed=seed)))
    assert sorted(one.seed for one in store.rows()) == [*range(40), 100]


def test_a_row_that_another_run_added_is_kept_once(tmp_path):
    store = RowStore(tmp_path)
    store.open(ABOUT)
    store.add(row(seed=0))
    store.add(ComparedRow("soft prompt", {"accuracy": 0.9}, ["good", "good"], "P = 1", 0))
    assert store.rows() == [row(seed=0)]


def test_a_folder_that_another_comparison_took_over_gets_no_row_of_this_one(tmp_path):
    """Both began before there was a row to tell them apart."""
    first, second = RowStore(tmp_path), RowStore(tmp_path)
    first.open(ABOUT)
    second.open({**ABOUT, "data": {"test": {"examples": 3}}})
    with pytest.raises(ConfigError, match=r"rows of another comparison \(other data\)"):
        first.add(row())
    second.add(row())
    assert len(second.rows()) == 1
