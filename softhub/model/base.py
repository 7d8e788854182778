"""Load a base model, freeze it, and identify it.

A base model comes from a Hub repo id, a local folder, a GGUF file, or a loaded transformers model.
It is frozen and in eval mode, with its tokenizer and the name that cards and manifests give it.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError

from softhub.adapter.portable import check_base_model, is_hub_name, to_hub_name
from softhub.config import expand_user, hub_answers
from softhub.errors import BaseModelError, MissingDependency, SoftHubError, TaskError
from softhub.model.config_lengths import position_limit
from softhub.model.encoding import Encoder
from softhub.model.fingerprint import compute_fingerprint
from softhub.model.gguf import convert_gguf, read_record
from softhub.model.projection import ends_in_plain_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from softhub.model.probe import Capabilities

Placement = tuple[torch.device, torch.dtype]

_EXPECTED = (OSError, ValueError, LookupError, RuntimeError, SafetensorError, AssertionError)
"""What transformers raises for a model that it cannot load, and PyTorch without such a device."""

_DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, eq=False)
class BaseModel:
    """A frozen language model, its tokenizer, and its identity.

    Attributes:
        model: The transformers model, in eval mode; no parameter requires a gradient.
        tokenizer: Its tokenizer; softhub works with a copy of it, see `encoder`.
        name: Canonical name in cards and manifests, e.g. a Hub repo id. Never a path.
        revision: Commit or tag that was requested, or None.
        quantization: How the weights were quantized (`"gguf-q4_1"`, `"bitsandbytes-4bit"`), or
            None for plain floating-point weights.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    revision: str | None = None
    quantization: str | None = None

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether the prompt is part of an encoder's input (T5) or of a decoder's."""
        return bool(self.model.config.is_encoder_decoder)

    @property
    def task_type(self) -> str:
        """PEFT's task type for prompts of this base."""
        return "SEQ_2_SEQ_LM" if self.is_encoder_decoder else "CAUSAL_LM"

    @property
    def embedding(self) -> torch.Tensor:
        """The input embedding table `[V, H]`; to embed tokens use `embed`, which may scale."""
        return cast(torch.Tensor, self.model.get_input_embeddings().weight)

    @property
    def hidden_size(self) -> int:
        """Width H of the input embeddings."""
        return int(self.embedding.shape[-1])

    @property
    def device(self) -> torch.device:
        """Device of the input embeddings, of prompts and of token ids."""
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of embedded tokens, to which prompts are cast."""
        return self.embedding.dtype

    @property
    def placement(self) -> Placement:
        """Device and dtype; what was computed for a base is of no use after these change."""
        return self.device, self.dtype

    @property
    def start_id(self) -> int:
        """The token that an encoder-decoder's decoder starts from."""
        return int(self.model.config.decoder_start_token_id)

    @property
    def forced_ids(self) -> tuple[int, ...]:
        """What the generation config forces a decoder to write after its start token, as of BART.

        Every generated answer follows it, so answers are scored and trained after it too. It costs
        nothing, because it has no alternative. A decoder without an encoder has none: its answers
        follow a text.
        """
        forced = getattr(self.model.generation_config, "forced_bos_token_id", None)
        return () if forced is None or not self.is_encoder_decoder else (int(forced),)

    @property
    def max_positions(self) -> int | None:
        """Maximum number of tokens of prompt, text and answer together; None if unlimited."""
        return position_limit(self.model.config)

    @property
    def max_answer(self) -> int | None:
        """Maximum number of tokens of the answer alone, which an encoder-decoder's decoder reads.

        None if it is unlimited, or limited only with prompt and text.
        """
        if not self.is_encoder_decoder:
            return None
        limit = position_limit(self.model.config, part="decoder")
        return None if limit is None else limit - len(self.forced_ids)

    def check_answer(self, tokens: int) -> None:
        """Check that the decoder of an encoder-decoder has positions for an answer.

        Args:
            tokens: Number of tokens of the answer.

        Raises:
            TaskError: It does not.
        """
        if self.max_answer is not None and tokens > self.max_answer:
            raise TaskError(
                f"An answer of up to {tokens} tokens does not fit into the {self.max_answer} "
                "positions of the base model's decoder: use a shorter answer (max_new_tokens), or "
                "shorter reference texts."
            )

    def room_for_text(self, virtual_tokens: int, answer: int) -> int | None:
        """Return how many tokens a text may have between its prompt and its answer.

        Args:
            virtual_tokens: Virtual tokens of the prompt.
            answer: The most tokens that may follow the text.

        Returns:
            The number, or None if the context is unlimited.

        Raises:
            TaskError: Prompt and answer leave no room for a text, or the answer is too long.
        """
        self.check_answer(answer)
        if self.max_positions is None:
            return None
        room = self.max_positions - virtual_tokens - answer
        if room < 1:
            raise TaskError(
                f"{virtual_tokens} virtual tokens and an answer of up to {answer} tokens leave no "
                f"room for a text in the base model's context of {self.max_positions} tokens: "
                "use fewer virtual tokens, or a shorter answer (max_new_tokens)."
            )
        return room

    @property
    def checkpoints_activations(self) -> bool:
        """Whether activation checkpointing is on; layers then run twice and fill no cache."""
        # Models have a flag; Accelerate wraps the layers of a base that FSDP shards.
        return any(
            getattr(m, "gradient_checkpointing", False) or hasattr(m, "checkpoint_fn")
            for m in self.model.modules()
        )

    @property
    def is_sharded(self) -> bool:
        """Whether FSDP shards the layers; every process must then take part in each pass."""
        if not torch.distributed.is_available():
            return False
        from torch.distributed.fsdp import FSDPModule

        return any(isinstance(module, FSDPModule) for module in self.model.modules())

    @property
    def is_spread(self) -> bool:
        """Whether `device_map` placed the layers on several devices."""
        return len({*getattr(self.model, "hf_device_map", {}).values()}) > 1

    @cached_property
    def forward_parameters(self) -> frozenset[str]:
        """Names of the arguments of the model's `forward`."""
        return frozenset(inspect.signature(self.model.forward).parameters)

    @cached_property
    def has_plain_head(self) -> bool:
        """Whether logits are the head's product with hidden states; see `projection`."""
        return ends_in_plain_head(self.model)

    @cached_property
    def fingerprint(self) -> Mapping[str, Any]:
        """Identity of the weights beyond their name; see `softhub.model.fingerprint`."""
        return compute_fingerprint(self.model, self.tokenizer, self.quantization)

    @cached_property
    def encoder(self) -> Encoder:
        """Converts texts to token ids and back, with a tokenizer of its own."""
        return Encoder(self.tokenizer, is_encoder_decoder=self.is_encoder_decoder)

    @property
    def capabilities(self) -> Capabilities:
        """What the model computes exactly, found out by asking it; see `softhub.model.probe`.

        It is asked again after it was moved or cast.
        """
        from softhub.model.probe import Capabilities

        found: Capabilities | None = vars(self).get("_asked")
        if found is None or not found.is_current:
            found = vars(self)["_asked"] = Capabilities(self)
        return found

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Embed token ids of any shape as the model itself does: `ids.shape + (H,)`."""
        # Call the module, because some models scale the rows of its weight, others its output.
        embedded: torch.Tensor = self.model.get_input_embeddings()(ids.to(self.device))
        scale = self.capabilities.embedding_scale
        return embedded if scale in (None, 1.0) else embedded * scale


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


def load_tokenizer(ref: str | Path) -> tuple[PreTrainedTokenizerBase, Any]:
    """Load a base model's tokenizer and transformers configuration, without its weights.

    Args:
        ref: Hub repo id, local folder, or path of a `.gguf` file.

    Raises:
        BaseModelError: The model does not exist, or is not a language model that continues texts.
        MissingDependency: The GGUF package is not installed.
    """
    from transformers import AutoConfig, AutoTokenizer

    source = _source(ref, None)
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
    if path.is_dir():
        return str(path)
    if path.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1:
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
