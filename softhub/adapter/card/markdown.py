"""Escaping of untrusted texts for Markdown, so that they are displayed and nothing else."""

import re

from softhub.adapter.portable import UNKNOWN_BASE

_MAX_LINE = 2_000
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]+")
_SPECIAL = re.compile(r"[\\`*_{}\[\]<>|#~&!$@]")
_BLOCK_START = re.compile(r"^(\d*)([-+=:.)])")
_BACKTICKS = re.compile(r"`+")


def one_line(text: str) -> str:
    """Return a text without line breaks, control characters or direction marks, truncated."""
    flat = " ".join(_INVISIBLE.sub(" ", text).split())
    return flat if len(flat) <= _MAX_LINE else f"{flat[:_MAX_LINE]}…"


def line(text: str) -> str:
    """Return a text escaped for Markdown, without mark-up, HTML or new blocks."""
    escaped = _SPECIAL.sub(r"\\\g<0>", one_line(text))
    return _BLOCK_START.sub(r"\1\\\2", escaped)


def code(text: str) -> str:
    """Return a text as a code span, even if it contains backticks."""
    flat = one_line(text) or " "
    fence = "`" * (_longest_run(flat) + 1)
    pad = " " if flat.startswith("`") or flat.endswith("`") else ""
    return f"{fence}{pad}{flat}{pad}{fence}"


def cell(text: str) -> str:
    """Return a text as a code span for a table, with bars escaped."""
    return code(text).replace("|", r"\|")


def block(text: str, language: str) -> str:
    """Return a text as a fenced block that nothing in the text can close."""
    fence = "`" * max(3, _longest_run(text) + 1)
    plain = _CONTROL.sub(" ", text.replace("\r\n", "\n").replace("\r", "\n"))
    return f"{fence}{language}\n{plain}\n{fence}"


def model_link(name: str) -> str:
    """Return a base model's name, linked to its page if it has an owner on the Hub."""
    if name == UNKNOWN_BASE:
        return "a base model that was not named"
    return f"[{code(name)}](https://huggingface.co/{name})" if "/" in name else code(name)


def _longest_run(text: str) -> int:
    return max((len(run) for run in _BACKTICKS.findall(text)), default=0)
