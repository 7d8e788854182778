"""The task file as text: every key with the reason for its value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

_WIDE = 2**31
_ABOVE = {
    "dataset": "",
    "template": "\n# What the model reads. It ends without a space: label words begin with one.",
    "verbalizer": "# Label: the word that the model scores for it (or a list of such words).",
    "generation": "# The generated text begins on a line of its own.",
    "hard_templates": "\n# The best of these on dev is the zero-shot baseline: add your prompts.",
    "metrics": "",
}
_BESIDE = {
    "data_files": "relative to this file",
    "splits": "softhub's name of a split: the dataset's",
    "drop_incomplete": "some rows lack a value; without this they are an error",
    "multilabel": "each label is a question of its own, answered by yes or no",
    "label_map": "spelling in the data: label",
    "max_length": "tokens at which a text is truncated",
    "class_weights": "rare labels count more in training; remove it to compare",
    "metrics": "the first one is the main one",
}
# Written as comments where the data says nothing.
_UNSET = {
    "description": "# description: A sentence that describes the task; training starts from it.",
    "language": "# language: en  # of the texts, as an ISO 639-1 code",
    "dev": "  # Without a dev split, a tenth of train is held out to choose the best checkpoint.",
    "license": "  # license: License of the data.",
    "source": "  # source: Who created the data, and where it is.",
    "group_column": "# group_column: review_id  # rows that belong together: all on the same side",
    "max_length": "# max_length: 512  # tokens at which a text is truncated; default: the model's",
}
_QUOTED_KEYS = ("verbalizer", "label_map")


def write_document(keys: Mapping[str, Any], notes: Mapping[str, str], origin: str) -> str:
    """Return the text of a task file.

    Args:
        keys: Plain values by key, in order; None for a key that is only mentioned in a comment.
        notes: Comments beside keys; beside a label: `verbalizer.<label>`.
        origin: The data that the task is drafted from.
    """
    lines = [
        f"# Drafted by softhub init-task from {_comment(origin)}. Read it through: each guess has",
        "# its reason beside it, and every line can be changed.",
        *_entries(keys, notes),
    ]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """Return a text as YAML in double quotes, on one line: any text, whatever it looks like."""
    dumped = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=_WIDE)
    return str(dumped).removesuffix("\n")


def _entries(
    keys: Mapping[str, Any], notes: Mapping[str, str], parent: str = "", indent: str = ""
) -> Iterator[str]:
    for key, value in keys.items():
        if value is None:
            if key in _UNSET:
                yield _UNSET[key]
            continue
        if not parent and key in _ABOVE:
            yield from _ABOVE[key].split("\n")
        name = f"{indent}{quoted(key) if parent in _QUOTED_KEYS else key}:"
        note = notes.get(f"{parent}.{key}" if parent else key) or (
            _BESIDE.get(key) if parent not in _QUOTED_KEYS else None
        )
        beside = f"  # {_comment(note)}" if note else ""
        if isinstance(value, Mapping):
            yield f"{name}{beside}"
            yield from _entries(value, notes, key, f"{indent}  ")
        elif isinstance(value, list):
            yield f"{name}{beside}"
            yield from (f"{indent}  - {quoted(item)}" for item in value)
        else:
            yield f"{name} {_value(value)}{beside}"


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(value)}]"
    return quoted(value) if isinstance(value, str) else str(value).lower()


def _comment(text: str) -> str:
    """Return a text that cannot end a comment, and holds nothing that YAML refuses."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())
