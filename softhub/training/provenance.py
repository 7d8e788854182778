"""Where a prompt comes from, for its manifest: data, seed, settings, versions, commit."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import PromptTuningConfig

from softhub._version import __version__
from softhub.adapter.manifest import Manifest
from softhub.model.base import BaseModel
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Example, Task, dataset_hash
from softhub.training.arguments import PromptTrainingArguments
from softhub.training.checkout import checkout_record, recipe_folder

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
