"""Bodies of the routes that vLLM does not have; they are those of `softhub serve`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Columns = dict[str, Any]
"""A row with a value for each column of the template of the prompt's task."""
Inputs = str | Columns | Annotated[list[str | Columns], Field(min_length=1, max_length=128)]


class Body(BaseModel):
    """A body without unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ClassifyBody(Body):
    """Body of `/v1/classify`."""

    model: str
    input: Inputs
    abstain_below: float | None = Field(None, ge=0, le=1)
    user: str | None = None


class ScoreBody(Body):
    """Body of `/v1/score`: reference texts as continuations of inputs."""

    model: str
    input: Inputs
    target: str | list[str]
    user: str | None = None


class LoadBody(Body):
    """Body of `/v1/load_prompt_adapter`."""

    prompt_name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}$")]
    prompt_path: str = Field(min_length=1)


class UnloadBody(Body):
    """Body of `/v1/unload_prompt_adapter`."""

    prompt_name: str


def as_rows(value: str | Columns | list[str | Columns]) -> list[str | Columns]:
    """Return one or several inputs as a list."""
    return value if isinstance(value, list) else [value]
