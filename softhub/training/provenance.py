"""Provenance of a prompt, for its manifest: data, seed, settings, versions, commit, memory."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from softhub._version import __version__
from softhub.adapter.manifest import Manifest, PrefixShape
from softhub.model.base import BaseModel
from softhub.tasks import Example, Task, dataset_hash
from softhub.training.arguments import PromptTrainingArguments

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SECONDS = 10  # `git status` may take long in a huge repository on a slow disk


def manifest_of(
    base: BaseModel,
    vectors: torch.Tensor,
    *,
    task: Task | None,
    provenance: Mapping[str, Any],
    prefix: PrefixShape | None = None,
) -> Manifest:
    """Return the manifest of a freshly trained prompt.

    Args:
        base: The base that it was trained on.
        vectors: Its vectors, `[P, H]` or of a prefix `[P, width]`.
        task: What it predicts; None for a prompt of several tasks, which others start from.
        provenance: From `provenance_of`.
        prefix: How a row of a prefix is divided; None for a prompt.

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
        hidden_size=vectors.shape[1] if prefix is None else None,
        prefix=prefix,
        task=task.to_record() if task else None,
        provenance=provenance,
        metrics=(),
        license=None,
        files={},
        softhub_version=__version__,
    )


def provenance_of(
    args: PromptTrainingArguments, init: str | Mapping[str, Any], *, rule: str | None
) -> dict[str, Any]:
    """Return what does not depend on the data: seed, initialization, settings, versions, commit.

    Args:
        args: The training arguments, with the learning rate that was used.
        init: The initialization, as `Initialization.to_record` gives it.
        rule: The rule that chose the learning rate, if one did.
    """
    return {
        "seed": args.seed,
        "init": init,
        "training": args.to_provenance(rule),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "code": git_record(script_folder()),
    }


def dataset_record(task: Task, train: Sequence[Example], dev: Sequence[Example]) -> dict[str, Any]:
    """Return where the data of a task comes from, with the size and the hash of each split."""
    keys = {"id": "path", "name": "name", "revision": "revision"}
    keys |= {"source": "source", "license": "license"}
    return {
        **{key: getattr(task.dataset, name, None) for key, name in keys.items()},
        "train": {"examples": len(train), "sha256": dataset_hash(train)},
        "dev": {"examples": len(dev), "sha256": dataset_hash(dev)},
    }


def script_folder() -> Path:
    """Return the folder of the script that runs, or the working directory.

    For an installed script or a notebook's kernel, which are in Python's own environment, it is the
    working directory: that is where the settings and the data of the run are.
    """
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    folder = Path(script).resolve().parent if script else None
    installed = folder is not None and (
        folder.is_relative_to(Path(sys.prefix).resolve()) or "site-packages" in folder.parts
    )
    return Path.cwd() if folder is None or installed else folder


def git_record(folder: Path) -> dict[str, Any] | None:
    """Return the git commit of a folder, and whether its files differ from it.

    Returns:
        `commit`, and `dirty`: whether a tracked file was changed (None if git takes too long). None
        where there is no repository, no commit or no git. Never a path or an address.
    """
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if commit is None or not _COMMIT.fullmatch(commit):
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git prints, None if it fails. It takes no locks and starts no file monitor."""
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(folder)]
    try:
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def peak_memory() -> int:
    """Return the largest resident memory of this process in bytes, or that of the GPU."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
