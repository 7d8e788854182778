"""The whole workflow by the command alone: train, push, list, pull and predict, on a tiny base."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from softhub.adapter.layout import FILES
from tests.command import Command

TASK = """\
name: mood
kind: classification
template: "Review: {text}\\nSentiment:"
text_column: text
label_column: label
verbalizer: {positive: " good", negative: " bad"}
metrics: [accuracy]
dataset:
  data_files: {train: train.jsonl, dev: dev.jsonl, test: test.jsonl}
"""
CONFIG = """\
task: TASK
base_model: BASE
num_virtual_tokens: 4
max_steps: 2
eval_steps: 1
save_steps: 1
use_cpu: true
output_dir: OUTPUT
"""
WORDS = {"positive": ("great", "love", "fair"), "negative": ("broke", "waste", "bad")}


def write_project(folder: Path, base: Path) -> Path:
    """Write task, data and config, and return the config."""
    rows = [
        {"text": f"The phone is {word}, number {number}.", "label": label}
        for number in range(4)
        for label, words in WORDS.items()
        for word in words
    ]
    for split in ("train", "dev", "test"):
        lines = (json.dumps({**row, "text": f"{split}: {row['text']}"}) for row in rows)
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "mood.yaml").write_text(TASK)
    config = folder / "config.yaml"
    places = {"TASK": folder / "mood.yaml", "BASE": base, "OUTPUT": folder / "run"}
    text = CONFIG
    for name, place in places.items():
        text = text.replace(name, str(place))
    config.write_text(text)
    return config


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qwen3", "t5"])
def test_train_push_list_pull_predict(
    kind: str,
    softhub: Command,
    tiny_base: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = tiny_base(kind)
    config = write_project(tmp_path, base)
    monkeypatch.setenv("SOFTHUB_BASE", str(base))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    trained = softhub("train", "--config", config, "--max-test-examples", 10)
    assert trained.code == 0, trained.err
    assert "10 test examples" in trained.out
    adapter = tmp_path / "run" / "adapter"
    assert {path.name for path in adapter.iterdir()} == set(FILES)

    (run,) = json.loads(softhub("runs", tmp_path, "--json").out)
    assert (run["path"], run["state"], run["task"]) == ("run", "finished", "mood")
    assert run["config"]["max_test_examples"] == 10 and (tmp_path / "run" / "curve.png").is_file()

    assert softhub("push", adapter, "me/mood", "--tag", "v1").code == 0
    (listed,) = json.loads(softhub("list", "--json").out)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert listed["task"] == "mood"
    (row,) = [row for row in report["rows"] if row["name"] == "soft prompt"]
    assert len(report["labels"]["per_class"]["confusion"]) == 2
    assert report["labels"]["decision"]["temperature"] > 0
    assert listed["score"] == ["accuracy", pytest.approx(row["metrics"]["accuracy"]["value"])]
    pulled = Path(softhub("pull", "me/mood", "--revision", "v1").out.strip())
    assert all((pulled / name).read_bytes() == (adapter / name).read_bytes() for name in FILES)

    predicted = softhub("predict", "me/mood", "I would not buy it again.", "--json")
    assert predicted.code == 0, predicted.err
    answer = json.loads(predicted.out)
    assert answer["label"] in WORDS
    assert sum(answer["probabilities"].values()) == pytest.approx(1)


def test_a_task_without_labels_is_sent_elsewhere(
    recipe: Command, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    config = write_project(tmp_path, tiny_base("qwen3"))
    kind = TASK.replace("classification", "generation").replace("[accuracy]", "[chrf]")
    kind = kind.replace("label_column", "target_column")
    lines = [line for line in kind.splitlines() if not line.startswith("verbalizer")]
    (tmp_path / "mood.yaml").write_text("\n".join(lines) + "\n")
    done = recipe("classification", "--config", config, "--examples_per_label=2")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "found generation; expected classification. Use recipes/generation.py" in done.err


def test_few_examples_of_each_label_are_drawn_by_the_seed(
    recipe: Command, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    config = write_project(tmp_path, tiny_base("qwen3"))
    hashes = []
    for seed in (0, 0, 1):
        options = ("--examples_per_label=2", f"--seed={seed}", "--overwrite")
        done = recipe("classification", "--config", config, *options)
        assert done.code == 0, done.err
        report = json.loads((tmp_path / "run" / "report.json").read_text())
        data = report["provenance"]["dataset"]
        assert (data["train"]["examples"], data["dev"]["examples"]) == (4, 4)
        hashes.append(data["train"]["sha256"])
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_mistyped_key_is_one_line_with_the_right_one(
    softhub: Command, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    config = write_project(tmp_path, tiny_base("qwen3"))
    done = softhub("train", "--config", config, "--max_stepz", 3)
    assert (done.code, done.out) == (1, "")
    assert done.err == "error: Unknown option --max-stepz. Did you mean --max-steps?\n"


def test_the_log_of_a_recipe_has_lines_and_no_bars(
    tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    config = write_project(tmp_path, tiny_base("qwen3"))
    script = Path(__file__).parents[2] / "recipes" / "classification.py"
    command = [sys.executable, script, "--config", config, "--init", "random"]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"\r" not in done.stderr and b"%|" not in done.stderr
    assert b"step 2/2" in done.stderr
