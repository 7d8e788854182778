"""Load a base model, freeze it, and name it.

A base model comes from a Hub repo id, a local folder, a GGUF file, or a loaded transformers model.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError

from softhub.adapter.portable import check_base_model, is_hub_name, to_hub_name
from softhub.config import expand_user, hub_answers
from softhub.errors import BaseModelError, MissingDependency, SoftHubError
from softhub.model.base import BaseModel
from softhub.model.gguf import convert_gguf, read_record

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_EXPECTED = (OSError, ValueError, LookupError, RuntimeError, SafetensorError, AssertionError)
"""What transformers raises for a model that it cannot load, and PyTorch without such a device."""

_DTYPES = ("auto", "float32", "bfloat16", "float16")


def load_base(
    model: str | Path | PreTrainedModel,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    revision: str | None = None,
    dtype: str | torch.dtype | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    quantization: str | Any | None = None,
    name: str | None = None,
) -> BaseModel:
    """Load a base model, frozen and in eval mode.

    Args:
        model: Hub repo id, local folder, path of a `.gguf` file, or a loaded transformers model. A
            GGUF file is converted to safetensors once, under `$SOFTHUB_HOME/bases`. A loaded model
            is not modified: the base shares its weights, but not its mode or `requires_grad`. The
            weights must not be changed while the base is in use; load it again after a change.
        tokenizer: Tokenizer of a loaded model; otherwise it is loaded with the model.
        revision: Commit, tag or branch on the Hub.
        dtype: `"float32"`, `"bfloat16"`, `"float16"`, `"auto"` or a `torch.dtype`; the default is
            the dtype that the checkpoint declares.
        device_map: As in transformers, e.g. `"auto"` to spread the layers over GPUs.
        quantization: `"4bit"` or `"8bit"` (bitsandbytes), or a transformers quantization config.
        name: Canonical name for cards and manifests; the default is the repo id, or what a local
            folder or GGUF file says about itself. Never a path.

    Raises:
        BaseModelError: The model does not exist, cannot be read, or is not a decoder-only or
            encoder-decoder language model.
        MissingDependency: The GGUF or quantization package is not installed.
        InvalidAdapter: `name` is not a name that a card may give, such as a path.
    """
    if name is not None:
        check_base_model(name)
    record: Mapping[str, Any] = {}
    if isinstance(model, str | Path):
        source = _source(model, name)
        record = read_record(Path(source))
        loaded, own = _load(source, revision, dtype, device_map, quantization)
        frozen, tokenizer = loaded.requires_grad_(False).eval(), tokenizer or own
    else:
        tokenizer = _check_loaded(model, tokenizer, dtype or device_map or quantization)
        source, frozen = str(model.name_or_path or ""), _frozen_view(model)
    _check_embeddings(source, frozen)
    name = name or record.get("name") or _default_name(source)
    quantization = record.get("quantization") or _declared_quantization(frozen)
    return BaseModel(frozen, tokenizer, name, revision, quantization)


def load_tokenizer(
    ref: str | Path, *, name: str | None = None
) -> tuple[PreTrainedTokenizerBase, Any]:
    """Load a base model's tokenizer and transformers configuration, without its weights.

    Args:
        ref: Hub repo id, local folder, or path of a `.gguf` file.
        name: As in `load_base`; it is recorded with the conversion of a GGUF file.

    Raises:
        BaseModelError: The model does not exist, or is not a language model that continues texts.
        MissingDependency: The GGUF package is not installed.
    """
    from transformers import AutoConfig, AutoTokenizer

    source = _source(ref, name)
    with _explained_errors(source):
        options = {"trust_remote_code": False, "local_files_only": _is_offline(source, None)}
        config = AutoConfig.from_pretrained(source, **options)
        _check_continues_texts(source, config)
        return AutoTokenizer.from_pretrained(source, **options), config


def _source(ref: str | Path, name: str | None) -> str:
    """Return what transformers can load: a folder, or a repo id of the Hub."""
    path, source = expand_user(ref), str(ref)
    if path.suffix == ".gguf":
        with _explained_errors(str(path)):
            return str(convert_gguf(path, name))
    if source and path.is_dir():
        return str(path)
    if not source or path.exists() or source[0] in "./~" or source.count("/") > 1:
        raise BaseModelError(
            f"No base model at {source!r}: expected a folder with config.json, a .gguf file, or a "
            "Hub repo id such as 'HuggingFaceTB/SmolLM2-135M-Instruct'."
        )
    return source


def _is_offline(source: str, revision: str | None) -> bool:
    """Ask the Hub once whether it answers: transformers would try half a minute for each file.

    Raises:
        BaseModelError: It does not, and the model was not downloaded before.
    """
    from huggingface_hub import try_to_load_from_cache

    if Path(source).is_dir() or hub_answers():
        return False
    if isinstance(try_to_load_from_cache(source, "config.json", revision=revision), str):
        return True
    raise BaseModelError(
        f"There is no folder {source!r}, and no model of that name can be downloaded, because the "
        "Hugging Face Hub does not answer or offline mode is on. Check the path or the network."
    )


def _load(
    source: str,
    revision: str | None,
    dtype: str | torch.dtype | None,
    device_map: str | Mapping[str, Any] | None,
    quantization: str | Any | None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    import transformers as hf

    if isinstance(dtype, str) and dtype not in _DTYPES:
        raise BaseModelError(f"Unknown dtype {dtype!r}: expected one of {', '.join(_DTYPES)}.")
    with _explained_errors(source):
        # Without this, transformers would ask at the terminal whether to run unknown code.
        trust = {"trust_remote_code": False, "local_files_only": _is_offline(source, revision)}
        config = hf.AutoConfig.from_pretrained(source, revision=revision, **trust)
        _check_continues_texts(source, config)
        seq2seq = config.is_encoder_decoder
        auto = hf.AutoModelForSeq2SeqLM if seq2seq else hf.AutoModelForCausalLM
        model = auto.from_pretrained(
            source,
            config=config,
            revision=revision,
            dtype=dtype or "auto",
            device_map=device_map,
            quantization_config=_quantization_config(quantization),
            **trust,
        )
        return model, hf.AutoTokenizer.from_pretrained(source, revision=revision, **trust)


def _check_loaded(model: Any, tokenizer: Any, options: Any) -> PreTrainedTokenizerBase:
    """Reject a loaded model that is not a base, or comes without its tokenizer."""
    from transformers import PreTrainedModel

    kind = type(model).__name__
    if not isinstance(model, PreTrainedModel) or not model.can_generate():
        raise BaseModelError(
            f"Found a {kind}; expected a transformers model with a language modeling head. For a "
            "PEFT model, use PromptModel.from_peft(peft_model, tokenizer)."
        )
    if tokenizer is None or options:
        found = "dtype, device_map or quantization" if options else "no tokenizer"
        raise BaseModelError(
            f"Found a loaded {kind} with {found}: pass its tokenizer, as in load_base(model, "
            "tokenizer=tokenizer), and pass loading options to from_pretrained."
        )
    _check_continues_texts(kind, model.config)
    return cast("PreTrainedTokenizerBase", tokenizer)


def _check_embeddings(source: str, model: PreTrainedModel) -> None:
    """Reject input embeddings without values in memory; layers may be offloaded."""
    if model.get_input_embeddings().weight.device.type == "meta":
        raise BaseModelError(
            f"The input embeddings of the base model {source!r} are offloaded; expected them on a "
            "device, because prompts are trained and placed among them. Keep them out of 'cpu' "
            "and 'disk' in the device_map, or leave more memory free on the first device."
        )


def _check_continues_texts(source: str, config: Any) -> None:
    """Reject encoders such as BERT, which transformers loads as decoders without a causal mask."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    if config.is_encoder_decoder or getattr(config, "is_decoder", False):
        return
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise BaseModelError(
            f"The base model {source!r} is an encoder ({config.model_type}), which fills in masked "
            "tokens; expected a decoder-only or encoder-decoder language model."
        )


