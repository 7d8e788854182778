"""recipes list and copy."""

import json
from pathlib import Path

import pytest

from softhub.cli.recipes import recipes_folder
from tests.command import Command


def test_list_shows_recipes_configs_and_tasks(softhub: Command) -> None:
    record = json.loads(softhub("recipes", "list", "--json").out)
    assert record["recipes"]["classification"]
    assert {"sentiment.yaml", "hub/sst2.yaml", "accelerate/fsdp.yaml"} <= set(record["configs"])
    assert {"sentiment.yaml", "hub/sst2.yaml"} <= set(record["tasks"])
    rows = [line.split("\t") for line in softhub("recipes", "list").out.splitlines()]
    assert ["recipe", "classification", record["recipes"]["classification"]] in rows
    assert ["task", "sentiment.yaml", "tasks/sentiment.yaml"] in rows


def test_copy_brings_the_sources_and_no_fetched_data(softhub: Command, tmp_path: Path) -> None:
    target = tmp_path / "mine"
    done = softhub("recipes", "copy", target)
    assert (done.code, done.out) == (0, f"{target}\n")
    assert f"softhub train --config {target / 'configs' / 'sentiment.yaml'}" in done.err
    source = recipes_folder()
    for name in ("classification.py", "configs/sentiment.yaml", "tasks/sentiment.yaml"):
        assert (target / name).read_bytes() == (source / name).read_bytes()
    assert not list(target.rglob("__pycache__"))
    assert not (target / "data" / "files").exists()


@pytest.mark.parametrize("obstacle", ["folder", "file"])
def test_copy_overwrites_nothing(softhub: Command, tmp_path: Path, obstacle: str) -> None:
    target = tmp_path / "mine"
    if obstacle == "folder":
        target.mkdir()
        (target / "notes.txt").write_text("mine")
    else:
        target.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    done = softhub("recipes", "copy", target)
    assert (done.code, done.out) == (1, "")
    assert str(target) in done.err
    assert sorted(tmp_path.rglob("*")) == before
