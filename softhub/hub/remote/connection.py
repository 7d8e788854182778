"""Connection to a remote hub: access token, deadlines, retries, and readable errors.

The client of huggingface_hub waits 20 seconds and more for an endpoint that does not answer, sets
no deadline on most calls, and sends a token to any endpoint that it is given. This module adds
what is missing there.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from softhub.errors import (
    HubAccessDenied,
    HubError,
    HubUnavailable,
    RepositoryNotFound,
    RevisionNotFound,
    SoftHubError,
)
from softhub.hub.names import HUGGING_FACE, HubAddress
from softhub.hub.records import plain

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Answer = TypeVar("Answer")

ALIVE_SECONDS = 3.0
CALL_SECONDS = 60.0
TRIES = 3
MAX_PAUSE_SECONDS = 5.0
DEFAULT_PAUSE_SECONDS = 0.5
_TRANSIENT = frozenset({429, 500, 502, 503, 504})
_TRUE = frozenset({"1", "true", "yes", "on"})
_CERTIFICATE_HINT = (
    "its certificate is not trusted on this machine; if that is a proxy's or your organization's "
    "own, set SSL_CERT_FILE to its certificates"
)


class Connection:
    """One endpoint and the access token for it.

    Attributes:
        endpoint: URL without a trailing slash.
        token: What `HfApi` takes: a token, or False for none at all.
    """

    def __init__(self, endpoint: str, token: str | None, *, offline: bool = False) -> None:
        """Store the endpoint and choose the token; nothing is sent yet.

        Raises:
            HubAccessDenied: The token cannot be one; the message does not repeat it.
        """
        self.endpoint = endpoint
        self.token: str | Literal[False] = _token_for(endpoint, token)
        self._offline = offline
        self._alive = False

    @property
    def is_offline(self) -> bool:
        """Whether the caller, `SOFTHUB_OFFLINE` or `HF_HUB_OFFLINE` forbids network access."""
        from huggingface_hub import constants

        variable = os.environ.get("SOFTHUB_OFFLINE", "").lower()
        return self._offline or variable in _TRUE or bool(constants.HF_HUB_OFFLINE)

    @property
    def api(self) -> HfApi:
        """The client of huggingface_hub, with this endpoint and this token and no other."""
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.endpoint, token=self.token)

    def read(self, call: Callable[[HfApi], Answer], what: str) -> Answer:
        """Make a call that changes nothing, and retry it on a transient failure.

        Args:
            call: The call, which gets the client.
            what: Name of the requested object in messages, such as `me/sentiment@main`.

        Returns:
            What the call returns.

        Raises:
            HubError: A subclass of it, depending on the hub's answer.
        """
        self._check_alive()
        for remaining in range(TRIES - 1, -1, -1):
            try:
                return self._within(CALL_SECONDS, call)
            except Exception as error:
                if not remaining or not _is_transient(error):
                    with self._translating_errors(what):
                        raise
                time.sleep(_pause(error))
        raise AssertionError("unreachable")

    def write(self, call: Callable[[HfApi], Answer], what: str) -> Answer:
        """Make a call that changes something, once.

        Args:
            call: The call, which gets the client.
            what: What is changed, for messages.

        Returns:
            What the call returns.

        Raises:
            HubError: A subclass of it, depending on the hub's answer.
        """
        self._check_alive()
        with self._translating_errors(what):
            return self._within(5 * CALL_SECONDS, call)

    def login_hint(self) -> str:
        """Return a hint on how to get a token for this hub."""
        if self.endpoint == HUGGING_FACE:
            return "check the token's permissions" if self.token else "log in with `softhub login`"
        return "set SOFTHUB_TOKEN to a token for this hub, and SOFTHUB_HUB to the hub"

    def without_token(self, text: str) -> str:
        """Return a text of the hub's or the client's with the access token replaced."""
        return text.replace(self.token, "(the access token)") if self.token else text

    def _check_alive(self) -> None:
        """Make sure, within `ALIVE_SECONDS`, that softhub may go online and the hub answers."""
        if self.is_offline:
            raise HubUnavailable(
                "softhub is offline (--offline, SOFTHUB_OFFLINE or HF_HUB_OFFLINE), so "
                f"{self.endpoint} was not contacted; go online, or use an adapter that "
                "was pulled before"
            )
        if not self._alive:
            with self._translating_errors(self.endpoint):
                self._within(ALIVE_SECONDS, self._send_head_request)
            self._alive = True

    def _send_head_request(self, _: HfApi) -> None:
        from huggingface_hub import get_session

        get_session().head(self.endpoint, timeout=ALIVE_SECONDS, follow_redirects=False)

    def _within(self, seconds: float, call: Callable[[HfApi], Answer]) -> Answer:
        """Run a call in a separate thread, so that it cannot block the caller for longer."""
        result: list[Answer] = []
        failure: list[BaseException] = []

        from softhub.hub.remote.transport import guarded

        def run() -> None:
            try:
                with guarded(self.endpoint, seconds):
                    result.append(call(self.api))
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=run, daemon=True, name="softhub-hub-call")
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            raise self._unavailable(f"no answer within {seconds:.0f} s")
        if failure:
            raise failure[0]
        return result[0]

    @contextmanager
    def _translating_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except SoftHubError as error:
            error.args = (self.without_token(str(error)),)
            raise
        except Exception as error:
            raise self._translated(error, what) from error

    def _translated(self, error: Exception, what: str) -> HubError:
        from huggingface_hub import errors

        if isinstance(error, errors.GatedRepoError):
            return HubAccessDenied(
                f"{what} on {self.endpoint} is gated; request access on its web page"
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return RevisionNotFound(f"{what} does not exist on {self.endpoint}; see `softhub info`")
        if isinstance(error, errors.RepositoryNotFoundError):
            return RepositoryNotFound(
                f"{what} does not exist on {self.endpoint}, or is private and not yours; "
                f"{self.login_hint()}"
            )
        told = getattr(error, "server_message", None) or str(error) or type(error).__name__
        reason = plain(self.without_token(str(told)), most=300)
        if isinstance(error, errors.RemoteEntryNotFoundError):
            return HubError(
                f"{what} is listed by {self.endpoint} but cannot be read; it was changed or "
                "deleted in the meantime, so run the command again"
            )
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            reason = f"{_CERTIFICATE_HINT} ({reason})"
        if _is_transport(error):
            return self._unavailable(reason)
        status = _status(error)
        if status in (401, 403):
            return HubAccessDenied(f"{self.endpoint} refused {what}: {reason}; {self.login_hint()}")
        if status in _TRANSIENT:
            return self._unavailable(f"it answered {status} for {what}: {reason}")
        if status:
            return HubError(f"{self.endpoint} answered {status} for {what}: {reason}")
        return HubError(
            f"{self.endpoint} answered the request for {what} with something that the client does "
            f"not understand ({type(error).__name__}: {reason}); check that the endpoint speaks "
            "Hugging Face's protocol"
        )

    def _unavailable(self, reason: str) -> HubUnavailable:
        return HubUnavailable(
            f"{self.endpoint} is not available: {reason}; check the network and the address, "
            "then run the command again"
        )


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error of the client, or its cause, carries."""
    return _status(error) or (_status(error.__cause__) if error.__cause__ else None)


