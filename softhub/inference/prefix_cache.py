"""Keep the keys and values of prompts within a byte budget.

A prompt's vectors are kilobytes, but its keys and values are a thousand times more: those of the
prompts that were used last are kept, and the others are computed again when they are needed. They
are always computed from the prompt alone, at batch size 1, so a hit, a miss and an eviction give
the same answer, bit for bit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

import torch

from softhub.errors import ConfigError
from softhub.model.base import BaseModel
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

    @property
    def length(self) -> int:
        """Number of virtual tokens."""

    def prefix(self, base: BaseModel) -> Prefix:
        """Return its keys and values, from the cache or computed."""


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
        self._bytes_per_token = 0.0  # of the last one computed
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
            self._bytes_per_token = prefix.nbytes / prompt.length
            self._make_room(prefix.nbytes, prompt)
            if prompt.pinned or self._held() + prefix.nbytes <= self.budget:
                self._entries[prompt] = prefix
        return prefix

    def rounds(self, prompts: Sequence[_Owner], base: BaseModel) -> dict[_Owner, int]:
        """Divide prompts into rounds, so that those of one round fit the budget together.

        A call that answers the rows of one round after those of another computes each prompt once,
        however many prompts it has. The rounds depend on the budget alone, not on what is held, so
        equal calls form equal batches.

        Args:
            prompts: The prompts of a call, each once.
            base: The base model that computes keys and values.

        Returns:
            The number of each prompt's round, from 0.
        """
        if len(prompts) > 1 and not self._bytes_per_token:
            prompts[0].prefix(base)
        found, used, current = {}, 0.0, 0
        for prompt in prompts:
            size = self._bytes_per_token * prompt.length
            if used and used + size > self.budget:
                used, current = 0.0, current + 1
            used += size
            found[prompt] = current
        return found

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
