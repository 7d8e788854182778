"""The table of what ran where, and the README's sentence, follow benchmarks/results."""

import json
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "generate_hardware.py"


@pytest.fixture(scope="module")
def generate():
    spec = spec_from_file_location("generate_hardware", SCRIPT)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def result(**changes):
    parts = {
        "prefill, 1B": {"passed": True, "summary": "1.02 of bare"},
        "demo base": {"skipped": "its files are not there"},
        "compiled step": {"error": "OutOfTime: a | b"},
        "many prompts": {"passed": False, "summary": "0.5"},
    }
    about = {"dry_run": False, "date": "2026-11-27", "device": "NVIDIA X1", "parts": parts}
    packages = {name: "1.0" for name in ("torch", "transformers", "peft", "accelerate")}
    machine = {"packages": packages, "python": "3.11", "cpu": "C", "gpu": "NVIDIA X1", "cuda": "13"}
    return {**about, **machine, **changes}


def write(folder, name, record):
    (folder / f"gpu_check-{name}.json").write_text(json.dumps(record))


def test_the_committed_pages_are_current():
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_dry_run_is_never_taken_for_a_gpu(generate, tmp_path):
    write(tmp_path, "dry-run", result(dry_run=True, gpu=None))
    texts = generate.render(tmp_path)
    assert "| prefill, 1B | ran | **not run** |" in texts["gpu check"]
    assert "1.02" not in texts["gpu check"]  # times of tiny models mean nothing
    assert "**not run** yet" in texts["hardware"]


def test_a_gpu_result_fills_its_column_and_the_sentence(generate, tmp_path):
    write(tmp_path, "dry-run", result(dry_run=True, gpu=None))
    write(tmp_path, "nvidia-x1", result())
    texts = generate.render(tmp_path)
    lines = texts["gpu check"].splitlines()
    assert lines[0].endswith("| NVIDIA X1, 2026-11-27 |")
    assert "| prefill, 1B | ran | 1.02 of bare |" in lines
    assert lines[3].endswith("| **not run**: its files are not there |")
    assert lines[4].endswith("| failed: OutOfTime: a \\| b |")
    assert lines[5].endswith("| **failed**: 0.5 |")
    assert lines[-1].startswith("- NVIDIA X1, 2026-11-27: CUDA 13, torch 1.0, ")
    assert texts["hardware"] == "`make gpu-check` ran on NVIDIA X1 (2 parts failed)"
