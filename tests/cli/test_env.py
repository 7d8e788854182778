"""env: enough for a bug report, and no secret."""

import importlib.metadata
import json

import pytest

from tests.command import Command


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