@contextlib.contextmanager
def _explained_errors(source: str) -> Iterator[None]:
    """Convert transformers' errors for a missing or unreadable model into one sentence."""
    try:
        yield
    except SoftHubError:
        raise
    except ImportError as error:
        raise MissingDependency(f"{source!r} requires a missing package: {error}") from error
    except _EXPECTED as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise BaseModelError(
            f"Cannot load the base model {source!r}: {reason}. Expected a decoder-only or "
            "encoder-decoder language model; check the name, the device, the network and the "
            "access token."
        ) from error


def _frozen_view(model: PreTrainedModel) -> PreTrainedModel:
    """Rebuild the model's modules around the same weights, frozen and in eval mode.

    The caller's model keeps its mode, its `requires_grad` flags and its attention function.
    """
    shared: dict[int, Any] = {id(buffer): buffer for buffer in model.buffers()}
    for parameter in model.parameters():  # tied weights are listed once, and stay tied
        plain = type(parameter) is torch.nn.Parameter  # a quantized one carries more than its data
        frozen = torch.nn.Parameter(parameter.detach(), requires_grad=False) if plain else parameter
        shared[id(parameter)] = frozen
    for module in model.modules():  # what one keeps of its last run (RecurrentGemma) has no copy
        shared |= {id(each): each.detach() for each in vars(module).values() if _is_result(each)}
    view: PreTrainedModel = copy.deepcopy(model, shared).eval()
    return view


def _is_result(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.grad_fn is not None


def _quantization_config(quantization: str | Any | None) -> Any | None:
    if quantization is None or not isinstance(quantization, str):
        return quantization
    from transformers import BitsAndBytesConfig

    if quantization not in ("4bit", "8bit"):
        raise BaseModelError(
            f"Unknown quantization {quantization!r}: expected '4bit', '8bit' or a transformers "
            "quantization config."
        )
    return BitsAndBytesConfig(**{f"load_in_{quantization}": True})


def _declared_quantization(model: PreTrainedModel) -> str | None:
    """Return the quantization in the model's own config, e.g. `bitsandbytes-4bit`."""
    config = getattr(model.config, "quantization_config", None)
    if config is None:
        return None
    fields = config if isinstance(config, Mapping) else config.to_dict()
    method = str(getattr(fields.get("quant_method"), "value", fields.get("quant_method")))
    bits = 4 if fields.get("load_in_4bit") else 8 if fields.get("load_in_8bit") else None
    bits = bits or fields.get("bits")
    return f"{method}-{bits}bit" if bits else method


def _default_name(source: str) -> str:
    """Return a repo id as it is, and of a folder only its name: no path may reach a card."""
    if is_hub_name(source) and not Path(source).is_dir():
        return source
    return to_hub_name(Path(source).resolve().name if source else "") or "local-base"
