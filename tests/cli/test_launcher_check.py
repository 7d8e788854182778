"""A launcher that starts fewer processes than it was asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from softhub.cli.launcher_check import warn_of_missing_processes

LAUNCH = [str(Path(sys.executable).parent / "accelerate"), "launch", "--cpu"]


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["--num_processes=2", "--num-processes 2", ""])
def test_a_recipe_says_that_fewer_processes_run_than_were_asked_for(tmp_path, asked):
    script = tmp_path / "recipe.py"
    script.write_text("from softhub.cli import run_recipe\nrun_recipe(lambda: None)\n")
    command = [*LAUNCH, *asked.split(), str(script), "--num_processes", "9"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stderr
    told = "2 processes were asked for and 1 runs" in done.stderr
    assert told == bool(asked)
    assert "9 processes" not in done.stderr


def test_without_a_launcher_nothing_is_said(capsys):
    warn_of_missing_processes()
    assert capsys.readouterr().err == ""
