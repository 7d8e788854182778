"""The prompts of a vLLM server: checked once when they are loaded, then found by name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from softhub.adapter.adapter import Adapter
from softhub.adapter.validation import check_folder
from softhub.errors import ConfigError, PromptNotLoaded
from softhub.hub import Hub
from softhub.model.encoding import EncodedText
from softhub.serving.on_demand import MOST, OnDemand, read_adapter
from softhub.serving.vllm.served import ServedBase, ServedPrompt, encode_rows, prepare_prompt
from softhub.serving.vllm.sources import Sources


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
        self._sources = sources
        self._hub = hub
        # One thread: the server's event loop goes on, and texts are tokenized in their order.
        self._encoding = ThreadPoolExecutor(1, thread_name_prefix="softhub-tokenizer")
        self._loaded: dict[str, ServedPrompt] = {}
        self._pulled = OnDemand(
            lambda: self._loaded,
            lambda name: self._load(name, lambda: sources.pull(name, hub)),
            self.unload,
            most=most,
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
            self.load(name, check_folder(folder))

    def load(self, name: str, adapter: Adapter) -> None:
        """Load a checked adapter; requests under way keep the prompt that it replaces.

        Raises:
            ConfigError: The name is the base's, or the task generates in a way that vLLM cannot.
            IncompatiblePrompt: The prompt was made for another base.
        """
        if name in self.base.names:
            raise ConfigError(f"{name!r} is the base model's name; load the prompt under another.")
        prompt = prepare_prompt(self.base, name, adapter)
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
        pull = partial(self._sources.pull, hub=self._hub)
        await self._load(name, lambda: read_adapter(source, pull))

    async def _load(self, name: str, read: Callable[[], Adapter]) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, lambda: self.load(name, read()))

    async def encode(
        self,
        prompt: ServedPrompt,
        rows: Sequence[str | Mapping[str, Any]],
        answers: Sequence[int],
    ) -> list[EncodedText]:
        """Return the token ids of texts as `encode_rows` does, without holding up requests.

        Raises:
            TaskError: The template alone does not fit, or a row lacks one of its columns.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._encoding, encode_rows, self.base, prompt, rows, answers
        )
