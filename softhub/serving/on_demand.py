"""Prompts that are loaded because a request named them, and unloaded when others are used."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Container

from softhub.adapter.adapter import Adapter
from softhub.adapter.validation import check_folder

MOST = 1000
"""Prompts that stay loaded because a request named them."""


def read_adapter(source: str, from_hub: Callable[[str], Adapter]) -> Adapter:
    """Read what an administrator names: a folder, or otherwise an adapter of the hub.

    Raises:
        SoftHubError: It cannot be found, or is damaged.
    """
    # `Path.is_dir` fails where `isdir` is False, as for a name that is too long.
    is_folder = os.path.isdir(source)  # noqa: PTH112
    return check_folder(source) if is_folder else from_hub(source)


class OnDemand:
    """Loads a prompt once for all requests that name it; the least recently used leave first.

    Args:
        loaded: Returns the names of all loaded prompts.
        load: Loads the prompt of a name.
        unload: Unloads it.
        most: Maximum number of prompts that were loaded here.
    """

    def __init__(
        self,
        loaded: Callable[[], Container[str]],
        load: Callable[[str], Awaitable[None]],
        unload: Callable[[str], None],
        *,
        most: int = MOST,
    ) -> None:
        self._loaded, self._load, self._unload = loaded, load, unload
        self._most = most
        self._names: OrderedDict[str, None] = OrderedDict()  # least recently used first
        self._loading: dict[str, asyncio.Lock] = {}

    async def require(self, name: str) -> None:
        """Load a prompt that is not loaded yet."""
        lock = self._loading.setdefault(name, asyncio.Lock())
        try:
            async with lock:  # several requests for one prompt load it once
                if name not in self._loaded():
                    await self._load(name)
                    self._names[name] = None
                    while len(self._names) > self._most:
                        self._unload(next(iter(self._names)))
        finally:
            self._loading.pop(name, None)

    def use(self, name: str) -> None:
        """Note that a prompt was used."""
        if name in self._names:
            self._names.move_to_end(name)

    def forget(self, name: str) -> None:
        """Leave a prompt to whoever has loaded or unloaded it otherwise."""
        self._names.pop(name, None)
