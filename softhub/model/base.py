"""A base model: frozen and in eval mode, with its tokenizer, its name and its limits."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch

from softhub.errors import TaskError
from softhub.model.config_lengths import position_limit
from softhub.model.encoding import Encoder
from softhub.model.fingerprint import compute_fingerprint
from softhub.model.projection import ends_in_plain_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from softhub.model.probe import Capabilities

Placement = tuple[torch.device, torch.dtype]


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

        It is tested again after it was moved or cast.
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
