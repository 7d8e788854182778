"""The generation recipe, on a task that `init-task` drafted."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from softhub.tasks.drafting import draft_task, find_source
from tests.command import Command

SETTINGS = ("max_steps=1", "eval_steps=1", "save_steps=1", "num_virtual_tokens=4", "use_cpu=true")


@pytest.mark.slow
def test_a_drafted_task_is_trained_and_judged(
    recipe: Command, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    data = tmp_path / "titles.jsonl"
    rows = [{"text": f"the sound of day {n} is good", "title": f"day {n}"} for n in range(30)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    draft = draft_task(find_source(str(data)), tmp_path / "task.yaml", split=True)
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
    assert all("rougeL" in row["metrics"] for row in report["rows"])
    assert report["config"]["init"] == "vocabulary"
