"""A soft prompt in memory; read from and written to an adapter folder."""

import dataclasses
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from softhub._version import __version__
from softhub.adapter import layout
from softhub.adapter.adapter import Adapter
from softhub.adapter.card.render import render_card
from softhub.adapter.manifest import Manifest
from softhub.adapter.portable import UNKNOWN_BASE, portable_base_name, without_local_paths
from softhub.adapter.validation import check_files, check_folder
from softhub.errors import IncompatiblePrompt, InvalidAdapter, SoftHubWarning
from softhub.model.base import BaseModel
from softhub.model.fingerprint import compare_fingerprints

if TYPE_CHECKING:
    from peft import PeftModel


@dataclasses.dataclass(frozen=True, eq=False)
class SoftPrompt:
    """Learned vectors that are prepended to a text's embeddings, and their manifest.

    Attributes:
        vectors: `[P, H]`, float32 on the CPU; a copy, which further training does not change.
        manifest: Base model, task, scores and provenance.
    """

    vectors: torch.Tensor
    manifest: Manifest

    def __post_init__(self) -> None:
        """Copy the vectors and check them against the manifest.

        Raises:
            InvalidAdapter: They are not a finite `[P, H]` matrix of the manifest's size.
        """
        vectors = self.vectors.detach().to("cpu", torch.float32, copy=True).contiguous()
        expected = (self.manifest.num_virtual_tokens, self.manifest.hidden_size)
        if vectors.shape != expected:
            raise InvalidAdapter(
                f"The vectors have shape {list(vectors.shape)}; expected {list(expected)}, the "
                "manifest's num_virtual_tokens and hidden_size. Correct one of the two."
            )
        if not bool(vectors.isfinite().all()):
            raise InvalidAdapter(
                "The vectors contain NaN or infinite values; expected finite numbers. Training "
                "has diverged: lower the learning rate."
            )
        object.__setattr__(self, "vectors", vectors)

    @property
    def num_virtual_tokens(self) -> int:
        """Number of virtual tokens P."""
        return self.manifest.num_virtual_tokens

    @property
    def hidden_size(self) -> int:
        """Width H of the base model's input embeddings."""
        return self.manifest.hidden_size

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "SoftPrompt":
        """Read an adapter folder written by softhub or by plain PEFT.

        Of an encoder-decoder adapter with two submodules, `[2P, H]`, the first half is read: PEFT
        prepends it to the encoder's input, and trains no other.

        Args:
            folder: The adapter's folder; pull an adapter that is on a hub first.

        Raises:
            InvalidAdapter: The folder is missing, damaged or hostile.
            UnsupportedAdapter: It contains a valid adapter of another kind.
        """
        return cls._from_adapter(check_folder(folder))

    @classmethod
    def from_peft(
        cls, peft_model: "PeftModel", base: BaseModel, adapter_name: str = "default"
    ) -> "SoftPrompt":
        """Copy a prompt tuning adapter out of a live PEFT model.

        Args:
            peft_model: The PEFT model; it is left as it is.
            base: Its base model, from `load_base(peft_model.get_base_model(), tokenizer=…)`.
            adapter_name: The adapter's name in PEFT.

        Raises:
            UnsupportedAdapter: The adapter is not prompt tuning for a language model.
        """
        from safetensors.torch import save

        config, weights = peft_model.peft_config[adapter_name], b""
        if config.peft_type == "PROMPT_TUNING":  # others are refused by their config
            vectors = peft_model.get_prompt_embedding_to_save(adapter_name)  # [P, H] or [2P, H]
            weights = save({layout.WEIGHTS_KEY: vectors.contiguous()})
        record = json.dumps(config.to_dict(), default=str).encode()
        files = {layout.CONFIG: record, layout.WEIGHTS: weights}
        adapter = check_files(files, origin=f"the PEFT adapter {adapter_name!r}")
        prompt = cls._from_adapter(adapter)
        manifest = dataclasses.replace(
            prompt.manifest,
            base_model=base.name,
            base_revision=base.revision,
            base_quantization=base.quantization,
            fingerprint=base.fingerprint,
        )
        return cls(prompt.vectors, manifest)

    @classmethod
    def _from_adapter(cls, adapter: Adapter) -> "SoftPrompt":
        rows = torch.from_numpy(adapter.vectors)  # [P, H], or [2P, H]
        manifest = adapter.manifest or _foreign_manifest(adapter)
        return cls(vectors=rows[: manifest.num_virtual_tokens], manifest=manifest)

    def check_fits(self, base: BaseModel, *, force: bool = False) -> None:
        """Check that the prompt was made for a base; warn if that cannot be determined.

        Args:
            base: The loaded base model.
            force: Warn instead, provided that the base has the same width and task type.

        Raises:
            IncompatiblePrompt: The prompt was made for another base.
        """
        made_for = f"This prompt was made for {self.manifest.base_model}"
        width, task_type = self.vectors.shape[1], self.manifest.task_type
        if width != base.hidden_size or task_type != base.task_type:
            raise IncompatiblePrompt(
                f"{made_for} (width {width}, {task_type}) and cannot run on {base.name} "
                f"(width {base.hidden_size}, {base.task_type}): load the base it was made for."
            )
        verdict = compare_fingerprints(self.manifest.fingerprint, base.fingerprint)
        message = f"{made_for}; the loaded base is {base.name}: {verdict.reason}."
        if verdict.kind == "different" and not force:
            raise IncompatiblePrompt(f"{message} Load that base, or pass force=True (--force).")
        if verdict.kind != "exact":
            warnings.warn(message, SoftHubWarning, stacklevel=3)

    def save_pretrained(self, folder: str | Path, *, card: str | None = None) -> Path:
        """Write the adapter's four files atomically; equal prompts give equal bytes.

        Plain PEFT reads the folder. Local paths in the provenance are reduced to their last part.

        Args:
            folder: Where to write; an existing adapter is replaced.
            card: Text of `README.md`; the default is rendered from the manifest.

        Returns:
            The folder.

        Raises:
            InvalidAdapter: The folder contains other files, or the result would not be a valid
                adapter (too large, control characters in the card, …).
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

    The initialization is always given as RANDOM: PEFT would otherwise look for a tokenizer that is
    not in the folder.
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
    """Return what plain PEFT's config says; everything else is unknown."""
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
