"""What the README shows is what the code does."""

import ast
import csv
import os
import re
import subprocess
import sys
from pathlib import Path

from softhub.hub import Hub

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FEW_STEPS = "max_steps=4, eval_steps=4, save_steps=4, max_restarts=0"
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_screen_of_python_runs_as_it_is(tiny_base, tmp_path):
    """Only the base model is a tiny one, the reviews are a few made rows, and steps are few."""
    words = {"positive": ("great", "good", "fair"), "negative": ("broken", "bad", "a waste")}
    for split in ("train", "test"):
        with (tmp_path / f"{split}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("text", "label"))
            for number in range(8):
                for label, adjectives in words.items():
                    rows = ((f"{split} {number}: it is {word}", label) for word in adjectives)
                    writer.writerows(rows)
    code = blocks("python")[0].replace(BASE, tiny_base("llama").as_posix())
    code = code.replace('init="auto")', f'init="auto", args=PromptTrainingArguments({FEW_STEPS}))')
    assert FEW_STEPS in code
    done = subprocess.run(
        [sys.executable, "-c", f"from softhub import PromptTrainingArguments\n{code}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    scores, *answers, texts = done.stdout.strip().splitlines()[-4:]
    assert scores.startswith("Interval(value=")
    assert [line.rpartition(": ")[2] for line in answers] == [
        "It broke after two days.",
        "Worth every penny.",
    ]
    assert all(re.match(r"(positive|negative) \(\d\.\d\d\): ", line) for line in answers)
    assert len(ast.literal_eval(texts)) == 2
    assert Hub().info("me/sentiment").tags


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
