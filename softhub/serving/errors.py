"""Errors in the form of OpenAI's API, and which status each of softhub's errors has."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from softhub.errors import (
    BaseModelError,
    ConfigError,
    HubAccessDenied,
    HubError,
    HubUnavailable,
    IncompatiblePrompt,
    InvalidAdapter,
    PromptNotLoaded,
    RepositoryNotFound,
    RevisionNotFound,
    SoftHubError,
    TaskError,
    TextTooLong,
)
from softhub.serving.protocol import QueueFull


class ApiError(HTTPException):
    """An answer with an error status.

    Args:
        status: HTTP status.
        message: What was found, what was expected, and what to do next.
        param: The field of the request that is wrong.
        code: OpenAI's code, such as `model_not_found`.
        headers: Headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, _encodable(message), dict(headers or {}))
        self.param = None if param is None else _encodable(param)
        self.code = code

    @property
    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        error = {
            "message": self.detail,
            "type": _TYPES.get(self.status_code, "invalid_request_error"),
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}


def _encodable(text: str) -> str:
    """Return a text with half of a surrogate pair escaped: JSON may contain it, UTF-8 may not."""
    return text.encode(errors="backslashreplace").decode()


_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "timeout_error",
}

_STATUS: tuple[tuple[type[SoftHubError], int, str | None], ...] = (
    (PromptNotLoaded, 404, "model_not_found"),
    (RepositoryNotFound, 404, "model_not_found"),
    (RevisionNotFound, 404, "model_not_found"),
    (HubAccessDenied, 404, "model_not_found"),
    (HubUnavailable, 503, "hub_unavailable"),
    (HubError, 400, "hub_error"),
    (IncompatiblePrompt, 400, "incompatible_prompt"),
    (InvalidAdapter, 400, "invalid_adapter"),
    (TextTooLong, 400, "context_length_exceeded"),
    (ConfigError, 400, None),
    (TaskError, 400, None),
    (BaseModelError, 400, None),
)


def as_api_error(error: Exception) -> ApiError:
    """Return what the client gets for an error."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):  # an unknown path or method
        return ApiError(error.status_code, str(error.detail), headers=error.headers)
    if isinstance(error, RequestValidationError):
        return _validation_error(error)
    if isinstance(error, QueueFull):
        headers = {"Retry-After": str(error.retry_after)}
        return ApiError(429, str(error), code="queue_full", headers=headers)
    if isinstance(error, TimeoutError):
        return ApiError(504, "The request exceeded the server's time limit; ask for fewer tokens.")
    for kind, status, code in _STATUS:
        if isinstance(error, kind):
            return ApiError(status, str(error), code=code)
    return ApiError(500, "Internal server error; the server's log has the details.")


def _validation_error(error: RequestValidationError) -> ApiError:
    """Return an error that names a field that is wrong."""
    first = _most_telling(error.errors())
    if first["type"] == "json_invalid":
        return ApiError(400, "The body is not valid JSON.")
    field, *inner = (str(part) for part in first["loc"][1:] or [""])
    path = ".".join([field, *(part for part in inner if not _TYPE.match(part))])
    if not path:
        return ApiError(
            400,
            "The body is missing, is not declared as JSON, is not an object, or has a field whose "
            "name is not Unicode text; send a JSON object with the header "
            "Content-Type: application/json.",
        )
    if first["type"] == "extra_forbidden":
        message = f"The field {path!r:.100} is unknown or not supported; leave it out."
        return ApiError(400, message, param=field[:100], code="unsupported_parameter")
    message = f"The field {path!r:.100} is not valid: {first['msg']}."
    if field in ("prompt", "input") and path != field and isinstance(first["input"], int | list):
        message = f"The field {field!r} contains token ids, which are not supported; send texts."
    return ApiError(400, message, param=field[:100])


_TYPE = re.compile(r"str$|constrained-str$|dict\[|list\[")
"""What pydantic puts into the path of a field with several types, for that of the error."""


def _most_telling(errors: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the error that says most: a field of several types has one for each of them.

    It is the deepest, and of those of a field the one whose type is right.
    """
    deepest = max(errors, key=lambda each: len(each["loc"]))
    depth, field = len(deepest["loc"]), deepest["loc"][:2]
    alike = [each for each in errors if len(each["loc"]) == depth and each["loc"][:2] == field]
    return next((each for each in alike if not each["type"].endswith("_type")), deepest)
