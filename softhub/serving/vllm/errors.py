"""softhub's errors in the form of vLLM's answers."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from softhub.errors import (
    HubAccessDenied,
    HubError,
    PromptNotLoaded,
    RepositoryNotFound,
    RevisionNotFound,
    SoftHubError,
)

_NOT_FOUND = (PromptNotLoaded, RepositoryNotFound, RevisionNotFound, HubAccessDenied)


def status_of(error: SoftHubError) -> HTTPStatus:
    """Return the status that an error is answered with."""
    if isinstance(error, _NOT_FOUND):
        return HTTPStatus.NOT_FOUND
    if isinstance(error, HubError):
        return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.BAD_REQUEST


def error_response(error: SoftHubError, param: str | None = None) -> Any:
    """Return vLLM's record of an error."""
    from vllm.entrypoints.serve import create_error_response

    status = status_of(error)
    kind = "NotFoundError" if status is HTTPStatus.NOT_FOUND else "BadRequestError"
    return create_error_response(str(error), kind, status, param)
