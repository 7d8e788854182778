"""Bodies of requests: OpenAI's fields that are supported, and no others.

A field that is unknown, or that OpenAI has and this server does not support, is refused by its
name. Options that are supported only at their neutral value accept that value.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from softhub.serving.errors import ApiError

Columns = dict[str, Any]
"""A row with a value for each column of the template of the prompt's task."""


class Body(BaseModel):
    """A body without unknown fields; `null` is the same as leaving a field out, as for OpenAI."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        return {name: value for name, value in fields.items() if value is not None}


class StreamOptions(Body):
    """Options of a stream."""

    include_usage: bool = False


Stop = Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=16)]


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
    stop: str | Stop | None = None
    seed: int | None = Field(None, ge=0, lt=2**63)
    user: str | None = None
    frequency_penalty: float | None = Field(None, ge=0, le=0)
    presence_penalty: float | None = Field(None, ge=0, le=0)

    def options(self) -> dict[str, Any]:
        """Return the options of `PromptModel.generate`; what is left out is the task's.

        Raises:
            ApiError: Options contradict each other.
        """
        found: dict[str, Any] = {}
        if self.max_tokens is not None:
            found["max_new_tokens"] = self.max_tokens
        if self.stop:
            found["stop"] = [self.stop] if isinstance(self.stop, str) else list(self.stop)
        if self.repetition_penalty is not None:
            found["repetition_penalty"] = self.repetition_penalty
        found.update(self._sampling())
        if self.n > 1 and not found.get("do_sample"):
            raise ApiError(
                400,
                f"n is {self.n}, but without sampling all answers are equal: set temperature.",
                param="n",
            )
        return found

    def _sampling(self) -> dict[str, Any]:
        given = (self.temperature, self.top_p, self.top_k)
        if given == (None, None, None):
            return {}
        if self.temperature == 0:
            return {"do_sample": False}
        return {
            "do_sample": True,
            "temperature": 1.0 if self.temperature is None else float(self.temperature),
            "top_p": 1.0 if self.top_p is None else float(self.top_p),
            "top_k": self.top_k or 0,
        }

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with the number of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionBody(Sampling):
    """Body of `/v1/completions`; a prompt may also be a row of the task's template."""

    prompt: str | Columns | list[str | Columns]
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
    content: str | list[ContentPart]

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

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: TextFormat | None = None

    def options(self) -> dict[str, Any]:
        """Return the options of `PromptModel.generate`.

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
        return super().options()


class ClassifyBody(Body):
    """Body of `/v1/classify`."""

    model: str
    input: str | Columns | list[str | Columns]
    abstain_below: float | None = Field(None, ge=0, le=1)
    user: str | None = None


class ScoreBody(Body):
    """Body of `/v1/score`: reference texts as continuations of inputs."""

    model: str
    input: str | Columns | list[str | Columns]
    target: str | list[str]
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


def as_rows(value: str | Columns | list[str | Columns], field: str) -> list[str | Columns]:
    """Return one or several inputs as a list.

    Raises:
        ApiError: The list is empty.
    """
    rows = value if isinstance(value, list) else [value]
    if not rows:
        raise ApiError(400, f"{field} is an empty list; expected at least one.", param=field)
    return rows
