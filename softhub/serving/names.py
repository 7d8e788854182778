"""What a request's `model` may name: a loaded prompt, the base, or an adapter of a hub.

An adapter of a hub must match a pattern that the server was started with. It is pulled, checked
and loaded when it is first requested, and stays until others have been used more recently. A name
without a revision is that of `main`, so a revision is loaded once, and has one answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from softhub.adapter.adapter import Adapter
from softhub.errors import (
    ConfigError,
    HubAccessDenied,
    HubError,
    HubUnavailable,
    PromptNotLoaded,
    RepositoryNotFound,
    RevisionNotFound,
    SoftHubError,
)
from softhub.hub import Hub
from softhub.hub.names import DEFAULT_REVISION, check_repo_id, is_permitted, split_reference
from softhub.serving.on_demand import MOST, OnDemand, read_adapter
from softhub.serving.protocol import Engine, ServedPrompt

_log = logging.getLogger("softhub.serving")

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
            lambda name: self._load(name, lambda: self._requested(name)),
            self.unload,
            most=most,
        )

    def allows(self, name: str) -> bool:
        """Return whether a name is one of an adapter that may be pulled."""
        if self.hub is None or self._is_base(_without_main(name)):
            return False
        repo_id, revision = split_reference(name)
        return is_permitted(f"{repo_id}@{revision or DEFAULT_REVISION}", self._allow)

    async def find(self, name: str) -> ServedPrompt:
        """Return the prompt of a name as it is now, after pulling it if necessary.

        Raises:
            PromptNotLoaded: There is none, and none can be pulled.
            HubUnavailable: The hub does not answer.
            InvalidAdapter: It is damaged or hostile.
            IncompatiblePrompt: It was made for another base.
        """
        if self._is_base(name):
            return self.engine.find(None, name)
        loaded = self._loaded_as(name)
        if name not in self.engine.prompts:
            if not self.allows(name):
                raise _no_model(name)
            await self._pulled.require(loaded)
        self._pulled.use(loaded)
        return self.engine.find(loaded, name)

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
        loaded = self._loaded_as(name)
        if loaded not in self.engine.prompts:
            raise _no_model(name)
        self.engine.unload(loaded)
        self._pulled.forget(loaded)

    async def _load(self, name: str, read: Callable[[], Adapter], *, force: bool = False) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, lambda: self.engine.load(name, read(), force=force))
        self._pulled.forget(name)

    def _is_base(self, name: str) -> bool:
        return name in (BASE, self.engine.base_name)

    def _loaded_as(self, name: str) -> str:
        """Return the name under which what a request names is loaded, or would be."""
        return name if name in self.engine.prompts else _without_main(name)

    def _requested(self, name: str) -> Adapter:
        """Pull what a client names; what only the operator should know goes to the log."""
        try:
            return self._from_hub(name)
        except (RepositoryNotFound, RevisionNotFound, HubAccessDenied) as error:
            raise _no_model(name) from error
        except HubError as error:
            _log.warning("%r was not loaded: %s", name, error)
            raise HubUnavailable(
                f"The model {name!r:.200} cannot be loaded from the hub of this server now; try "
                "again later. The server's log has the reason."
            ) from error

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


def _without_main(name: str) -> str:
    """Return the name of an adapter without `@main`, which a missing revision stands for."""
    repo_id, revision = split_reference(name)
    return repo_id if revision in (None, DEFAULT_REVISION) else name


def _no_model(name: str) -> PromptNotLoaded:
    return PromptNotLoaded(
        f"The model {name!r:.200} does not exist; GET /v1/models lists those that are loaded."
    )
