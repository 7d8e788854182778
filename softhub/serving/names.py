"""What a request's `model` may name: a loaded prompt, the base, or an adapter of a hub.

An adapter of a hub must match a pattern that the server was started with. It is pulled, checked
and loaded when it is first requested, and stays until others have been used more recently.
"""

from __future__ import annotations

import asyncio
import fnmatch
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from softhub.errors import ConfigError, PromptNotLoaded, SoftHubError
from softhub.hub import Hub
from softhub.hub.names import check_repo_id
from softhub.serving.protocol import Engine, ServedPrompt

BASE = "base"
"""The name of the bare base, beside its own."""


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
        most: int = 1000,
    ) -> None:
        self.engine = engine
        self.hub = hub
        self.created = int(time.time())
        self._allow = tuple(allow)
        self._most = most
        self._pulled: OrderedDict[str, None] = OrderedDict()  # least recently used first
        self._pulling: dict[str, asyncio.Lock] = {}

    def allows(self, name: str) -> bool:
        """Return whether a name is one of an adapter that may be pulled."""
        if self.hub is None or self._is_base(name):
            return False
        repo_id = name.partition("@")[0]
        try:
            check_repo_id(repo_id)
        except SoftHubError:
            return False
        return any(fnmatch.fnmatchcase(repo_id, pattern) for pattern in self._allow)

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
            await self._pull(name)
        if name in self._pulled:
            self._pulled.move_to_end(name)
        return self.engine.find(name, name)

    async def load(self, name: str, source: str, *, force: bool = False) -> None:
        """Load a folder, or an adapter of the hub, under a name.

        Raises:
            SoftHubError: It cannot be found, or is damaged, or was made for another base.
        """
        loop = asyncio.get_running_loop()

        def load() -> None:
            folder = Path(source)
            if not folder.is_dir():
                folder = self._from_hub(source)
            self.engine.load(name, folder, force=force)

        await loop.run_in_executor(None, load)
        self._pulled.pop(name, None)

    def unload(self, name: str) -> None:
        """Unload a prompt.

        Raises:
            PromptNotLoaded: There is none of that name.
        """
        self.engine.unload(name)
        self._pulled.pop(name, None)

    def _is_base(self, name: str) -> bool:
        return name in (BASE, self.engine.base_name)

    async def _pull(self, name: str) -> None:
        lock = self._pulling.setdefault(name, asyncio.Lock())
        try:
            async with lock:  # several requests for one adapter pull it once
                if name not in self.engine.prompts:
                    await self.load(name, name)
                    self._pulled[name] = None
                    self._make_room()
        finally:
            self._pulling.pop(name, None)

    def _from_hub(self, source: str) -> Path:
        repo_id, _, revision = source.partition("@")
        try:
            check_repo_id(repo_id)
        except SoftHubError as error:
            raise ConfigError(
                f"{source!r:.200} is neither a folder of this server nor a repository of its hub, "
                "such as me/mood or me/mood@v1."
            ) from error
        hub = self.hub or Hub()
        return hub.pull(repo_id, revision=revision or "main")

    def _make_room(self) -> None:
        while len(self._pulled) > self._most:
            oldest = next(iter(self._pulled))
            self.unload(oldest)
