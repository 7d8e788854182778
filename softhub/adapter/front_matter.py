"""The YAML block at the top of a card, which people edit on the web and strangers write."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from softhub.errors import InvalidArtefact

MAX_FRONT_MATTER = 64 * 1024
DEPRECATED = "softhub_deprecated"
"""Key of the card that says why an adapter should no longer be used."""

_BLOCK = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$\n?", re.DOTALL | re.MULTILINE)
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH = 16
_OPENING = (yaml.SequenceStartEvent, yaml.MappingStartEvent)
_CLOSING = (yaml.SequenceEndEvent, yaml.MappingEndEvent)


def read_front_matter(card: bytes) -> dict[str, Any]:
    """Return the front matter of a card; empty if there is none.

    Raises:
        InvalidArtefact: The block is too long, not YAML, not a mapping, or uses aliases.
    """
    match = _BLOCK.match(card.decode("utf-8", errors="replace"))
    block = match.group(1) if match else ""
    if len(block) > MAX_FRONT_MATTER:
        raise InvalidArtefact(
            f"the card's front matter has {len(block)} characters; expected at most "
            f"{MAX_FRONT_MATTER}"
        )
    try:
        _check_events(block)
        values = yaml.load(block, Loader=_LOADER)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidArtefact(f"the card's front matter is not plain YAML: {reason}") from error
    if not (values is None or isinstance(values, dict)):
        raise InvalidArtefact("the card's front matter is not a mapping of keys to values")
    return values or {}


def with_front_matter(card: bytes, values: Mapping[str, Any]) -> bytes:
    """Return a card with other front matter and the same body."""
    text = card.decode("utf-8", errors="replace")
    match = _BLOCK.match(text)
    body = text[match.end() :] if match else text
    block = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    return f"---\n{block}---\n{body}".encode()


def _check_events(block: str) -> None:
    """Refuse aliases, whose expansion can fill the memory, and nesting that can crash a loader.

    Raises:
        yaml.YAMLError: The block has either, or is not YAML.
    """
    depth = 0
    for event in yaml.parse(block, Loader=_LOADER):
        depth += isinstance(event, _OPENING) - isinstance(event, _CLOSING)
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed in a card")
        if depth > _MAX_DEPTH:
            raise yaml.YAMLError(f"nested deeper than {_MAX_DEPTH} levels")
