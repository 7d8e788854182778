"""The hardware and package versions of the machine that computed a result."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from softhub._version import __version__

_PACKAGES = (
    *("torch", "transformers", "peft", "accelerate", "datasets", "evaluate", "numpy"),
    *("huggingface-hub", "safetensors", "typer", "gguf"),
)


def machine() -> dict[str, Any]:
    """Return the hardware and versions on which times, and the last digits of scores, depend."""
    import torch

    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("Apple GPU (mps)")
    return {
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerators": devices or None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "softhub": __version__,
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
