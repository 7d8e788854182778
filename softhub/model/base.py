"""Load a base model, freeze it, and know what it is.

A base model comes from a Hub repo id, a local folder or a GGUF file. It is returned frozen and in
eval mode, with its tokenizer and the name that cards and manifests give it.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError

from softhub.adapter.portable import check_base_model
from softhub.config import softhub_home
from softhub.errors import BaseModelError, MissingDependency, SoftHubError
from softhub.model.fingerprint import compute_fingerprint
from softhub.model.projection import ends_in_plain_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger("softhub")

BASE_RECORD = "softhub_base.json"
"""File in a converted base's folder: its canonical name and how its weights were quantised."""

_NAME_LENGTH = 96
_GGUF_SAMPLE = 8 * 2**20
_DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, eq=False)
class BaseModel:
    """A frozen language model, its tokenizer, and its identity.

    Attributes:
        model: The transformers model, in eval mode, no parameter requires a gradient.
        tokenizer: The tokenizer that belongs to it.
        name: Canonical name, e.g. a Hub repo id; what cards and manifests say. Never a path.
        revision: Commit or tag that was asked for, or None.
        quantization: How the weights were quantised (`"gguf-q4_1"`, `"bitsandbytes-4bit"`), or
            None for plain floating-point weights.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    revision: str | None = None
    quantization: str | None = None

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether the prompt goes to an encoder (T5) rather than before a decoder's text."""
        return bool(self.model.config.is_encoder_decoder)

    @property
    def task_type(self) -> str:
        """PEFT's task type of prompts for this base."""
        return "SEQ_2_SEQ_LM" if self.is_encoder_decoder else "CAUSAL_LM"

    @property
    def embedding(self) -> torch.Tensor:
        """The input embedding table `[V, H]`; embed with `embed`, which may scale."""
        return cast(torch.Tensor, self.model.get_input_embeddings().weight)

    @property
    def hidden_size(self) -> int:
        """Width H of the input embeddings."""
        return int(self.embedding.shape[-1])

    @property
    def device(self) -> torch.device:
        """Device of the input embeddings, where prompts and token ids go."""
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype that embedded tokens have, and prompts are cast to."""
        return self.embedding.dtype

    @property
    def max_positions(self) -> int | None:
        """Longest row (prompt, text and answer) that the positions allow; None if unlimited."""
        return position_limit(self.model.config)

    @property
    def checkpoints_activations(self) -> bool:
        """Whether activation checkpointing is on; its layers are then run twice, without a cache.

        Models have a flag; Accelerate wraps the layers of a base that FSDP shards.
        """
        return any(
            getattr(m, "gradient_checkpointing", False) or hasattr(m, "checkpoint_fn")
            for m in self.model.modules()
        )

    @property
    def is_sharded(self) -> bool:
        """Whether FSDP keeps the layers in pieces; every process must then take part in a pass."""
        if not torch.distributed.is_available():
            return False
        from torch.distributed.fsdp import FSDPModule

        return any(isinstance(module, FSDPModule) for module in self.model.modules())

    @property
    def is_spread(self) -> bool:
        """Whether `device_map` put the layers on several devices."""
        return len({*getattr(self.model, "hf_device_map", {}).values()}) > 1

    @cached_property
    def forward_parameters(self) -> frozenset[str]:
        """Names of the arguments that the model's `forward` takes."""
        return frozenset(inspect.signature(self.model.forward).parameters)

    @cached_property
    def has_plain_head(self) -> bool:
        """Whether logits can be taken from hidden states; see `softhub.model.projection`."""
        return ends_in_plain_head(self.model)

    @cached_property
    def fingerprint(self) -> Mapping[str, Any]:
        """What identifies these weights beyond their name; see `softhub.model.fingerprint`."""
        return compute_fingerprint(self.model, self.tokenizer, self.quantization)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Embed token ids as the model itself would.

        Goes through the embedding module, never its weight: some models scale in it.

        Args:
            ids: Token ids, int64, any shape.

        Returns:
            Vectors of shape `ids.shape + (H,)`.
        """
        embedded: torch.Tensor = self.model.get_input_embeddings()(ids.to(self.device))
        return embedded


def load_base(
    ref: str | Path,
    *,
    revision: str | None = None,
    dtype: str | torch.dtype | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    quantization: str | Any | None = None,
    name: str | None = None,
) -> BaseModel:
    """Load a base model frozen and in eval mode.

    Args:
        ref: Hub repo id, local folder, or path of a `.gguf` file. A GGUF file is converted once to
            safetensors under `$SOFTHUB_HOME/bases`, so that later loads take seconds.
        revision: Commit, tag or branch on the Hub.
        dtype: `"float32"`, `"bfloat16"`, `"float16"`, `"auto"` or a `torch.dtype`; the default is
            the dtype that the checkpoint declares.
        device_map: As in transformers, e.g. `"auto"` to spread over GPUs.
        quantization: `"4bit"` or `"8bit"` (bitsandbytes), or a transformers quantisation config.
        name: Canonical name for cards and manifests; the default is the repo id, or what a local
            folder or GGUF file says about itself. Never a path.

    Returns:
        The frozen base.

    Raises:
        BaseModelError: There is no such model, it cannot be read, or it is not a decoder-only or
            encoder-decoder language model.
        MissingDependency: The GGUF or quantisation package is not installed.
        InvalidArtefact: `name` is no name that a card may give, such as a path.
    """
    if name is not None:
        check_base_model(name)
    source = _source(ref, name)
    record = _read_record(Path(source)) if Path(source).is_dir() else {}
    model, tokenizer = _load(source, revision, dtype, device_map, quantization)
    return BaseModel(
        model=_freeze(model),
        tokenizer=tokenizer,
        name=name or record.get("name") or _name_of(source, model),
        revision=revision,
        quantization=record.get("quantization") or _declared_quantization(model),
    )


def load_tokenizer(ref: str | Path) -> tuple[PreTrainedTokenizerBase, Any]:
    """Load what belongs to a base model but its weights.

    Args:
        ref: As in `load_base`.

    Returns:
        The tokenizer, and transformers' configuration of the model.

    Raises:
        BaseModelError: There is no such model, or it is not a language model that continues texts.
        MissingDependency: The GGUF package is not installed.
    """
    from transformers import AutoConfig, AutoTokenizer

    source = _source(ref, None)
    with _reported(source):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        _check_causal(source, config)
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False), config


def position_limit(config: Any) -> int | None:
    """Longest row (prompt, text and answer) that a model's positions allow; None if unlimited.

    Args:
        config: transformers' configuration of the model.
    """
    config = config.get_text_config()
    if config.model_type in ("t5", "mt5", "umt5", "longt5", "switch_transformers"):
        return None  # relative positions: `n_positions` is only what it was trained on
    positions = getattr(config, "max_position_embeddings", None)
    return int(positions) if positions else None


def _source(ref: str | Path, name: str | None) -> str:
    """What transformers loads from: a folder, or a repo id of the Hub."""
    path, source = Path(ref).expanduser(), str(ref)
    if path.suffix == ".gguf":
        return str(_converted(path, name))
    if path.is_dir():
        return str(path)
    if path.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise BaseModelError(
            f"No base model at {source!r}: expected a folder with config.json, a .gguf file, or a "
            "Hub repo id such as 'HuggingFaceTB/SmolLM2-135M-Instruct'."
        )
    return source


def _load(
    source: str,
    revision: str | None,
    dtype: str | torch.dtype | None,
    device_map: str | Mapping[str, Any] | None,
    quantization: str | Any | None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoTokenizer,
    )

    if isinstance(dtype, str) and dtype not in _DTYPES:
        raise BaseModelError(f"Unknown dtype {dtype!r}: expected one of {', '.join(_DTYPES)}.")
    with _reported(source):
        # Left open, transformers would ask at the terminal whether to run a stranger's code.
        trust = {"trust_remote_code": False}
        config = AutoConfig.from_pretrained(source, revision=revision, **trust)
        _check_causal(source, config)
        auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = auto.from_pretrained(
            source,
            config=config,
            revision=revision,
            dtype=dtype or "auto",
            device_map=device_map,
            quantization_config=_quantization_config(quantization),
            **trust,
        )
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, **trust)
    return model, tokenizer


def _check_causal(source: str, config: Any) -> None:
    """Refuse BERT and its like: transformers loads them as decoders, but they see both ways."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    if config.is_encoder_decoder or getattr(config, "is_decoder", False):
        return
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise BaseModelError(
            f"The base model {source!r} is an encoder ({config.model_type}), which fills gaps; "
            "expected a decoder-only or encoder-decoder language model, which continues texts."
        )


