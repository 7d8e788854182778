"""Every exception that softhub raises on purpose, as one tree.

Each error is also the builtin that a caller would expect, so `except ValueError` works too::

    SoftHubError
    ├── ConfigError            (ValueError)   a recipe's config or a command-line option
    ├── TaskError              (ValueError)   a task: template, verbalizer, columns, metrics
    │   └── TextTooLong                       a text that may not be truncated and does not fit
    ├── DatasetError           (ValueError)   rows of a data file, with file and line
    ├── BaseModelError         (ValueError)   a base model that cannot be found, read or used
    ├── IncompatiblePrompt     (ValueError)   a prompt that was trained on another base model
    ├── InvalidAdapter         (ValueError)   an adapter folder that is damaged or hostile
    │   └── UnsupportedAdapter                a valid adapter of a type that softhub does not load
    ├── PromptNotLoaded        (LookupError)  the name of a prompt that is not loaded
    ├── TrainingError          (RuntimeError) training cannot start or has gone wrong
    ├── TrainingInterrupted                   Ctrl-C during training; a checkpoint was saved
    ├── PredictionInterrupted                 Ctrl-C during a file; the answered rows are saved
    ├── MissingDependency      (ImportError)  an extra that is not installed
    └── HubError               (OSError)
        ├── RepositoryNotFound (LookupError)
        ├── RevisionNotFound   (LookupError)
        ├── PushConflict                      another push to the same revision came first
        ├── HubAccessDenied    (PermissionError)
        └── HubUnavailable     (ConnectionError)

A message says what was found, what was expected, and what to do next.
"""

import difflib
from collections.abc import Collection
from math import isfinite
from numbers import Integral, Real
from types import UnionType
from typing import Any, get_args

_KINDS: dict[type, tuple[type, str]] = {
    bool: (bool, "True or False"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
}


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return the end of a message about an unknown name: a suggestion, or all known names.

    Args:
        name: The unknown name that was found.
        known: The names that exist.

    Returns:
        `; did you mean 'text'?` if one is close, else `; expected one of: …`.
    """
    close = difflib.get_close_matches(name, sorted(known), n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; expected one of: {', '.join(sorted(known)) or '(there are none)'}"


def expected_instead(value: Any, kind: type, least: int | None = None) -> str | None:
    """Return what was expected in place of a value, or None if the value is that.

    Args:
        value: Anything; numbers of numpy are numbers too; True, False, NaN and infinity are none.
        kind: bool, int or float.
        least: The smallest number that is accepted.
    """
    accepted, expected = _KINDS[kind]
    fits = isinstance(value, accepted) and isinstance(value, bool) == (kind is bool)
    finite = fits and (isinstance(value, Integral) or isfinite(value))
    if finite and (least is None or value >= least):
        return None
    return expected if least is None else f"{expected} of {least} or more"


def require_type(argument: str, value: Any, kind: type | UnionType, advice: str) -> None:
    """Check the type of an argument that is easily given in another form.

    Args:
        argument: Its name.
        value: What was given.
        kind: The type that is expected, or a union of types.
        advice: What to do otherwise.

    Raises:
        ConfigError: The value is of another type.
    """
    if not isinstance(value, kind):
        found = type(value).__name__
        expected = " or ".join(each.__name__ for each in get_args(kind) or (kind,))
        raise ConfigError(f"{argument} is of type {found}; expected {expected}. {advice}")


class SoftHubError(Exception):
    """Base class of all errors that softhub raises on purpose."""

    def __str__(self) -> str:
        """Return the message itself (`KeyError` and `OSError` would decorate it)."""
        return str(self.args[0]) if self.args else ""


class ConfigError(SoftHubError, ValueError):
    """A recipe's configuration or a command-line option is wrong."""


class TaskError(SoftHubError, ValueError):
    """A task definition is wrong; the message names the file, the key and the fix."""


class TextTooLong(TaskError):
    """A conversation, or a text that may not be truncated, has more tokens than fit."""


class DatasetError(SoftHubError, ValueError):
    """Rows of a dataset are missing, damaged or mislabeled; the message names file and line."""


class BaseModelError(SoftHubError, ValueError):
    """A base model cannot be found, read, or used with soft prompts."""


class IncompatiblePrompt(SoftHubError, ValueError):
    """A prompt was trained on another base model than the one that is loaded."""


class InvalidAdapter(SoftHubError, ValueError):
    """An adapter folder is damaged, inconsistent or hostile."""


class UnsupportedAdapter(InvalidAdapter):
    """A valid adapter of a type that softhub does not load."""


class PromptNotLoaded(SoftHubError, LookupError):
    """The named prompt is not loaded."""


class TrainingError(SoftHubError, RuntimeError):
    """Training cannot start, or went wrong in a way that results must not hide."""


class TrainingInterrupted(SoftHubError):
    """Ctrl-C during training; a checkpoint was saved, and the run can be resumed from it."""


class PredictionInterrupted(SoftHubError):
    """Ctrl-C while a file was answered; the answers so far are saved, and it can be continued."""


class MissingDependency(SoftHubError, ImportError):
    """An optional dependency is needed; the message has the exact pip command."""


class HubError(SoftHubError, OSError):
    """A request to a hub, or to a repository on it, failed."""


class RepositoryNotFound(HubError, LookupError):
    """The hub has no repository of that name, or it is private and not yours."""


class RevisionNotFound(HubError, LookupError):
    """The repository exists, but the requested revision does not."""


class PushConflict(HubError):
    """Another push to the same revision came first."""


class HubAccessDenied(HubError, PermissionError):
    """The hub refused the token, or none was given where one is needed."""


class HubUnavailable(HubError, ConnectionError):
    """The hub did not answer, or offline mode is on."""


class SoftHubWarning(UserWarning):
    """Category of all warnings that softhub emits."""
