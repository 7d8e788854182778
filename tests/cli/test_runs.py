"""softhub runs: a table, JSON, and where a prompt comes from."""

import json
from pathlib import Path

import pytest

from tests.command import Command
from tests.experiments.runs.folders import write_checkpoint, write_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three runs: two seeds, and one that was stopped."""
    folder = tmp_path / "runs"
    for seed in (0, 1):
        write_run(folder / f"seed{seed}", seed=seed, value=0.9 + seed / 20)
    write_checkpoint(folder / "stopped", 20)
    return folder


def test_piped_it_is_tab_separated_with_every_column(softhub: Command, folder: Path) -> None:
    done = softhub("runs", folder, "--sort", "path")
    assert (done.code, done.err) == (0, "")
    head, *lines = [line.split("\t") for line in done.out.splitlines()]
    rows = [dict(zip(head, line, strict=True)) for line in lines]
    assert [row["run"] for row in rows] == ["seed0", "seed1", "stopped"]
    assert rows[0]["score"] == "accuracy 0.900 (0.850 to 0.950)"
    assert (rows[0]["task"], rows[0]["base model"], rows[0]["tokens"]) == ("mood", "tiny", "3")
    assert (rows[0]["dev loss"], rows[0]["best step"], rows[0]["steps"]) == ("0.4", "20", "30")
    assert (rows[0]["minutes"], rows[0]["date"]) == ("2.0", "2026-01-02 03:04")
    assert (rows[2]["state"], rows[2]["score"]) == ("interrupted", "")
    assert rows[2]["note"] == "at step 20 of 30; resume with --resume"


def test_json_holds_provenance_too(softhub: Command, folder: Path) -> None:
    (run, *rest) = json.loads(softhub("runs", folder, "--task", "mood", "--json").out)
    assert len(rest) == 1
    assert run["score"]["value"] == pytest.approx(0.9)
    assert run["provenance"]["code"]["commit"] == "b" * 40


def test_a_prompt_is_traced(softhub: Command, folder: Path) -> None:
    (run,) = json.loads(softhub("runs", folder / "seed1", "--json").out)
    assert (run["path"], run["seed"]) == (".", 1)
    assert run["provenance"]["dataset"]["train"]["sha256"] == "a" * 64
    assert run["provenance"]["training"]["learning_rate"] == 0.01
    assert run["config"]["task"] == "mood.yaml"
    assert len(run["weights_sha256"]) == 64


def test_mistakes_and_emptiness_are_one_line(softhub: Command, tmp_path: Path) -> None:
    missing = softhub("runs", tmp_path / "missing")
    assert (missing.code, missing.out) == (1, "") and "There is no folder" in missing.err
    wrong = softhub("runs", tmp_path, "--sort", "colour")
    assert wrong.code == 1 and "expected one of date" in wrong.err
    empty = softhub("runs", tmp_path, "--task", "mood")
    assert (empty.code, empty.out) == (0, "") and "no run of task mood" in empty.err
    assert json.loads(softhub("runs", tmp_path, "--json").out) == []


def test_names_obey_no_terminal(softhub: Command, tmp_path: Path) -> None:
    write_run(tmp_path / "a\x1b[31mb", report={"warnings": ["red\x1b[31m\nline\tcell"]})
    done = softhub("runs", tmp_path)
    assert "\x1b" not in done.out
    assert len(done.out.splitlines()) == 2
