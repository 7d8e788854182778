"""The YAML block at the top of a card, which is edited on the web and untrusted.

It is read as text: YAML's rules turn `no` into false, `1.10` into 1.1 and `1:59:59` into a number,
differently in each version and library, and none of it is what the author wrote.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from softhub.errors import InvalidAdapter

MAX_FRONT_MATTER = 64 * 1024
DEPRECATED = "softhub_deprecated"
"""Key of the card that says why an adapter should no longer be used."""

_BLOCK = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$\n?", re.DOTALL | re.MULTILINE)
_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
"""Infers no types: scalars are texts."""
_STANDARD_TAG = re.compile(r"!|tag:yaml\.org,2002:[a-z]+")
_MAX_DEPTH = 16
_OPENING = (yaml.SequenceStartEvent, yaml.MappingStartEvent)
_CLOSING = (yaml.SequenceEndEvent, yaml.MappingEndEvent)


def read_front_matter(card: bytes) -> dict[str, Any]:
    """Return the front matter of a card, all scalars in it as texts; empty if there is none.

    Raises:
        InvalidAdapter: The block is too long, not YAML, not a mapping, or uses aliases or tags
            of a program's own.
    """
    match = _BLOCK.match(card.decode("utf-8", errors="replace"))
    block = match.group(1) if match else ""
    if len(block) > MAX_FRONT_MATTER:
        raise InvalidAdapter(
            f"the card's front matter has {len(block)} characters; expected at most "
            f"{MAX_FRONT_MATTER}"
        )
    try:
        _check_events(block)
        values = yaml.load(block, Loader=_LOADER)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidAdapter(f"the card's front matter is not plain YAML: {reason}") from error
    if not (values is None or isinstance(values, dict)):
        raise InvalidAdapter("the card's front matter is not a mapping of keys to values")
    return values or {}


def add_to_front_matter(card: bytes, key: str, value: Mapping[str, str]) -> bytes:
    """Return a card with one more key in its front matter, and everything else to the byte.

    Args:
        card: The card, with or without front matter.
        key: The key; if the front matter has it, its value is replaced.
        value: Texts by name.

    Raises:
        InvalidAdapter: The front matter is not valid, or written so that no key can be added.
    """
    before = read_front_matter(card)
    entry = f"{key}: {json.dumps(value, ensure_ascii=False)}"  # JSON is YAML, on one line
    text = card.decode("utf-8", errors="surrogateescape")
    match = _BLOCK.match(text)
    if match:
        start, end, insertion = _place_of(match.group(1), key, entry)
        offset = match.start(1)
        text = text[: offset + start] + insertion + text[offset + end :]
    else:
        mark = "\ufeff" if text.startswith("\ufeff") else ""
        text = f"{mark}---\n{entry}\n---\n{text.removeprefix(mark)}"
    edited = text.encode("utf-8", errors="surrogateescape")
    if read_front_matter(edited) != {**before, key: dict(value)}:
        raise InvalidAdapter(
            f"the card's front matter is written so that {key} cannot be added to it; expected "
            "one 'key: value' a line; add the key by hand and push again"
        )
    return edited


def _place_of(block: str, key: str, entry: str) -> tuple[int, int, str]:
    """Return the start and end of what an entry replaces in a block, and the text to insert."""
    # The loader in Python: the one in C counts positions in another way.
    root: Any = yaml.compose(block, Loader=yaml.BaseLoader)
    line_end = "\r\n" if "\r\n" in block else "\n"
    if root is None:
        return 0, 0, entry + line_end
    for name, value in root.value:
        if name.value == key:
            return name.start_mark.index, len(block[: _end_of(value)].rstrip()), entry
    start = root.start_mark.index
    if root.flow_style:
        return start + 1, start + 1, entry + (", " if root.value else "")
    return start, start, entry + line_end + " " * root.start_mark.column


def _end_of(node: Any) -> int:
    """Return where a value ends; what PyYAML takes for the end of a block is behind comments."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style:
        return int(node.end_mark.index)
    if isinstance(node, yaml.MappingNode):
        return _end_of(node.value[-1][1])
    return _end_of(node.value[-1])


def _check_events(block: str) -> None:
    """Reject aliases, whose expansion can fill the memory, deep nesting, and tags of programs.

    Raises:
        yaml.YAMLError: The block has one of them, or is not YAML.
    """
    depth = 0
    for event in yaml.parse(block, Loader=_LOADER):
        depth += isinstance(event, _OPENING) - isinstance(event, _CLOSING)
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed in a card")
        tag = getattr(event, "tag", None)
        if tag is not None and not _STANDARD_TAG.fullmatch(tag):
            raise yaml.YAMLError("tags other than YAML's own are not allowed in a card")
        if depth > _MAX_DEPTH:
            raise yaml.YAMLError(f"nested deeper than {_MAX_DEPTH} levels")
