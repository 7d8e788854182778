"""The prompts of a vLLM server: checked once when they are loaded, then found by name."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from softhub.adapter.adapter import Adapter
from softhub.adapter.layout import sha256_of
from softhub.adapter.validation import check_folder
from softhub.errors import ConfigError, IncompatiblePrompt, PromptNotLoaded, UnsupportedAdapter
from softhub.hub import Hub
from softhub.model.encoding import Candidates, Encoder, render_chat
from softhub.model.fingerprint import compare_fingerprints
from softhub.serving.on_demand import MOST, OnDemand
from softhub.serving.vllm.sources import Sources
from softhub.tasks import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NOT_OF_VLLM = {"num_beams": 1, "no_repeat_ngram_size": 0}
"""Generation options without an equivalent in vLLM, and the value that has no effect."""

logger = logging.getLogger("vllm.softhub")


@dataclass(frozen=True, eq=False)
class ServedBase:
    """What vLLM's process knows of its base model.

    Attributes:
        names: Names under which vLLM serves it.
        hidden_size: Width H of the input embeddings.
        max_length: Maximum number of tokens of a row, with its answer.
        dtype: Dtype of the embeddings.
        identity: A fingerprint without the weights, which are in other processes.
        tokenizer: A tokenizer of its own; nobody else uses it.
    """

    names: tuple[str, ...]
    hidden_size: int
    max_length: int
    dtype: torch.dtype
    identity: Mapping[str, Any]
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class ServedPrompt:
    """A prompt as a request finds it; a later load under its name does not change it.

    Attributes:
        name: The name it is loaded under.
        vectors: `[P, H]` in the base's dtype.
        digest: SHA-256 of the vectors as they were stored.
        task: Its task with the chat rendered; None in adapters of plain PEFT.
        candidates: Its label words, for classification.
    """

    name: str
    vectors: torch.Tensor
    digest: str
    task: Task | None
    candidates: Candidates | None


class Prompts:
    """Prompts by name.

    Args:
        base: The base model.
        sources: Which prompts may be pulled when a request names them.
        hub: The hub that they are pulled from.
        most: Maximum number of prompts that were pulled because a request named them.
    """

    def __init__(self, base: ServedBase, sources: Sources, hub: Hub, *, most: int = MOST) -> None:
        self.base = base
        self.encoder = Encoder(base.tokenizer, is_encoder_decoder=False)
        self._sources = sources
        self._hub = hub
        self._loaded: dict[str, ServedPrompt] = {}
        self._pulled = OnDemand(
            lambda: self._loaded, lambda name: self.load_from(name, name), self.unload, most=most
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the loaded prompts."""
        return tuple(self._loaded)

    def load_all(self) -> None:
        """Load what a server starts with.

        Raises:
            SoftHubError: A prompt cannot be found, is damaged, or does not fit.
        """
        for name, folder in self._sources.at_start(self._hub).items():
            self.load(name, folder)

    def load(self, name: str, folder: Path) -> None:
        """Load an adapter folder; requests under way keep the prompt that it replaces.

        Raises:
            ConfigError: The name is the base's, or the task generates in a way that vLLM cannot.
            InvalidAdapter: The folder is damaged.
            IncompatiblePrompt: The prompt was made for another base.
        """
        if name in self.base.names:
            raise ConfigError(f"{name!r} is the base model's name; load the prompt under another.")
        prompt = self._prepare(name, check_folder(folder))
        self._loaded[name] = prompt  # in one step: every later request finds the new one
        self._pulled.forget(name)

    def unload(self, name: str) -> None:
        """Unload a prompt; requests under way keep it.

        Raises:
            PromptNotLoaded: There is none of that name.
        """
        if self._loaded.pop(name, None) is None:
            raise PromptNotLoaded(f"No prompt {name!r:.200} is loaded; see GET /v1/models.")
        self._pulled.forget(name)

    async def find(self, name: str | None) -> ServedPrompt | None:
        """Return the prompt of a name as it is now; None for a name that is not a prompt's.

        Raises:
            SoftHubError: It may be pulled from the hub, but that failed, or it does not fit.
        """
        if not name or name in self.base.names:
            return None
        if name not in self._loaded:
            if not self._sources.allows(name):
                return None
            await self._pulled.require(name)
        self._pulled.use(name)
        return self._loaded[name]

    async def load_from(self, name: str, source: str) -> None:
        """Load a folder, or an adapter that may be pulled, without holding up requests.

        Raises:
            SoftHubError: It cannot be found, is damaged, or does not fit.
        """
        loop = asyncio.get_running_loop()
        if Path(source).is_dir():
            folder = Path(source)
        else:
            folder = await loop.run_in_executor(None, self._sources.pull, source, self._hub)
        await loop.run_in_executor(None, self.load, name, folder)

    def _prepare(self, name: str, adapter: Adapter) -> ServedPrompt:
        check_kind(adapter)
        self._check_base(adapter)
        manifest = adapter.manifest
        record = manifest.task if manifest else None
        task = render_chat(Task.from_record(record), self.base.tokenizer) if record else None
        if task is not None:
            _check_generation(task)
        return ServedPrompt(
            name,
            torch.from_numpy(adapter.vectors).to(self.base.dtype),
            sha256_of(adapter.vectors.tobytes()),
            task,
            self.encoder.candidates_of(task) if task else None,
        )

    def _check_base(self, adapter: Adapter) -> None:
        width = adapter.shape[1]
        if width != self.base.hidden_size:
            raise IncompatiblePrompt(
                f"{adapter.origin} has vectors of width {width}; the base model "
                f"{self.base.names[0]} has {self.base.hidden_size}. Serve the base it was made for."
            )
        recorded = adapter.manifest.fingerprint if adapter.manifest else None
        verdict = compare_fingerprints(recorded, self.base.identity)
        if verdict.kind == "different":
            raise IncompatiblePrompt(
                f"{adapter.origin} was not made for {self.base.names[0]}: {verdict.reason}. Serve "
                "the base it was made for."
            )
        if recorded is None:
            logger.warning("%s records no base; only its width was checked.", adapter.origin)


def check_kind(adapter: Adapter) -> None:
    """Refuse adapters that are not input embeddings of a decoder.

    Raises:
        UnsupportedAdapter: It has keys and values, or belongs to an encoder-decoder.
    """
    method, task_type = adapter.config.get("peft_type"), adapter.config.get("task_type")
    if method != "PROMPT_TUNING":
        raise UnsupportedAdapter(
            f"{adapter.origin} is of the type {method}: keys and values of every layer, which "
            "vLLM cannot take with a request. Serve it with `softhub serve`, or train a prompt of "
            "input embeddings for vLLM."
        )
    if task_type != "CAUSAL_LM":
        raise UnsupportedAdapter(
            f"{adapter.origin} is for an encoder-decoder ({task_type}); vLLM serves prompts of "
            "decoders only. Serve it with `softhub serve`."
        )


def _check_generation(task: Task) -> None:
    for option, neutral in _NOT_OF_VLLM.items():
        value = task.generation.get(option, neutral)
        if value != neutral:
            raise ConfigError(
                f"The task {task.name!r} generates with {option}={value}, which vLLM does not "
                "support. Serve it with `softhub serve`, or train it without this option."
            )
