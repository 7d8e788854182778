"""docs/cli.md says what the code does."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "generate_cli.py"


def test_reference_is_current() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, SCRIPT, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def test_reference_leaves_no_verb_out() -> None:
    from tests.cli.test_entry import LEAVES

    page = SCRIPT.with_name("cli.md").read_text(encoding="utf-8")
    assert all(f"## `softhub {' '.join(verb)}`" in page for verb in LEAVES)
