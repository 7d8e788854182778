"""What the README shows is what the code does."""

import re
import subprocess
import sys
from pathlib import Path

from softhub.hub import Hub
from softhub.model.base import load_base
from softhub.tasks import Task
from tests.adapters import untrained_prompt

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DEMO_BASE = "recipes/data/files/SmolLM2-135M-Instruct.Q4_1.gguf"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_example_runs_as_it_stands(tiny_base, tmp_path):
    """Only the base is another one: a tiny one, where the README has the demo's."""
    folder = tiny_base("llama")
    task = Task.from_file(ROOT / "recipes/tasks/sentiment.yaml")
    prompt = untrained_prompt(load_base(folder), task)
    Hub().push(prompt.save_pretrained(tmp_path / "adapter"), "demo/sentiment")
    code = blocks("python")[0]
    assert DEMO_BASE in code
    assert len(code.strip().splitlines()) <= 10
    done = subprocess.run(
        [sys.executable, "-c", code.replace(DEMO_BASE, folder.as_posix())],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == [
        "It broke after two days.",
        "Worth every penny.",
    ]
    assert all(re.match(r"(positive|negative) \(\d\.\d\d\): ", line) for line in lines)


def test_every_link_leads_to_a_file():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_every_command_line_names_verbs_and_files_that_exist():
    from typer.main import get_command

    from softhub.cli.app import app

    verbs = set(get_command(app).commands)
    shown = [line for block in blocks("bash") for line in block.splitlines()]
    used = {line.split()[1] for line in shown if line.startswith("softhub ")}
    assert used
    assert used <= verbs
    makefile = (ROOT / "Makefile").read_text()
    doors = {line.split()[1] for line in shown if line.startswith("make ")}
    assert {"demo", "test"} <= doors
    assert all(f"\n{door}:" in makefile for door in doors)
