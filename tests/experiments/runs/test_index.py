"""The index: what it lists, and in which order."""

import pytest

from softhub.errors import ConfigError
from softhub.experiments.runs import find_runs, sort_runs
from tests.experiments.runs.folders import write_checkpoint, write_run


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
