"""train: the script runs under Accelerate with its arguments, and its end is the command's end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import Command

RECORDS_ITS_RUN = """
import json, os, sys
from pathlib import Path
Path(__file__).with_suffix(".json").write_text(json.dumps(
    {"argv": sys.argv[1:], "accelerate": "ACCELERATE_MIXED_PRECISION" in os.environ}))
"""

SAVES_WHEN_INTERRUPTED = """
import sys, time
from pathlib import Path
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.5)
    Path(__file__).with_suffix(".saved").write_text("resumable")
    sys.exit("interrupted; --resume goes on")
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config file, which only the recipe reads."""
    file = tmp_path / "my.yaml"
    file.write_text("max_steps: 3\n")
    return file


def test_arguments_reach_the_recipe_under_accelerate(
    softhub: Command, tmp_path: Path, config: Path
) -> None:
    script = tmp_path / "recipe.py"
    script.write_text(RECORDS_ITS_RUN)
    done = softhub(
        "train", "--config", config, "--recipe", script, "--max_steps", 60, "--tags", "a", "b"
    )
    assert done.code == 0, done.err
    record = json.loads(script.with_suffix(".json").read_text())
    assert record["argv"] == ["--config", str(config), "--max_steps", "60", "--tags", "a", "b"]
    assert record["accelerate"]


def test_exit_code_of_the_recipe_is_passed_on(
    softhub: Command, tmp_path: Path, config: Path
) -> None:
    script = tmp_path / "recipe.py"
    script.write_text("import sys; sys.exit(7)")
    assert softhub("train", "--config", config, "--recipe", script).code == 7


def test_missing_config_and_unknown_recipe(softhub: Command, tmp_path: Path, config: Path) -> None:
    assert softhub("train", "--config", tmp_path / "missing.yaml").code == 2
    unknown = softhub("train", "--config", config, "--recipe", "clasification")
    assert unknown.code == 1
    assert "There is no recipe 'clasification'" in unknown.err
    missing = softhub("train", "--config", config, "--recipe", tmp_path / "missing.py")
    assert missing.code == 1
    assert "missing.py" in missing.err


@pytest.mark.skipif(os.name == "nt", reason="sends a signal to a group of processes")
def test_ctrl_c_waits_until_the_recipe_has_saved(tmp_path: Path, config: Path) -> None:
    script = tmp_path / "recipe.py"
    script.write_text(SAVES_WHEN_INTERRUPTED)
    entry = "from softhub.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", entry, "train", "--config", config, "--recipe", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate()
    assert script.with_suffix(".saved").read_text() == "resumable"
    assert process.returncode == 130
    assert err == "interrupted; --resume goes on\n"
