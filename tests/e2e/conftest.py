"""The demo's base model, fetched once."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def demo_base_file():
    """Path of the demo base's GGUF file; skips where it can neither be found nor fetched."""
    script = ROOT / "recipes" / "data" / "demo_base.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"the demo base cannot be fetched: {done.stderr.strip().splitlines()[-1]}")
    return ROOT / "recipes" / "data" / "files" / "SmolLM2-135M-Instruct.Q4_1.gguf"
