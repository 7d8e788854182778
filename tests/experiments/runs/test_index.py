"""The index: its order, and runs summed up over their seeds."""

import statistics

import pytest

from softhub.errors import ConfigError
from softhub.experiments.runs import by_seed, find_runs, sort_runs
from tests.experiments.runs.folders import write_checkpoint, write_run

SETTINGS = {"learning_rate": 0.01, "max_steps": 30}


def paths(runs):
    return [run.path for run in runs]


def test_the_newest_come_first_and_other_orders_can_be_asked_for(tmp_path):
    write_run(tmp_path / "a", date="2026-01-02T00:00:00+00:00", value=0.8)
    write_run(tmp_path / "b", date="2026-01-03T00:00:00+02:00", value=0.9)
    write_run(tmp_path / "deep" / "c", date="2026-01-01T00:00:00", value=0.7)
    runs = find_runs(tmp_path)
    assert paths(runs) == ["b", "a", "deep/c"]
    assert paths(sort_runs(runs, "score")) == ["b", "a", "deep/c"]
    assert paths(sort_runs(runs, "path")) == ["a", "b", "deep/c"]
    write_checkpoint(tmp_path / "aa", 10)
    with_stopped = find_runs(tmp_path)
    assert paths(sort_runs(with_stopped, "score"))[-1] == "aa"
    assert paths(sort_runs(with_stopped, "steps"))[0] == "aa"
    assert paths(sort_runs(with_stopped, "loss"))[-1] == "aa"
    with pytest.raises(ConfigError, match="expected one of date, score"):
        sort_runs(runs, "colour")


def test_no_folder_is_an_error_and_an_empty_one_is_not(tmp_path):
    assert find_runs(tmp_path) == []
    with pytest.raises(ConfigError, match="There is no folder"):
        find_runs(tmp_path / "missing")


def test_seeds_are_summed_up(tmp_path):
    values = {0: 0.9, 1: 0.94, 2: 0.86}
    for seed, value in values.items():
        write_run(tmp_path / f"s{seed}", seed=seed, value=value, code={"commit": str(seed) * 40})
    write_run(tmp_path / "longer", tokens=5)
    write_run(tmp_path / "other-rate", training={**SETTINGS, "learning_rate": 0.3})
    write_run(tmp_path / "other-data", dataset={"train": {"sha256": "c" * 64}})
    write_checkpoint(tmp_path / "unfinished", 10)
    groups = {group.paths: group for group in by_seed(sort_runs(find_runs(tmp_path), "path"))}
    assert set(groups) == {("s0", "s1", "s2"), ("longer",), ("other-rate",), ("other-data",)}
    group = groups["s0", "s1", "s2"]
    assert (group.seeds, group.metric) == ((0, 1, 2), "accuracy")
    assert group.mean == pytest.approx(0.9)
    assert group.deviation == pytest.approx(statistics.stdev(values.values()))
    assert (group.lowest, group.highest) == (0.86, 0.94)
    assert groups["longer",].deviation is None


def test_what_chance_decided_parts_no_seeds(tmp_path):
    """A restart changes rate and start, a range test finds another rate for each seed."""
    failures = [{"reason": "one label", "learning_rate": 0.01, "init": "labels"}]
    again = {"restarts": failures, "init": "vocabulary"}
    write_run(tmp_path / "a", seed=0)
    write_run(tmp_path / "b", seed=1, training={**SETTINGS, "learning_rate": 0.0025}, **again)
    for seed, rate in enumerate((0.02, 0.04)):
        found = {"training": {"range_test": {"chosen": rate}, "steps": 30}}
        training = {**SETTINGS, "learning_rate": rate}
        write_run(tmp_path / f"auto{seed}", seed=seed, report=found, training=training)
    groups = by_seed(sort_runs(find_runs(tmp_path), "path"))
    assert [group.paths for group in groups] == [("a", "b"), ("auto0", "auto1")]
