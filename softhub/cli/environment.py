"""`softhub env`: what a bug report needs."""

import importlib.metadata
import os
import platform
import sys
from typing import Any

import softhub
from softhub.cli.options import JsonOption
from softhub.cli.output import emit_facts, emit_json
from softhub.config import softhub_home

_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "evaluate",
    "huggingface-hub",
    "safetensors",
    "typer",
    "gguf",
)


def env(as_json: JsonOption = False) -> None:
    """Show versions, hardware and paths, for a bug report.

    No token is ever shown.
    """
    facts = {**_versions(), **_hardware(), **_paths()}
    if as_json:
        emit_json(facts)
    else:
        emit_facts([(name, str(value)) for name, value in facts.items()])


def _versions() -> dict[str, Any]:
    versions = {
        "softhub": softhub.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _hardware() -> dict[str, Any]:
    import torch

    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch threads": torch.get_num_threads(),
        "accelerators": ", ".join(_accelerators(torch)) or "none",
    }


def _accelerators(torch: Any) -> list[str]:
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return names + (["Apple GPU (mps)"] if torch.backends.mps.is_available() else [])


def _paths() -> dict[str, Any]:
    from huggingface_hub.constants import HF_HOME

    return {
        "executable": sys.executable,
        "softhub home": str(softhub_home()),
        "hub": os.environ.get("SOFTHUB_HUB") or "local",
        "base": os.environ.get("SOFTHUB_BASE") or "not set",
        "hugging face home": HF_HOME,
    }
