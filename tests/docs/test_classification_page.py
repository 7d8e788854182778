"""The page about classification: its task files are task files."""

import re
from pathlib import Path

import pytest
import yaml

from softhub.tasks import Task

PAGE = Path(__file__).parents[2] / "docs" / "classification.md"
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
TASKS = [block for block in BLOCKS if block.startswith("name:")]


@pytest.mark.parametrize("block", TASKS)
def test_the_tasks_shown_are_tasks(block: str, tmp_path: Path) -> None:
    rule = next(block for block in BLOCKS if block.startswith("decision:"))
    file = tmp_path / "task.yaml"
    file.write_text(block + rule)
    task = Task.from_file(file)
    assert task.decision.abstain_below == 0.8
    assert task.class_weights == ("balanced" if not task.multilabel else None)
    assert task.metrics == tuple(yaml.safe_load(block)["metrics"])


def test_both_kinds_are_shown() -> None:
    assert len(TASKS) == 2
