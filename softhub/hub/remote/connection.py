"""How softhub talks to a remote hub: token, deadlines, retries, and errors in plain words.

huggingface_hub's client waits 20 s and more for a dead endpoint, has no deadline on most calls,
and sends a token to any endpoint that it is given; what is missing there stands here.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from softhub.errors import (
    HubAccessDenied,
    HubError,
    HubUnavailable,
    RepositoryNotFound,
    RevisionNotFound,
    SoftHubError,
)
from softhub.hub.names import HUGGING_FACE
from softhub.hub.records import plain

Answer = TypeVar("Answer")

ALIVE_SECONDS = 3.0
CALL_SECONDS = 60.0
TRIES = 3
LONGEST_PAUSE = 5.0
_PASSING = frozenset({429, 500, 502, 503, 504})
_YES = frozenset({"1", "true", "yes", "on"})


class Connection:
    """One endpoint and the token for it.

    Attributes:
        endpoint: URL without a trailing slash.
        token: What `HfApi` takes: a token, or False for none at all.
    """

    def __init__(self, endpoint: str, token: str | None, *, offline: bool = False) -> None:
        """Remember where to talk to; nothing is sent yet."""
        self.endpoint = endpoint
        self.token: str | Literal[False] = _token_for(endpoint, token)
        self._offline = offline
        self._alive = False

    @property
    def is_offline(self) -> bool:
        """Whether the caller, `SOFTHUB_OFFLINE` or `HF_HUB_OFFLINE` forbids the network."""
        from huggingface_hub import constants

        said = os.environ.get("SOFTHUB_OFFLINE", "").lower() in _YES
        return self._offline or said or bool(constants.HF_HUB_OFFLINE)

    def check(self) -> None:
        """Make sure, within `ALIVE_SECONDS`, that softhub may go online and somebody answers.

        Raises:
            HubUnavailable: Offline mode, or no answer.
        """
        if self.is_offline:
            raise HubUnavailable(
                f"softhub is offline (by --offline, SOFTHUB_OFFLINE or HF_HUB_OFFLINE), so "
                f"{self.endpoint} was not asked; go online, or use what was pulled before"
            )
        if not self._alive:
            with self.told(self.endpoint):
                self._within(ALIVE_SECONDS, self._knock)
            self._alive = True

    def read(self, call: Callable[[], Answer], what: str) -> Answer:
        """Make a call that changes nothing; again, if the trouble may pass.

        Args:
            call: The call.
            what: Whose absence a 404 means, for messages: `me/sentiment@main`.

        Raises:
            HubError: One of its kinds, by what the hub answered.
        """
        for remaining in range(TRIES - 1, -1, -1):
            try:
                return self._within(CALL_SECONDS, call)
            except Exception as error:
                if not remaining or not is_passing(error):
                    with self.told(what):
                        raise
                time.sleep(_pause(error))
        raise AssertionError("unreachable")

    def write(self, call: Callable[[], Answer], what: str) -> Answer:
        """Make a call that changes something, once.

        Raises:
            HubError: One of its kinds, by what the hub answered.
        """
        with self.told(what):
            return self._within(5 * CALL_SECONDS, call)

    @contextmanager
    def told(self, what: str) -> Iterator[None]:
        """Turn the client's errors inside the block into softhub's."""
        try:
            yield
        except SoftHubError:
            raise
        except Exception as error:
            raise self._translated(error, what) from error

    def _knock(self) -> None:
        from huggingface_hub import get_session

        get_session().head(self.endpoint, timeout=ALIVE_SECONDS, follow_redirects=False)

    def _within(self, seconds: float, call: Callable[[], Answer]) -> Answer:
        """Run a call in a thread of its own, so that nothing can hold up the caller for longer."""
        result: list[Answer] = []
        failure: list[BaseException] = []

        def run() -> None:
            try:
                result.append(call())
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

    def _unavailable(self, reason: str) -> HubUnavailable:
        return HubUnavailable(
            f"{self.endpoint} cannot be used now: {reason}; check the network and the address, "
            "then run the command again"
        )

    def _translated(self, error: Exception, what: str) -> HubError:
        from huggingface_hub import errors

        if isinstance(error, errors.GatedRepoError):
            return HubAccessDenied(
                f"{what} on {self.endpoint} is gated; ask its owner for access on the web"
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return RevisionNotFound(f"{what} is not on {self.endpoint}; see `softhub info`")
        if isinstance(error, errors.RepositoryNotFoundError):
            return RepositoryNotFound(
                f"{what} is not on {self.endpoint}, or is private and not yours; "
                f"{self.login_hint()}"
            )
        if _is_transport(error):
            return self._unavailable(_reason(error))
        status = _status(error)
        if status:
            return self._by_status(status, error, what)
        return HubError(
            f"{self.endpoint} answered {what} with something that the client does not understand "
            f"({type(error).__name__}: {_reason(error)}); is it a hub of Hugging Face's protocol?"
        )

    def _by_status(self, status: int, error: Exception, what: str) -> HubError:
        reason = _reason(error)
        if status in (401, 403):
            return HubAccessDenied(f"{self.endpoint} refused {what}: {reason}; {self.login_hint()}")
        if status in _PASSING:
            return self._unavailable(f"it answered {status} for {what}: {reason}")
        return HubError(f"{self.endpoint} answered {status} for {what}: {reason}")

    def login_hint(self) -> str:
        """Say how to get a token to this hub."""
        if self.endpoint == HUGGING_FACE:
            return "log in with `softhub login`" if not self.token else "check the token's rights"
        return "give a token for this hub in SOFTHUB_TOKEN (with the hub in SOFTHUB_HUB)"


def is_passing(error: BaseException) -> bool:
    """Tell whether the same call may succeed a moment later."""
    return _status(error) in _PASSING or _is_transport(error)


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error of the client, or its cause, carries."""
    return _status(error) or (_status(error.__cause__) if error.__cause__ else None)


def _token_for(endpoint: str, token: str | None) -> str | Literal[False]:
    """Choose the token: the caller's own, else the one that belongs to this very endpoint."""
    if token:
        return token
    if endpoint == HUGGING_FACE:
        from huggingface_hub import get_token

        return get_token() or False
    named = os.environ.get("SOFTHUB_HUB", "").removeprefix("hf+").rstrip("/")
    own = os.environ.get("SOFTHUB_TOKEN")
    return own if own and named == endpoint else False


def _status(error: BaseException) -> int | None:
    status: Any = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _is_transport(error: BaseException) -> bool:
    # By name: which HTTP library the client stands on has changed before.
    if isinstance(error, HubUnavailable):
        return False
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & {"TransportError", "OfflineModeIsEnabled", "ConnectionError"})


def _pause(error: BaseException) -> float:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        return min(max(float(headers.get("Retry-After", 0.5)), 0.1), LONGEST_PAUSE)
    except ValueError:
        return 0.5


def _reason(error: BaseException) -> str:
    said = getattr(error, "server_message", None) or str(error) or type(error).__name__
    return plain(str(said), most=300)
