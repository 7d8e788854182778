"""Bodies of the routes that vLLM does not have; they are those of `softhub serve`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from softhub.serving import api_types
from softhub.serving.api_types import Body, Columns, UnloadBody

__all__ = ["Body", "ClassifyBody", "LoadBody", "ScoreBody", "UnloadBody", "as_rows"]

Inputs = (
    str
    | Columns
    | Annotated[list[str | Columns], Field(min_length=1, max_length=128, fail_fast=True)]
)
"""One row or several, which vLLM gets at once."""


class ClassifyBody(api_types.ClassifyBody):
    """Body of `/v1/classify`."""

    input: Inputs


class ScoreBody(api_types.ScoreBody):
    """Body of `/v1/score`."""

    input: Inputs


class LoadBody(Body):
    """Body of `/v1/load_prompt_adapter`; a prompt of another base cannot be forced."""

    prompt_name: api_types.PromptName
    prompt_path: str = Field(min_length=1)


def as_rows(value: Inputs) -> list[str | Columns]:
    """Return one or several inputs as a list."""
    return value if isinstance(value, list) else [value]
