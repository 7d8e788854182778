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


class _PlainLoader(yaml.SafeLoader):
    """A safe loader without aliases, whose expansion can fill any memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed in a card")
        return super().compose_node(parent, index)


def read_front_matter(card: bytes) -> dict[str, Any]:
    """Return the card's front matter; empty if there is none.

    Raises:
        InvalidArtefact: The block is too long, no YAML, not a mapping, or uses aliases.
    """
    match = _BLOCK.match(card.decode("utf-8", errors="replace"))
    if match is None:
        return {}
    block = match.group(1)
    if len(block) > MAX_FRONT_MATTER:
        raise InvalidArtefact(
            f"the card's front matter has {len(block)} characters; expected at most "
            f"{MAX_FRONT_MATTER}"
        )
    try:
        values = yaml.load(block, Loader=_PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidArtefact(f"the card's front matter is not plain YAML: {reason}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InvalidArtefact("the card's front matter is not a mapping of keys to values")
    return values


def with_front_matter(card: bytes, values: Mapping[str, Any]) -> bytes:
    """Return the card with another front matter and the same body."""
    text = card.decode("utf-8", errors="replace")
    match = _BLOCK.match(text)
    body = text[match.end() :] if match else text
    block = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    return f"---\n{block}---\n{body}".encode()