@contextlib.contextmanager
def _reported(source: str) -> Iterator[None]:
    """Turn what transformers raises for a missing or unreadable model into one sentence."""
    try:
        yield
    except SoftHubError:
        raise
    except ImportError as error:
        raise MissingDependency(f"{source!r} needs a package: {error}") from error
    except (OSError, ValueError, LookupError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise BaseModelError(
            f"Cannot load the base model {source!r}: {reason[0]} Expected a decoder-only or "
            "encoder-decoder language model; check the name, the network and the access token."
        ) from error


def _quantization_config(quantization: str | Any | None) -> Any | None:
    if quantization is None or not isinstance(quantization, str):
        return quantization
    from transformers import BitsAndBytesConfig

    if quantization == "4bit":
        return BitsAndBytesConfig(load_in_4bit=True)
    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    raise BaseModelError(
        f"Unknown quantization {quantization!r}: expected '4bit', '8bit' or a transformers "
        "quantisation config."
    )


def _declared_quantization(model: PreTrainedModel) -> str | None:
    """Name of the quantisation in the model's own config, e.g. `bitsandbytes-4bit`, `gptq-4bit`."""
    config = getattr(model.config, "quantization_config", None)
    if config is None:
        return None
    fields = config if isinstance(config, Mapping) else config.to_dict()
    method = str(getattr(fields.get("quant_method"), "value", fields.get("quant_method")))
    bits = 4 if fields.get("load_in_4bit") else 8 if fields.get("load_in_8bit") else None
    bits = bits or fields.get("bits")
    return f"{method}-{bits}bit" if bits else method


def _freeze(model: PreTrainedModel) -> PreTrainedModel:
    model.requires_grad_(False)
    model.eval()
    return model


def _name_of(source: str, model: PreTrainedModel) -> str:
    """Repo id as it is; of a folder only its own name, so that no path leaks into a card."""
    if not Path(source).is_dir():
        return source
    return _name_part(Path(source).resolve().name) or "local-base"


def _name_part(text: str) -> str:
    """What is left of a text in a name as on the Hub; perhaps nothing."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", text)
    return re.sub(r"[.-]{2,}", "-", plain)[:_NAME_LENGTH].strip("-.")


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / BASE_RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


# --- GGUF -----------------------------------------------------------------------------------------


def _converted(path: Path, name: str | None) -> Path:
    """Folder of the GGUF file's weights as safetensors; converted on first use, then cached."""
    if not path.is_file():
        raise BaseModelError(f"No GGUF file at {str(path)!r}: check the path.")
    folder = softhub_home() / "bases" / f"{path.stem}-{_sample_hash(path)}"
    if (folder / BASE_RECORD).is_file():
        return folder
    logger.warning("Converting %s to safetensors; this is done once.", path.name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".converting-", dir=folder.parent))
    try:
        _convert(path, partial, name)
        partial.replace(folder)
    except OSError:
        # Another process may have converted the same file meanwhile: its folder serves as well.
        if not (folder / BASE_RECORD).is_file():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _convert(path: Path, folder: Path, name: str | None) -> None:
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise MissingDependency(
            "Reading a .gguf file needs the gguf package: pip install 'softhub[demo]'"
        ) from error
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with _reported(str(path)):
        reader = GGUFReader(path)
        model = AutoModelForCausalLM.from_pretrained(
            str(path.parent),
            gguf_file=path.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    record = {"name": name or _gguf_name(path, reader), "quantization": _gguf_type(reader)}
    (folder / BASE_RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _gguf_type(reader: Any) -> str:
    """The type that holds most weights, e.g. `gguf-q4_1`."""
    elements: dict[str, int] = {}
    for tensor in reader.tensors:
        kind = tensor.tensor_type.name.lower()
        elements[kind] = elements.get(kind, 0) + int(tensor.n_elements)
    return f"gguf-{max(elements, key=lambda kind: elements[kind])}"


def _gguf_name(path: Path, reader: Any) -> str:
    """`organization/file-stem` without the quantisation suffix."""
    field = reader.get_field("general.organization")
    stem = re.sub(r"[.-](i?q\d\w*|f16|f32|bf16)$", "", path.stem, flags=re.IGNORECASE)
    organization = _name_part(str(field.contents())) if field else ""
    name = _name_part(stem) or "local-base"
    return f"{organization}/{name}" if organization else name


def _sample_hash(path: Path) -> str:
    """Hash of the size, head and tail: enough to tell files apart without reading gigabytes."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_GGUF_SAMPLE))
        file.seek(max(0, size - _GGUF_SAMPLE))
        digest.update(file.read(_GGUF_SAMPLE))
    return digest.hexdigest()[:12]
