"""`Adapter`: an adapter's files in memory, each parsed once, when it is first used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from softhub.adapter.front_matter import read_front_matter
from softhub.adapter.layout import CARD, CONFIG, MANIFEST, WEIGHTS, sha256_of
from softhub.adapter.manifest import Manifest, PrefixShape
from softhub.adapter.strict_json import parse_object
from softhub.adapter.weights import Weights, parse_weights
from softhub.errors import InvalidAdapter

if TYPE_CHECKING:
    from softhub.adapter.weights import Matrix


PREFIX_METHODS = ("PREFIX_TUNING", "CARTRIDGE")
"""PEFT's methods whose file has the keys and values of every layer, in the same layout."""
METHODS = ("PROMPT_TUNING", *PREFIX_METHODS)
"""PEFT's methods whose adapters softhub loads."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """The files of one adapter and their parsed content.

    An adapter that `softhub.adapter.validation` has checked is complete and consistent. Before
    that, a property raises `InvalidAdapter` if its own file is damaged, and files may be missing:
    a listing reads no weights.

    Attributes:
        files: Contents by name.
        origin: Where the files come from, for messages: a path or `repo_id@revision`.
    """

    files: Mapping[str, bytes] = field(repr=False)
    origin: str

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """`adapter_config.json`; empty if there is none."""
        data = self.files.get(CONFIG, b"{}")
        return MappingProxyType(parse_object(data, origin=f"{CONFIG} of {self.origin}"))

    @cached_property
    def manifest(self) -> Manifest | None:
        """`softhub.json`; None if plain PEFT saved the adapter."""
        return Manifest.from_bytes(self.files[MANIFEST]) if MANIFEST in self.files else None

    @cached_property
    def card_metadata(self) -> Mapping[str, Any]:
        """The front matter of `README.md`; empty if there is none."""
        return MappingProxyType(read_front_matter(self.files.get(CARD, b"")))

    @cached_property
    def weights(self) -> Weights:
        """The stored tensor."""
        if WEIGHTS not in self.files:
            raise InvalidAdapter(f"{self.origin} has no {WEIGHTS}; expected an adapter")
        return parse_weights(self.files[WEIGHTS], origin=f"{WEIGHTS} of {self.origin}")

    @cached_property
    def vectors(self) -> Matrix:
        """The stored tensor as float32 numbers, `[P, width]` or `[2P, H]` (see `Weights`)."""
        return self.weights.to_float32()

    @cached_property
    def prefix(self) -> PrefixShape | None:
        """Shape of the prefix that the config describes; None for prompt tuning."""
        if self.config.get("peft_type") not in PREFIX_METHODS:
            return None
        heads, width = self.config["num_attention_heads"], self.config["token_dim"]
        return PrefixShape(self.config["num_layers"], heads, width // heads)

    @cached_property
    def sha256(self) -> Mapping[str, str]:
        """SHA-256 of each file, by name."""
        return MappingProxyType({name: sha256_of(data) for name, data in self.files.items()})

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights file."""
        return self.sha256[WEIGHTS]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the stored tensor."""
        return self.weights.shape

    @property
    def dtype(self) -> str:
        """`F32`, `F16` or `BF16`."""
        return self.weights.dtype

    @property
    def total_bytes(self) -> int:
        """Size of all files together."""
        return sum(map(len, self.files.values()))
