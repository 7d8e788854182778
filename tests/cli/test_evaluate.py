"""evaluate and calibrate: figures of an adapter on a task's data."""

import json
from pathlib import Path

import pytest
import yaml

from softhub.model.prompt import SoftPrompt
from tests.cli.conftest import SENTIMENT, SUMMARY, MakeAdapter
from tests.command import Command


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A task file with twelve test and twelve dev rows."""
    words = ("battery", "price", "sound", "screen")
    rows = [
        {
            "text": f"The {words[n % 4]} is {words[n % 3]} {n}.",
            "mood": ("positive", "negative")[n % 2],
        }
        for n in range(24)
    ]
    for name, part in (("dev", rows[:12]), ("test", rows[12:])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    file = tmp_path / "task.yaml"
    content = {
        "name": "sentiment",
        "kind": "classification",
        "template": SENTIMENT.template.text,
        "verbalizer": {"positive": " good", "negative": [" bad", " waste"]},
        "label_column": "mood",
        "metrics": ["accuracy", "macro_f1"],
        "dataset": {"data_files": {"dev": "dev.jsonl", "test": "test.jsonl"}},
    }
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def test_evaluate_prints_metrics_and_on_request_labels(
    softhub: Command, adapter: Path, base: Path, task: Path
) -> None:
    done = softhub("evaluate", adapter, "--base", base, "--task", task)
    assert done.code == 0, done.err
    assert done.out.startswith("metric\tvalue\tlow\thigh\naccuracy\t0.")
    assert "Expected calibration error: " in done.out
    assert "precision" not in done.out
    detailed = softhub("evaluate", adapter, "--base", base, "--task", task, "--per-class")
    assert "precision, %" in detailed.out
    assert "negative" in detailed.out


def test_evaluate_gives_json(softhub: Command, adapter: Path, base: Path, task: Path) -> None:
    options = ("--base", base, "--task", task, "--split", "dev", "--json")
    record = json.loads(softhub("evaluate", adapter, *options, "--per-class").out)
    assert record["examples"] == 12
    matrix = record["per_class"]["confusion"]
    right = (matrix[0][0] + matrix[1][1]) / 12
    assert record["metrics"]["accuracy"]["value"] == pytest.approx(right)
    assert "per_class" not in json.loads(softhub("evaluate", adapter, *options).out)


def test_calibrate_writes_into_the_folder_and_leaves_the_card(
    softhub: Command, adapter: Path, base: Path, task: Path
) -> None:
    card = adapter / "README.md"
    softhub("calibrate", adapter, "--base", base, "--task", task, "--abstain-below", "0.6")
    assert "below 0.600, the model abstains" in card.read_text()
    card.write_text(card.read_text() + "\nEdited by hand.\n")
    before = SoftPrompt.from_pretrained(adapter)
    options = ("--base", base, "--task", task)
    done = softhub("calibrate", adapter, *options, "--abstain-below", "0.8")
    assert done.code == 0, done.err
    assert "expected calibration error on dev: " in done.out
    assert "Abstention below a probability of 0.800: " in done.out
    assert "% of the texts are answered" in done.out
    assert "abstain below\tcoverage, %\taccuracy of answers, %" in done.out
    after = SoftPrompt.from_pretrained(adapter)
    assert after.vectors.equal(before.vectors)
    assert after.manifest.task is not None
    assert after.manifest.task["decision"]["abstain_below"] == 0.8
    assert card.read_text().endswith("Edited by hand.\n")
    evaluated = softhub("evaluate", adapter, *options, "--json")
    assert json.loads(evaluated.out)["decision"] == after.manifest.task["decision"]
    softened = softhub("predict", adapter, "It broke.", "--base", base, "--json")
    assert json.loads(softened.out)["label"] in ("positive", "negative", None)
    sure = softhub("predict", adapter, "x", "--base", base, "--abstain-below", "1")
    assert sure.out.splitlines()[1].startswith("(abstains)\t")


def test_calibrate_is_for_folders_and_labels(
    softhub: Command, make_adapter: MakeAdapter, adapter: Path, base: Path, task: Path
) -> None:
    softhub("push", adapter, "me/sentiment")
    refused = softhub("calibrate", "me/sentiment", "--base", base, "--task", task)
    assert (refused.code, refused.out) == (1, "")
    assert "softhub pull me/sentiment --to" in refused.err
    own = Path(softhub("pull", "me/sentiment").out.strip())
    refused = softhub("calibrate", own, "--base", base, "--task", task)
    assert (refused.code, refused.out) == (1, "")
    assert "hub's own copy" in refused.err and "Loading" not in refused.err
    texts = make_adapter(SUMMARY, seed=1)
    wrong = softhub("calibrate", texts, "--base", base, "--task", task)
    assert wrong.code == 1
    assert "of kind generation" in wrong.err


def test_an_adapter_that_generates_is_judged_by_its_texts_and_runs_code_only_if_asked_to(
    softhub: Command, make_adapter: MakeAdapter, base: Path, tmp_path: Path
) -> None:
    row = {"text": "x = 1\n", "body": "y = 2", "test": "raise ValueError"}
    (tmp_path / "test.jsonl").write_text((json.dumps(row) + "\n") * 10)
    file = tmp_path / "code.yaml"
    content = {
        "name": "code",
        "kind": "generation",
        "template": SUMMARY.template.text,
        "target_column": "body",
        "test_column": "test",
        "metrics": ["pass_at_1", "chrf"],
        "dataset": {"data_files": {"test": "test.jsonl"}},
    }
    file.write_text(yaml.safe_dump(content))
    ask = ("evaluate", make_adapter(task=SUMMARY), "--base", base, "--task", file, "--json")
    plain = softhub(*ask)
    assert plain.code == 0, plain.err
    assert list(json.loads(plain.out)["metrics"]) == ["chrf"]
    assert "pass_at_1 is left out" in plain.err and "--run-generated-code" in plain.err
    done = softhub(*ask, "--run-generated-code")
    if "only inside bubblewrap" in done.err:
        assert done.code == 1
        return
    record = json.loads(done.out)
    assert record["metrics"]["pass_at_1"]["value"] == 0
    assert record["outcomes"] == {"failed": 10}
