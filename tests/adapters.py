"""Soft prompts for tests that need one but do not train it."""

import torch

from softhub._version import __version__
from softhub.adapter.manifest import Manifest
from softhub.model.prompt import SoftPrompt


def untrained_prompt(base, task=None, *, tokens=4, seed=0):
    """A prompt of random vectors for `base`, with the manifest that training would write."""
    generator = torch.Generator().manual_seed(seed)
    return SoftPrompt(
        vectors=torch.randn(tokens, base.hidden_size, generator=generator),
        manifest=Manifest(
            base_model=base.name,
            task_type=base.task_type,
            num_virtual_tokens=tokens,
            hidden_size=base.hidden_size,
            base_revision=base.revision,
            base_quantization=base.quantization,
            fingerprint=base.fingerprint,
            task=task.to_record() if task else None,
            provenance={},
            metrics=(),
            license=None,
            files={},
            softhub_version=__version__,
        ),
    )
