"""Where a prompt comes from, for its manifest: data, seed, settings, versions, commit."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PromptTuningConfig

from softhub._version import __version__
from softhub.adapter.manifest import Manifest
from softhub.model.base import BaseModel
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Example, Task, dataset_hash
from softhub.training.arguments import PromptTrainingArguments

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets")

Splits = tuple[Sequence[Example], Sequence[Example]]
"""Training and dev examples."""


def manifest_of(
    base: BaseModel,
    vectors: torch.Tensor,
    *,
    task: Task | None,
    provenance: Mapping[str, Any],
) -> Manifest:
    """The manifest of a freshly trained prompt.

    Args:
        base: The base that it was trained on.
        vectors: Its vectors `[P, H]`.
        task: What it predicts; None for a prompt of several tasks, which is a start for others.
        provenance: From `provenance_of`.

    Returns:
        The manifest, without scores.
    """
    return Manifest(
        base_model=base.name,
        base_revision=base.revision,
        base_quantization=base.quantization,
        fingerprint=base.fingerprint,
        task_type=base.task_type,
        num_virtual_tokens=vectors.shape[0],
        hidden_size=vectors.shape[1],
        task=task.to_record() if task else None,
        provenance=provenance,
        metrics=(),
        license=None,
        files={},
        softhub_version=__version__,
    )


def provenance_of(
    args: PromptTrainingArguments, config: PromptTuningConfig, init: str | SoftPrompt | None
) -> dict[str, Any]:
    """What does not depend on the data: seed, start, settings, versions, the recipe's commit."""
    start: Any = init or str(getattr(config.prompt_tuning_init, "value", "RANDOM")).lower()
    if isinstance(init, SoftPrompt):
        start = {"parent": dict(init.manifest.files)}
    return {
        "seed": args.seed,
        "init": start,
        "training": args.to_provenance(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "code": checkout_record(recipe_folder()),
    }


def dataset_record(task: Task, splits: Splits) -> dict[str, Any]:
    """What was learned from: where a task's data come from, and their hashes."""
    train, dev = splits
    source = task.dataset
    return {
        "id": source.path if source else None,
        "name": source.name if source else None,
        "revision": source.revision if source else None,
        "source": source.source if source else None,
        "license": source.license if source else None,
        "train": {"examples": len(train), "sha256": dataset_hash(train)},
        "dev": {"examples": len(dev), "sha256": dataset_hash(dev)},
    }


_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SECONDS = 10  # `git status` of a huge checkout on a slow disk; a run is not held up for longer


def recipe_folder() -> Path:
    """The folder of the script that runs, or the working directory.

    The latter for what Python's own environment holds (an installed recipe, a notebook's kernel):
    there the settings and data of the run are in the working directory.
    """
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    folder = Path(script).resolve().parent if script else None
    installed = folder is not None and (
        folder.is_relative_to(Path(sys.prefix).resolve()) or "site-packages" in folder.parts
    )
    return Path.cwd() if folder is None or installed else folder


def checkout_record(folder: Path) -> dict[str, Any] | None:
    """The commit that is checked out there.

    Args:
        folder: A folder, perhaps within a git checkout.

    Returns:
        `commit`, and `dirty`: whether a tracked file differs from it (None if git does not say in
        time). None where there is no checkout, no commit or no git. Never a path or an address.
    """
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if commit is None or not _COMMIT.fullmatch(commit):
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None if it fails. It takes no locks and starts no file monitor."""
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(folder)]
    try:
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def peak_memory() -> int:
    """Largest resident memory of this process in bytes (CPU), or of the GPU."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
