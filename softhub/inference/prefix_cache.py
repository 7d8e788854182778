"""Keep the keys and values of prompts within a byte budget.

A prompt's vectors are kilobytes, but its keys and values are a thousand times more: those of the
prompts that were used last are kept, and the others are computed again when they are needed. They
are always computed from the prompt alone, at batch size 1, so a hit, a miss and an eviction give
the same answer, bit for bit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

import torch

from softhub.errors import ConfigError
from softhub.model.kv_cache import Prefix

_SHARE_OF_FREE_MEMORY = 0.25


@dataclass
class PrefixUse:
    """How often the keys and values of a prompt were found, computed, and discarded again.

    Attributes:
        hits: Uses that found them.
        misses: Uses that computed them.
        evictions: How often they made room for those of another prompt.
    """

    hits: int = 0
    misses: int = 0
    evictions: int = 0


@dataclass(frozen=True)
class MemoryUse:
    """What a `PromptModel` holds for its prompts, in bytes.

    Attributes:
        prompts: Number of loaded prompts.
        vector_bytes: Their vectors (of a prefix, its keys and values), which stay resident.
        prefixes: Number of prompts whose keys and values are held.
        prefix_bytes: These keys and values.
        prefix_budget: Maximum of `prefix_bytes`, unless pinned prompts alone need more.
        pinned: Names of the prompts whose keys and values are never discarded.
        uses: For each loaded prompt, how often its keys and values were found, computed and
            discarded.
    """

    prompts: int
    vector_bytes: int
    prefixes: int
    prefix_bytes: int
    prefix_budget: int
    pinned: tuple[str, ...]
    uses: Mapping[str, PrefixUse]


class Owner(Protocol):
    """A prompt, as the cache sees it."""

    pinned: bool
    use: PrefixUse


_Owner = TypeVar("_Owner", bound=Owner)


class PrefixCache(Generic[_Owner]):
    """Keys and values of the prompts that were used last; several threads may use it.

    An entry lives no longer than its prompt, so one that is unloaded leaves with its last request.

    Args:
        budget: Maximum number of bytes. Pinned prompts stay and count towards it.

    Raises:
        ConfigError: It is negative.
    """

    def __init__(self, budget: int) -> None:
        if budget < 0:
            raise ConfigError(f"prefix_budget is {budget}; expected a number of bytes, 0 or more.")
        self.budget = budget
        self._entries: WeakKeyDictionary[_Owner, Prefix] = WeakKeyDictionary()  # oldest use first
        self._lock = threading.Lock()

    def get(self, prompt: _Owner, compute: Callable[[], Prefix]) -> Prefix:
        """Return a prompt's keys and values, and keep them if they fit the budget."""
        with self._lock:
            found = self._entries.pop(prompt, None)
            if found is not None:
                self._entries[prompt] = found  # now the last used
                prompt.use.hits += 1
                return found
        prefix = compute()  # outside the lock: other prompts need not wait
        with self._lock:
            prompt.use.misses += 1
            self._make_room(prefix.nbytes, prompt)
            if prompt.pinned or self._held() + prefix.nbytes <= self.budget:
                self._entries[prompt] = prefix
        return prefix

    def held(self) -> tuple[int, int]:
        """Return how many prompts' keys and values are held, and their bytes."""
        with self._lock:
            return len(self._entries), self._held()

    def _held(self) -> int:
        return sum(prefix.nbytes for prefix in self._entries.values())

    def _make_room(self, size: int, prompt: _Owner) -> None:
        """Discard the entries used longest ago until `size` bytes fit, if they ever can."""
        free = self.budget - self._held()
        evictable = [(owner, each) for owner, each in self._entries.items() if not owner.pinned]
        if free + sum(each.nbytes for _, each in evictable) < size and not prompt.pinned:
            return
        for owner, each in evictable:
            if free >= size:
                return
            del self._entries[owner]
            owner.use.evictions += 1
            free += each.nbytes


def default_budget(device: torch.device) -> int:
    """Return a quarter of the memory that is free on a device now."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        import psutil

        free = psutil.virtual_memory().available
    return int(free * _SHARE_OF_FREE_MEMORY)
