"""A soft prompt in memory, and its way from and to an adapter folder."""

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import torch

from softhub._version import __version__
from softhub.adapter import layout
from softhub.adapter.adapter import Adapter
from softhub.adapter.card import render_card
from softhub.adapter.manifest import Manifest
from softhub.adapter.portable import UNKNOWN_BASE, portable_base_name, without_local_paths
from softhub.adapter.validation import check_files, check_folder
from softhub.errors import IncompatiblePrompt, InvalidArtefact, SoftHubWarning
from softhub.model.base import BaseModel
from softhub.model.fingerprint import compare_fingerprints


@dataclasses.dataclass(frozen=True, eq=False)
class SoftPrompt:
    """The learned vectors that stand before a text, and what is known about them.

    Attributes:
        vectors: `[P, H]`, float32 on the CPU; a copy of what was given, so that training on does
            not change it.
        manifest: Base model, task, scores, provenance.
    """

    vectors: torch.Tensor
    manifest: Manifest

    def __post_init__(self) -> None:
        """Copy the vectors and check them against the manifest.

        Raises:
            InvalidArtefact: They are no finite `[P, H]` matrix of the manifest's size.
        """
        vectors = self.vectors.detach().to("cpu", torch.float32, copy=True).contiguous()
        expected = (self.manifest.num_virtual_tokens, self.manifest.hidden_size)
        if vectors.shape != expected:
            raise InvalidArtefact(
                f"The vectors have shape {list(vectors.shape)}; expected {list(expected)}, the "
                "manifest's num_virtual_tokens and hidden_size. Correct one of the two."
            )
        if not bool(vectors.isfinite().all()):
            raise InvalidArtefact(
                "The vectors hold NaN or infinite numbers; expected finite ones. Training went "
                "wrong: lower the learning rate."
            )
        object.__setattr__(self, "vectors", vectors)

    @property
    def num_virtual_tokens(self) -> int:
        """P, the number of virtual tokens."""
        return self.manifest.num_virtual_tokens

    @property
    def hidden_size(self) -> int:
        """H, the width of the base model's input embeddings."""
        return self.manifest.hidden_size

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "SoftPrompt":
        """Read an adapter folder of softhub's or of plain PEFT's.

        Of an encoder-decoder adapter with two submodules, `[2P, H]`, the first half is read: it
        is what PEFT puts before the encoder's input, and the only half that it trains.

        Args:
            folder: The adapter's folder; for one on a hub, pull it first.

        Raises:
            InvalidArtefact: The folder is missing, damaged or hostile.
            UnsupportedAdapter: It holds a sound adapter of another kind.
        """
        adapter = check_folder(folder)
        rows = torch.from_numpy(adapter.vectors)  # [P, H], or [2P, H]
        manifest = adapter.manifest or _foreign_manifest(adapter)
        return cls(vectors=rows[: manifest.num_virtual_tokens], manifest=manifest)

    def check_fits(self, base: BaseModel, *, force: bool = False) -> None:
        """Refuse a base that the prompt was not made for; warn where that cannot be told.

        Args:
            base: The base model at hand.
            force: Only warn, if the base is at least of the same width.

        Raises:
            IncompatiblePrompt: It was made for another base.
        """
        made_for = f"This prompt was made for {self.manifest.base_model}"
        width, task_type = self.vectors.shape[1], self.manifest.task_type
        if width != base.hidden_size or task_type != base.task_type:
            raise IncompatiblePrompt(
                f"{made_for} (width {width}, {task_type}) and cannot run on {base.name} "
                f"(width {base.hidden_size}, {base.task_type}): load the base it was made for."
            )
        verdict = compare_fingerprints(self.manifest.fingerprint, base.fingerprint)
        message = f"{made_for}; the base at hand is {base.name}: {verdict.reason}."
        if verdict.kind == "different" and not force:
            raise IncompatiblePrompt(f"{message} Load that base, or pass force=True (--force).")
        if verdict.kind != "exact":
            warnings.warn(message, SoftHubWarning, stacklevel=3)

    def save_pretrained(self, folder: str | Path, *, card: str | None = None) -> Path:
        """Write the adapter's four files, all or none; equal prompts give equal bytes.

        Plain PEFT reads the folder. Local paths in the provenance are cut to their last part.

        Args:
            folder: Where to write; an adapter that is there is replaced.
            card: Text of `README.md`, instead of the one made from the manifest.

        Returns:
            The folder.

        Raises:
            InvalidArtefact: The folder holds other things, or what would be written is not a
                sound adapter (too large, control characters in the card, …).
        """
        from safetensors.torch import save

        files = {
            layout.CONFIG: _config_bytes(self.manifest),
            layout.WEIGHTS: save({layout.WEIGHTS_KEY: self.vectors}, metadata={"format": "pt"}),
        }
        manifest = dataclasses.replace(
            self.manifest,
            provenance=without_local_paths(self.manifest.provenance),
            files={name: layout.sha256_of(data) for name, data in files.items()},
        )
        files[layout.MANIFEST] = manifest.to_bytes()
        files[layout.CARD] = (render_card(manifest) if card is None else card).encode()
        check_files(files, origin=str(folder))
        return layout.write_atomically(Path(folder), files)


def _config_bytes(manifest: Manifest) -> bytes:
    """Return `adapter_config.json` as PEFT itself would write it for this prompt.

    The initialisation says RANDOM whatever training began with: PEFT would otherwise ask for a
    tokenizer that is not in the folder.
    """
    from peft import PromptTuningConfig, PromptTuningInit

    unnamed = manifest.base_model == UNKNOWN_BASE
    config = PromptTuningConfig(
        task_type=manifest.task_type,
        base_model_name_or_path=None if unnamed else manifest.base_model,
        revision=manifest.base_revision,
        inference_mode=True,
        num_virtual_tokens=manifest.num_virtual_tokens,
        token_dim=manifest.hidden_size,
        num_transformer_submodules=1,
        prompt_tuning_init=PromptTuningInit.RANDOM,
    )
    record: dict[str, Any] = config.to_dict()
    return (json.dumps(record, indent=2, sort_keys=True) + "\n").encode()


def _foreign_manifest(adapter: Adapter) -> Manifest:
    """Return what plain PEFT's config tells; the rest is unknown."""
    config = adapter.config
    revision = config.get("revision")
    return Manifest(
        base_model=portable_base_name(config.get("base_model_name_or_path")),
        task_type=config["task_type"],
        num_virtual_tokens=config["num_virtual_tokens"],
        hidden_size=adapter.shape[1],
        base_revision=revision if isinstance(revision, str) and revision else None,
        base_quantization=None,
        fingerprint=None,
        task=None,
        provenance={},
        metrics=(),
        license=None,
        files={},
        softhub_version=__version__,
    )
