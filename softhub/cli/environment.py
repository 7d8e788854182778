"""`softhub env`: versions, hardware and paths for a bug report."""

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
    *("torch", "transformers", "peft", "accelerate", "datasets", "evaluate"),
    *("huggingface-hub", "safetensors", "typer", "gguf"),
)


def env(as_json: JsonOption = False) -> None:
    """Show versions, hardware and paths for a bug report.

    Access tokens are never shown.
    """
    facts = {**_versions(), **_hardware(), **_paths()}
    if as_json:
        emit_json(facts)
    else:
        emit_facts([*facts.items()])


def _versions() -> dict[str, Any]:
    return {
        "softhub": softhub.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{package: _version(package) for package in _PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _hardware() -> dict[str, Any]:
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("Apple GPU (mps)")
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch threads": torch.get_num_threads(),
        "accelerators": ", ".join(names) or "none",
    }


def _paths() -> dict[str, Any]:
    from huggingface_hub.constants import HF_HOME

    return {
        "executable": sys.executable,
        "softhub home": str(softhub_home()),
        "hub": os.environ.get("SOFTHUB_HUB") or "local",
        "base": os.environ.get("SOFTHUB_BASE") or "not set",
        "hugging face home": HF_HOME,
    }
