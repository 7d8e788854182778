"""What a request's `model` may name: a loaded prompt, the base, or an adapter of a hub.

An adapter of a hub must match a pattern that the server was started with. It is pulled, checked
and loaded when it is first requested, and stays until others have been used more recently.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from softhub.adapter.adapter import Adapter
from softhub.errors import ConfigError, PromptNotLoaded, SoftHubError
from softhub.hub import Hub
from softhub.hub.names import DEFAULT_REVISION, check_repo_id, is_permitted, split_reference
from softhub.serving.on_demand import MOST, OnDemand, read_adapter
from softhub.serving.protocol import Engine, ServedPrompt

BASE = "base"
"""The name of the bare base, beside its own."""


def check_prompt_name(name: str, base_name: str | None = None) -> None:
    """Refuse a prompt that no request could name, because the bare base would answer.

    Args:
        name: Name of the prompt.
        base_name: The base model's name; None if it is not known yet.

    Raises:
        ConfigError: It is one of the base's names.
    """
    if name in (BASE, base_name):
        raise ConfigError(f"{name!r} is the base model's name; load the prompt under another.")


class ServedNames:
    """Finds the prompt that a request names.

    Args:
        engine: Where prompts are loaded.
        hub: Hub whose adapters may be requested; None for none.
        allow: Patterns of their names, such as `me/*`.
        most: Maximum number of adapters that were loaded because a request named them.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        hub: Hub | None = None,
        allow: Sequence[str] = (),
        most: int = MOST,
    ) -> None:
        self.engine = engine
        self.hub = hub
        self.created = int(time.time())
        self._allow = tuple(allow)
        self._pulled = OnDemand(
            lambda: engine.prompts,
            lambda name: self._load(name, lambda: self._from_hub(name)),
            self.unload,
            most=most,
        )

    def allows(self, name: str) -> bool:
        """Return whether a name is one of an adapter that may be pulled."""
        if self.hub is None or self._is_base(name):
            return False
        return is_permitted(name, self._allow)

    async def find(self, name: str) -> ServedPrompt:
        """Return the prompt of a name as it is now, after pulling it if necessary.

        Raises:
            PromptNotLoaded: There is none, and none may be pulled.
            HubError: It cannot be pulled.
            InvalidAdapter: It is damaged or hostile.
            IncompatiblePrompt: It was made for another base.
        """
        if self._is_base(name):
            return self.engine.find(None, name)
        if name not in self.engine.prompts:
            if not self.allows(name):
                raise PromptNotLoaded(
                    f"The model {name!r:.200} does not exist; GET /v1/models lists those that do."
                )
            await self._pulled.require(name)
        self._pulled.use(name)
        return self.engine.find(name, name)

    async def load(self, name: str, source: str, *, force: bool = False) -> None:
        """Load a folder, or an adapter of the hub, under a name.

        Raises:
            SoftHubError: It cannot be found, or is damaged, or was made for another base; or the
                name is the base's.
        """
        check_prompt_name(name, self.engine.base_name)
        await self._load(name, lambda: read_adapter(source, self._from_hub), force=force)

    def unload(self, name: str) -> None:
        """Unload a prompt.

        Raises:
            PromptNotLoaded: There is none of that name.
        """
        self.engine.unload(name)
        self._pulled.forget(name)

    async def _load(self, name: str, read: Callable[[], Adapter], *, force: bool = False) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, lambda: self.engine.load(name, read(), force=force))
        self._pulled.forget(name)

    def _is_base(self, name: str) -> bool:
        return name in (BASE, self.engine.base_name)

    def _from_hub(self, source: str) -> Adapter:
        repo_id, revision = split_reference(source)
        try:
            check_repo_id(repo_id)
        except SoftHubError as error:
            raise ConfigError(
                f"{source!r:.200} is neither a folder of this server nor a repository of its hub, "
                "such as me/mood or me/mood@v1."
            ) from error
        hub = self.hub or Hub()
        return hub.read(repo_id, revision=revision or DEFAULT_REVISION)
