"""The task file as text: every key with the reason for its value (`task.yaml.j2`)."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2
import yaml

_WIDE = 2**31


def write_document(keys: Mapping[str, Any], notes: Mapping[str, str], origin: str) -> str:
    """Return the text of a task file.

    Args:
        keys: The variables of the file's template; those that are left out are not written.
        notes: Comments next to keys; next to a label: `verbalizer.<label>`.
        origin: The data that the task is drafted from.
    """
    source = resources.files(__package__).joinpath("task.yaml.j2").read_text("utf-8")
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"quoted": quoted, "comment": _comment}
    return environment.from_string(source).render(keys, notes=notes, origin=origin)


def quoted(text: str) -> str:
    """Return any text as YAML in double quotes, on one line."""
    dumped = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=_WIDE)
    return str(dumped).removesuffix("\n")


def _comment(text: str) -> str:
    """Return a text that cannot end a comment, and contains nothing that YAML refuses."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())
