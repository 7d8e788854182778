"""env: enough for a bug report, and no secret."""

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command import Command
from tests.tiny import SLIDING_WINDOW


def test_versions_hardware_and_paths(softhub: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    done = softhub("env", "--json")
    record = json.loads(done.out)
    assert record["torch"] == importlib.metadata.version("torch")
    assert record["cpus"] >= 1
    assert record["hub"] == "local"
    assert "hf_secret" not in done.out
    shown = softhub("env").out
    assert all(name in shown for name in record)


def test_what_a_base_computes_exactly(softhub: Command, tiny_base: Callable[[str], Path]) -> None:
    base = str(tiny_base("mistral"))
    record = json.loads(softhub("env", "--base", base, "--json").out)
    assert record["soft prompts"] == "exact"
    assert record["prompt in a batch"] == "shared"
    assert record["prefixes"].startswith("refused: it has sliding windows")
    assert record["tested again beyond"] == f"{SLIDING_WINDOW} tokens"
    assert "not packed" not in record.values()
    shown = softhub("env", "--base", base).out
    assert all(name in shown for name in record)
