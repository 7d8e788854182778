"""The Python of the user guide runs as it is: only base, data and steps are smaller ones."""

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"
DEMO_BASES = (
    "HuggingFaceTB/SmolLM2-135M-Instruct",
    "recipes/data/files/SmolLM2-135M-Instruct.Q4_1.gguf",
    "./my-base",
)
FEW_STEPS = "max_steps=2, eval_steps=1, save_steps=1, max_restarts=0, use_cpu=True"
ARGUMENTS = f"args=PromptTrainingArguments({FEW_STEPS})"
NO_ARGUMENTS = {'init="auto")': f'init="auto", {ARGUMENTS})'}
TASK = """\
name: {name}
kind: classification
dataset:
  data_files: {{train: {folder}/train.csv, dev: {folder}/dev.csv, test: {folder}/test.csv}}
text_column: text
label_column: label
template: "Review: {{text}}\\nSentiment:"
verbalizer: {{positive: " positive", negative: " negative"}}
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::softhub.errors.SoftHubWarning"),  # too few steps to learn
]
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a block of a page, in a folder with a few rows and tasks."""
    base = tiny_base("llama").as_posix()
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)

    def run_block(
        page: str, number: int, changes: dict[str, str], scope: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        text = (DOCS / page).read_text(encoding="utf-8")
        code = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)[number]
        for found, replacement in changes.items():
            assert found in code
            code = code.replace(found, replacement)
        for name in DEMO_BASES:
            code = code.replace(name, base)
        scope = {} if scope is None else scope
        exec("from softhub import PromptTrainingArguments", scope)
        exec(compile(code, page, "exec"), scope)
        return scope

    return run_block


def write_data(folder: Path) -> None:
    for split in ("train", "dev", "test"):
        with (folder / f"{split}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("text", "label"))
            for number in range(12):
                writer.writerow((f"{split} {number} was great", "positive"))
                writer.writerow((f"{split} {number} was bad", "negative"))
    tasks = folder / "recipes" / "tasks"
    tasks.mkdir(parents=True)
    for name in ("sentiment", "translation", "summarization", "code"):
        text = TASK.format(name=name, folder="../..")
        (tasks / f"{name}.yaml").write_text(text, encoding="utf-8")
    text = TASK.format(name="triage", folder=".")
    (folder / "triage.yaml").write_text(text, encoding="utf-8")


def test_the_start_page_and_the_calibration_and_use_of_its_prompt(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run("index.md", 0, NO_ARGUMENTS)
    scores, label = capsys.readouterr().out.splitlines()[-2:]
    assert scores.startswith("Interval(value=")
    assert label in ("positive", "negative")
    changes = {"runs/triage/adapter": "sentiment-adapter", "accuracy=0.95": "accuracy=0.1"}
    run("classification.md", 0, changes)
    assert Path("runs/triage/calibrated/softhub.json").is_file()
    paths = {"runs/reviews/adapter": "sentiment-adapter"}
    scope = run("large_files.md", 0, paths | {"reviews.csv": "test.csv"})
    assert {*scope["scored"]["predicted_label"]} <= {"positive", "negative"}
    run("large_files.md", 1, paths | {"runs/triage/adapter": "runs/triage/calibrated"}, scope)
    assert scope["answers"]["error"] == ["", ""]


def test_the_recipe_of_classification(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("recipes/classification.md", 0, {"max_steps=120": FEW_STEPS})
    assert "zero-shot" in capsys.readouterr().out
    assert Path("runs/sentiment/report.json").is_file()


def test_training_and_its_report(run: Run) -> None:
    scope = run("training.md", 0, NO_ARGUMENTS)
    run("training.md", 1, {"max_steps=200": FEW_STEPS}, scope)
    run("training.md", 2, {"candidates=found)": f"candidates=found, {ARGUMENTS})"}, scope)
    prefix = run("training.md", 3, {'init="task")': f'init="task", {ARGUMENTS})'}, {**scope})
    assert prefix["result"].prompt.prompt_type == "prefix"
    run("runs.md", 0, NO_ARGUMENTS, {**scope, "data": scope["splits"]})
    assert Path("runs/sentiment/curve.png").is_file()


def test_a_prompt_for_each_task(run: Run) -> None:
    steps = {"[120, 120, 60]": "[2, 1, 2]", "eval_steps=40, save_steps=40": FEW_STEPS}
    results = run("recipes/multitask.md", 1, steps)["results"]
    assert [result.steps for result in results] == [2, 1, 2]
