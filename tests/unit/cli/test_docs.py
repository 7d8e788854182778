"""docs/cli.md says what the code does."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "docs" / "generate_cli.py"


def test_reference_is_current() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_reference_leaves_no_verb_out() -> None:
    from tests.unit.cli.test_entry import LEAVES

    page = SCRIPT.with_name("cli.md").read_text(encoding="utf-8")
    assert all(f"## `softhub {' '.join(verb)}`" in page for verb in LEAVES)
