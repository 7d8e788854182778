"""A soft prompt in memory; read from and written to an adapter folder.

It is a prompt of input embeddings or a prefix of keys and values, a matrix with a row for each
virtual token in both cases.
"""

import dataclasses
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from softhub._version import __version__
from softhub.adapter import layout
from softhub.adapter.adapter import METHODS, Adapter
from softhub.adapter.card.render import render_card
from softhub.adapter.manifest import Manifest, PrefixShape
from softhub.adapter.portable import UNKNOWN_BASE, portable_base_name, without_local_paths
from softhub.adapter.validation import check_files, check_folder
from softhub.errors import IncompatiblePrompt, InvalidAdapter, SoftHubWarning
from softhub.model.base import BaseModel
from softhub.model.fingerprint import compare_fingerprints
from softhub.model.kv_cache import Prefix
from softhub.model.prefix import prefix_of, prefix_shape, prefix_template

if TYPE_CHECKING:
    from peft import PeftModel


@dataclasses.dataclass(frozen=True, eq=False)
class SoftPrompt:
    """Learned virtual tokens that precede a text, and their manifest.

    Attributes:
        vectors: `[P, H]` of input embeddings, or of a prefix `[P, width]`, see `PrefixShape`;
            float32 on the CPU; a copy, which further training does not change.
        manifest: Base model, task, scores and provenance.
    """

    vectors: torch.Tensor
    manifest: Manifest

    def __post_init__(self) -> None:
        """Copy the vectors and check them against the manifest.

        Raises:
            InvalidAdapter: They are not a finite matrix of the manifest's size.
        """
        vectors = self.vectors.detach().to("cpu", torch.float32, copy=True).contiguous()
        expected = (self.manifest.num_virtual_tokens, self.manifest.width)
        if vectors.shape != expected:
            raise InvalidAdapter(
                f"The vectors have shape {list(vectors.shape)}; expected {list(expected)}, the "
                "manifest's num_virtual_tokens and the width of each. Correct one of the two."
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
    def hidden_size(self) -> int | None:
        """Width H of the base model's input embeddings; None for a prefix."""
        return self.manifest.hidden_size

    @property
    def prompt_type(self) -> str:
        """`prompt` for input embeddings, `prefix` for keys and values of every layer."""
        return self.manifest.prompt_type

    def prepare(self, base: BaseModel) -> torch.Tensor | Prefix:
        """Return what precedes a text on this base: vectors `[P, H]`, or keys and values.

        They share memory with the prompt's vectors where the base has their device and dtype.

        Raises:
            BaseModelError: It is a prefix, and the base cannot run prefixes.
            IncompatiblePrompt: Its numbers are too large for the dtype of the base.
        """
        prepared: torch.Tensor | Prefix
        if self.manifest.prefix is None:
            prepared = self.vectors.to(base.device, base.dtype)
            parts = [prepared]
        else:
            prepared = prefix_of(self.vectors, prefix_template(base))
            parts = [part for layer in prepared.layers for part in layer]
        if not all(bool(part.isfinite().all()) for part in parts):
            raise IncompatiblePrompt(
                f"The prompt has numbers of up to {float(self.vectors.abs().max()):.2g}, which are "
                f"too large for {base.name} in {base.dtype}. Load the base in bfloat16 or float32 "
                "(dtype)."
            )
        return prepared

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
        return cls.from_adapter(check_folder(folder))

    @classmethod
    def from_peft(
        cls, peft_model: "PeftModel", base: BaseModel, adapter_name: str = "default"
    ) -> "SoftPrompt":
        """Copy a prompt tuning or prefix tuning adapter out of a live PEFT model.

        Args:
            peft_model: The PEFT model; it is left as it is.
            base: Its base model, from `load_base(peft_model.get_base_model(), tokenizer=…)`.
            adapter_name: The adapter's name in PEFT.

        Raises:
            UnsupportedAdapter: The adapter is not prompt or prefix tuning for a language model.
        """
        from safetensors.torch import save

        config, weights = peft_model.peft_config[adapter_name], b""
        if config.peft_type in METHODS:  # others are refused by their config
            # [P, H] or [2P, H]; of a prefix [P, width], with its projection applied
            vectors = peft_model.get_prompt_embedding_to_save(adapter_name)
            weights = save({layout.WEIGHTS_KEY: vectors.contiguous()})
        record = json.dumps(config.to_dict(), default=str).encode()
        files = {layout.CONFIG: record, layout.WEIGHTS: weights}
        adapter = check_files(files, origin=f"the PEFT adapter {adapter_name!r}")
        prompt = cls.from_adapter(adapter)
        manifest = dataclasses.replace(
            prompt.manifest,
            base_model=base.name,
            base_revision=base.revision,
            base_quantization=base.quantization,
            fingerprint=base.fingerprint,
        )
        return cls(prompt.vectors, manifest)

    @classmethod
    def from_adapter(cls, adapter: Adapter) -> "SoftPrompt":
        """Return the prompt of a checked adapter, as from `Hub.read` or `check_folder`."""
        rows = torch.from_numpy(adapter.vectors)  # [P, H], [2P, H], or of a prefix [P, width]
        manifest = adapter.manifest or _foreign_manifest(adapter)
        return cls(vectors=rows[: manifest.num_virtual_tokens], manifest=manifest)

    def check_fits(self, base: BaseModel, *, force: bool = False) -> None:
        """Check that the prompt was made for a base; warn if that cannot be determined.

        Args:
            base: The loaded base model.
            force: Warn instead, provided that the base has the same width and task type.

        Raises:
            IncompatiblePrompt: The prompt was made for another base.
            BaseModelError: It is a prefix, and the base cannot run prefixes.
        """
        made_for = f"This {self.prompt_type} was made for {self.manifest.base_model}"
        task_type = self.manifest.task_type
        own: PrefixShape | int | None = self.manifest.prefix or self.hidden_size
        needed: PrefixShape | int = base.hidden_size
        if self.manifest.prefix is not None and task_type == base.task_type:
            needed = prefix_shape(base)
        if own != needed or task_type != base.task_type:
            raise IncompatiblePrompt(
                f"{made_for} ({_size(own)}, {task_type}) and cannot run on {base.name} "
                f"({_size(needed)}, {base.task_type}): load the base it was made for."
            )
        verdict = compare_fingerprints(self.manifest.fingerprint, base.fingerprint)
        message = f"{made_for}; the loaded base is {base.name}: {verdict.reason}."
        if verdict.kind == "different" and not force:
            raise IncompatiblePrompt(f"{message} Load that base, or pass force=True (--force).")
        if verdict.kind != "exact":
            warnings.warn(message, SoftHubWarning, stacklevel=3)

    def save_pretrained(self, folder: str | Path, *, card: str | None = None) -> Path:
        """Write the adapter's four files atomically; equal prompts give equal bytes.

        Plain PEFT reads the folder. Vectors are stored in bfloat16 where each of them is a bfloat16
        number, and in float32 otherwise, so nothing is rounded. Local paths in the provenance are
        reduced to their last part.

        Args:
            folder: Where to write; an existing adapter is replaced.
            card: Text of `README.md`; the default is rendered from the manifest.

        Returns:
            The folder.

        Raises:
            InvalidAdapter: The folder contains other files, or the result would not be a valid
                adapter (too large, control characters in the card, …).
        """
        files = self._peft_files()
        manifest = dataclasses.replace(
            self.manifest,
            provenance=without_local_paths(self.manifest.provenance),
            files=_hashes(files),
        )
        files[layout.MANIFEST] = manifest.to_bytes()
        files[layout.CARD] = (render_card(manifest) if card is None else card).encode()
        check_files(files, origin=str(folder))
        return layout.write_atomically(Path(folder), files)

    def hashes(self) -> dict[str, str]:
        """Return the SHA-256 that the weights and the config have in the folder of this prompt."""
        return _hashes(self._peft_files())

    def _peft_files(self) -> dict[str, bytes]:
        """Return the config and the weights, as plain PEFT reads them."""
        from safetensors.torch import save

        rounded = self.vectors.bfloat16()
        stored = rounded if torch.equal(rounded.float(), self.vectors) else self.vectors
        return {
            layout.CONFIG: _config_bytes(self.manifest),
            layout.WEIGHTS: save({layout.WEIGHTS_KEY: stored}, metadata={"format": "pt"}),
        }


def _hashes(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: layout.sha256_of(data) for name, data in files.items()}


def _size(size: PrefixShape | int | None) -> str:
    if not isinstance(size, PrefixShape):
        return f"width {size}"
    return f"{size.num_layers} layers of {size.num_key_value_heads} x {size.head_dim} keys"


def _config_bytes(manifest: Manifest) -> bytes:
    """Return `adapter_config.json` as PEFT itself would write it for this prompt.

    The initialization is always given as RANDOM: PEFT would otherwise look for a tokenizer that is
    not in the folder.
    """
    from peft import PrefixTuningConfig, PromptTuningConfig, PromptTuningInit

    unnamed = manifest.base_model == UNKNOWN_BASE
    shared: dict[str, Any] = {
        "task_type": manifest.task_type,
        "base_model_name_or_path": None if unnamed else manifest.base_model,
        "revision": manifest.base_revision,
        "inference_mode": True,
        "num_virtual_tokens": manifest.num_virtual_tokens,
        "num_transformer_submodules": 1,
    }
    config: PromptTuningConfig | PrefixTuningConfig
    if (prefix := manifest.prefix) is None:
        init = PromptTuningInit.RANDOM
        config = PromptTuningConfig(token_dim=manifest.width, prompt_tuning_init=init, **shared)
    else:
        config = PrefixTuningConfig(
            token_dim=prefix.layer_width,
            num_layers=prefix.num_layers,
            num_attention_heads=prefix.num_key_value_heads,
            encoder_hidden_size=prefix.layer_width,  # unused without a projection
            **shared,
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
        hidden_size=None if adapter.prefix else adapter.shape[1],
        prefix=adapter.prefix,
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
