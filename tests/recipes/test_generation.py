"""The generation recipe, on a task that `init-task` drafted."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from softhub.tasks.drafting import Choices, draft_task, find_source
from tests.command import Command

SETTINGS = ("max_steps=1", "eval_steps=1", "save_steps=1", "num_virtual_tokens=4", "use_cpu=true")

CODE_TASK = """\
name: write
kind: generation
dataset:
  data_files: {train: ./train.jsonl, dev: ./dev.jsonl, test: ./test.jsonl}
text_column: prompt
target_column: body
test_column: tests
template: "{prompt}"
metrics: [pass_at_1]
"""


def written(folder: Path, task: str, rows: list[dict[str, str]]) -> Path:
    """A task file, and beside it the same rows for each split."""
    for split in ("train", "dev", "test"):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines)
    path = folder / "task.yaml"
    path.write_text(task)
    return path


@pytest.mark.slow
def test_a_drafted_task_is_trained_and_judged(
    recipe: Command, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    data = tmp_path / "titles.jsonl"
    rows = [{"text": f"the sound of day {n} is good", "title": f"day {n}"} for n in range(30)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    draft = draft_task(
        find_source(str(data)), tmp_path / "task.yaml", choices=Choices(target="title"), split=True
    )
    draft.write()

    run = (
        f"--task={draft.path}",
        f"--base_model={tiny_base('t5')}",
        f"--output_dir={tmp_path}/run",
    )
    done = recipe("generation", *run, *(f"--{setting}" for setting in SETTINGS))
    assert done.code == 0, done.err
    assert done.out.count("reference: day ") == 3
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    names = [row["name"] for row in report["rows"]]
    assert names[0] == "copied text" and names[-1] == "soft prompt"
    assert all("chrf" in row["metrics"] for row in report["rows"])
    assert report["config"]["init"] == "vocabulary"


def test_a_task_that_could_not_be_judged_is_refused_before_it_is_trained(
    recipe: Command, tmp_path: Path
) -> None:
    """Its only metric runs code; the base is not even looked for."""
    rows = [{"prompt": f"def f{n}():\n", "body": "    return 1", "tests": ""} for n in range(9)]
    task = written(tmp_path, CODE_TASK, rows)
    run = (f"--task={task}", "--base_model=/nowhere", f"--output_dir={tmp_path}/run")
    done = recipe("generation", *run)
    assert done.code == 1
    assert "pass_at_1" in done.err and "--run-generated-code" in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("left", [(), ("checkpoint-20",), ("restart-1",)])
def test_resuming_without_a_checkpoint_fails_before_the_base_is_loaded(
    recipe: Command, tmp_path: Path, left: tuple[str, ...]
) -> None:
    plain = CODE_TASK.replace("pass_at_1", "chrf").replace("test_column: tests\n", "")
    task = written(tmp_path, plain, [{"prompt": f"Say {n}", "body": "good"} for n in range(9)])
    for name in left:  # incomplete ones
        (tmp_path / "run" / name).mkdir(parents=True)
    run = (f"--task={task}", "--base_model=/nowhere", f"--output_dir={tmp_path}/run", "--resume")
    done = recipe("generation", *run)
    assert (done.code, done.out) == (1, "")
    assert "Nothing to resume in" in done.err and "/nowhere" not in done.err


def test_the_base_of_a_recipe_may_come_from_the_environment(
    recipe: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = CODE_TASK.replace("pass_at_1", "chrf").replace("test_column: tests\n", "")
    task = written(tmp_path, plain, [{"prompt": f"Say {n}", "body": "good"} for n in range(9)])
    run = (f"--task={task}", f"--output_dir={tmp_path}/run")
    monkeypatch.delenv("SOFTHUB_BASE", raising=False)
    refused = recipe("generation", *run)
    assert refused.code == 1
    assert "there is no base model" in refused.err and "SOFTHUB_BASE" in refused.err
    monkeypatch.setenv("SOFTHUB_BASE", "/nowhere/at-all")
    assert "/nowhere/at-all" in recipe("generation", *run).err


def test_a_text_to_start_from_is_a_flag(
    recipe: Command, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    plain = CODE_TASK.replace("pass_at_1", "chrf").replace("test_column: tests\n", "")
    task = written(tmp_path, plain, [{"prompt": f"Say {n}", "body": "good"} for n in range(9)])
    run = (f"--task={task}", f"--base_model={tiny_base('llama')}", f"--output_dir={tmp_path}/run")
    settings = (f"--{setting}" for setting in SETTINGS)
    start = ("--init=text", "--init_text=great value")
    done = recipe("generation", *run, *settings, "--max_restarts=0", *start)
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["config"]["init_text"] == "great value"
    assert report["training"]["init"] == "text"


def test_a_reference_text_that_cannot_be_scored_is_refused_before_training(
    recipe: Command, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    plain = CODE_TASK.replace("pass_at_1", "chrf, perplexity").replace("test_column: tests\n", "")
    task = written(tmp_path, plain, [{"prompt": f"Say {n}", "body": "good"} for n in range(9)])
    with (tmp_path / "test.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "Say all", "body": "good " * 600}) + "\n")
    run = (f"--task={task}", f"--base_model={tiny_base('llama')}", f"--output_dir={tmp_path}/run")
    done = recipe("generation", *run, *(f"--{setting}" for setting in SETTINGS))
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert f"{tmp_path}/test.jsonl, line 10: " in done.err and "shorten its 'body'" in done.err
    assert not (tmp_path / "run").exists()