def _token_for(endpoint: str, token: str | None) -> str | Literal[False]:
    """Return the caller's token, or else the one that belongs to exactly this endpoint."""
    if token:
        return _checked_token(token, "token=")
    own, hub = os.environ.get("SOFTHUB_TOKEN"), os.environ.get("SOFTHUB_HUB")
    if own and hub and HubAddress.parse(hub).endpoint == endpoint:
        return _checked_token(own, "SOFTHUB_TOKEN")
    if endpoint == HUGGING_FACE:
        from huggingface_hub import constants, get_token

        if not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
            return _checked_token(get_token() or "", "the login of huggingface_hub")
    return False


def _checked_token(token: Any, source: str) -> str | Literal[False]:
    """Return a token without the white space around it; False if there is nothing else."""
    stripped = token.strip() if isinstance(token, str) else None
    if stripped is None or not all("!" <= character <= "~" for character in stripped):
        raise HubAccessDenied(
            f"the access token from {source} contains characters that no token has (white space, "
            "control or accented characters), or is not text; copy it again (it is not shown here)"
        )
    return stripped or False


def _is_transient(error: BaseException) -> bool:
    return _status(error) in _TRANSIENT or _is_transport(error)


def _status(error: BaseException) -> int | None:
    status: Any = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _is_transport(error: BaseException) -> bool:
    # By name, because the client has changed its HTTP library before.
    if isinstance(error, HubUnavailable):
        return False
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & {"TransportError", "OfflineModeIsEnabled", "ConnectionError"})


def _pause(error: BaseException) -> float:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        seconds = float(headers.get("Retry-After", DEFAULT_PAUSE_SECONDS))
    except ValueError:
        return DEFAULT_PAUSE_SECONDS
    known = DEFAULT_PAUSE_SECONDS if math.isnan(seconds) else seconds
    return min(max(known, 0.1), MAX_PAUSE_SECONDS)
