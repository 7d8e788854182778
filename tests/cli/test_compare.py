"""compare: it launches its recipe, or only writes the report of what was run."""

import json
from pathlib import Path

import pytest

from softhub.experiments.comparison.store import RowStore
from tests.command import Command
from tests.experiments.comparison.rows import GROUPS, LABELS, REFERENCES, rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The output_dir of a comparison of two rows."""
    store = RowStore(tmp_path / "run")
    words = [{"label": label, "words": [label]} for label in LABELS]
    store.open({"task": {"name": "mood", "verbalizer": words}, "base": {"name": "example/tiny"}})
    for row in rows()[:2]:
        store.add(row)
    context = {"references": REFERENCES, "groups": GROUPS, "machine": {}}
    (store.folder / "context.json").write_text(json.dumps(context))
    return store.folder


def test_report_shows_the_table_and_writes_the_files(softhub: Command, folder: Path) -> None:
    done = softhub("compare", "--report", folder)
    assert (done.code, done.err) == (0, "")
    assert "mood on example/tiny: 120 test examples" in done.out
    assert "majority label" in done.out
    assert done.out.endswith(f"Report: {folder / 'report.html'}\n")
    assert (folder / "report.html").is_file()


def test_report_as_json_is_the_file_that_it_writes(softhub: Command, folder: Path) -> None:
    done = softhub("compare", "--report", folder, "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out) == json.loads((folder / "report.json").read_text())


@pytest.mark.slow
def test_the_recipe_is_launched_with_the_flags(softhub: Command, tmp_path: Path) -> None:
    config = tmp_path / "my.yaml"
    config.write_text("max_steps: 3\nvirtual_token: 5\n")
    done = softhub("compare", "--config", config)
    assert done.code == 1
    assert "--virtual-tokens" in done.err  # what the recipe's own parser suggests


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give --config FILE"),
        (("--json",), "--json requires --report"),
        (("--report", ".", "--seeds", 1), "--report runs nothing"),
    ],
)
def test_wrong_usage(softhub: Command, arguments: tuple[object, ...], words: str) -> None:
    done = softhub("compare", *arguments)
    assert done.code == 2
    assert words in " ".join(done.err.split())


def test_a_folder_without_a_comparison_is_one_line(softhub: Command, tmp_path: Path) -> None:
    done = softhub("compare", "--report", tmp_path)
    assert done.code == 1
    assert done.err.startswith("error: There is no comparison in") and done.err.count("\n") == 1
