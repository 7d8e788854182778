"""Bodies of requests: OpenAI's fields that are supported, and no others.

A field that is unknown, or that OpenAI has and this server does not support, is refused by its
name. Options that are supported only at their neutral value accept that value.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from softhub.serving.errors import ApiError
from softhub.tasks.generation_options import LONGEST_STOP, MOST_STOPS

Columns = dict[str, Any]
"""A row with a value for each column of the template of the prompt's task."""

_Item = TypeVar("_Item")
Several = Annotated[list[_Item], Field(fail_fast=True)]
"""A list of which the first wrong item is reported, not each of a million."""

NEUTRAL: Mapping[str, float] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
"""Sampling options with which no token is more or less probable than the model makes it."""


class Body(BaseModel):
    """A body without unknown fields; `null` is the same as leaving a field out, as for OpenAI."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        given = {name: value for name, value in fields.items() if value is not None}
        unknown = [name for name in given if name not in cls.model_fields]
        for name in unknown[1:]:  # one is reported, not each of many
            del given[name]
        return given


class StreamOptions(Body):
    """Options of a stream."""

    include_usage: bool = False


Stop = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]],
    Field(max_length=MOST_STOPS, fail_fast=True),
]


class Sampling(Body):
    """Fields of both routes that generate text."""

    model: str
    n: int = Field(1, ge=1, le=128)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    repetition_penalty: float | None = Field(None, gt=0)
    stop: Annotated[str, Field(max_length=LONGEST_STOP)] | Stop | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    user: str | None = None
    frequency_penalty: float | None = Field(None, ge=0, le=0)
    presence_penalty: float | None = Field(None, ge=0, le=0)

    def options(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of `PromptModel.generate`; what is left out is the task's.

        Args:
            task: Generation options of the prompt's task.

        Raises:
            ApiError: Options contradict each other.
        """
        if self.stream_options is not None and not self.stream:
            raise ApiError(
                400,
                "stream_options has no effect without stream: true; set it, or leave out "
                "stream_options.",
                param="stream_options",
            )
        found: dict[str, Any] = {}
        if self.max_tokens is not None:
            found["max_new_tokens"] = self.max_tokens
        if self.stop:
            found["stop"] = [self.stop] if isinstance(self.stop, str) else list(self.stop)
        if self.repetition_penalty is not None:
            found["repetition_penalty"] = self.repetition_penalty
        found.update(self._sampling(task))
        if self.n > 1 and not found.get("do_sample", task.get("do_sample")):
            raise ApiError(
                400,
                f"n is {self.n}, but without sampling all answers are equal: set temperature.",
                param="n",
            )
        return found

    def _sampling(self, task: Mapping[str, Any]) -> dict[str, Any]:
        options = {name: getattr(self, name) for name in NEUTRAL}
        given = {name: value for name, value in options.items() if value is not None}
        if not given:
            return {}
        if self.temperature == 0:
            return {"do_sample": False}
        return {"do_sample": True, **task_sampling(task, given), **given}

    @property
    def length_field(self) -> str:
        """The field that sets the maximum number of new tokens."""
        return "max_tokens"

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with the number of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionBody(Sampling):
    """Body of `/v1/completions`; a prompt may also be a row of the task's template."""

    prompt: str | Columns | Several[str | Columns]
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    suffix: None = None


class ContentPart(Body):
    """A part of a message; only texts are supported."""

    type: Literal["text"]
    text: str


class Message(Body):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Several[ContentPart]

    def plain(self) -> dict[str, str]:
        """Return it with its content as one text."""
        parts = self.content
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        return {"role": self.role, "content": text}


class TextFormat(Body):
    """The only supported format of an answer."""

    type: Literal["text"]


class ChatBody(Sampling):
    """Body of `/v1/chat/completions`."""

    messages: Several[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: TextFormat | None = None

    @property
    def length_field(self) -> str:
        """The field that sets the maximum number of new tokens."""
        return "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"

    def options(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of `PromptModel.generate`.

        Args:
            task: Generation options of the prompt's task.

        Raises:
            ApiError: Options contradict each other.
        """
        if self.max_completion_tokens is not None:
            if self.max_tokens not in (None, self.max_completion_tokens):
                raise ApiError(
                    400,
                    "max_tokens and max_completion_tokens differ; give one of them.",
                    param="max_tokens",
                )
            self.max_tokens = self.max_completion_tokens
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiError(400, "top_logprobs requires logprobs: true.", param="top_logprobs")
        return super().options(task)


class ClassifyBody(Body):
    """Body of `/v1/classify`."""

    model: str
    input: str | Columns | Several[str | Columns]
    abstain_below: float | None = Field(None, ge=0, le=1)
    user: str | None = None


class ScoreBody(Body):
    """Body of `/v1/score`: reference texts as continuations of inputs."""

    model: str
    input: str | Columns | Several[str | Columns]
    target: str | Several[str]
    user: str | None = None


PromptName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}$")]


class LoadBody(Body):
    """Body of `/v1/load_prompt_adapter`."""

    prompt_name: PromptName
    prompt_path: str = Field(min_length=1)
    force: bool = False


class UnloadBody(Body):
    """Body of `/v1/unload_prompt_adapter`."""

    prompt_name: str


def task_sampling(task: Mapping[str, Any], given: Collection[str]) -> dict[str, float]:
    """Return what of the sampling a request leaves out: the task's if it samples, or neutral.

    Args:
        task: Generation options of the prompt's task.
        given: Names of the options that the request has.
    """
    own = task if task.get("do_sample") else {}
    left = {name: neutral for name, neutral in NEUTRAL.items() if name not in given}
    return {name: type(neutral)(own.get(name, neutral)) for name, neutral in left.items()}


def as_rows(value: str | Columns | list[str | Columns], field: str) -> list[str | Columns]:
    """Return one or several inputs as a list.

    Raises:
        ApiError: The list is empty.
    """
    rows = value if isinstance(value, list) else [value]
    if not rows:
        raise ApiError(400, f"{field} is an empty list; expected at least one.", param=field)
    return rows
