"""Every exception that softhub raises on purpose, as one tree.

Each error is also the builtin that a caller would expect, so `except ValueError` works too::

    SoftHubError
    ├── ConfigError            (ValueError)   a recipe's config or a flag
    ├── TaskError              (ValueError)   a task file: template, verbalizer, columns, metrics
    ├── DatasetError           (ValueError)   rows of a data file, with file and line
    ├── BaseModelError         (ValueError)   a base model that cannot be found, read or used
    ├── IncompatiblePrompt     (ValueError)   a prompt made for another base model
    ├── InvalidArtefact        (ValueError)   an adapter folder that is damaged or hostile
    │   └── UnsupportedAdapter                a sound adapter of a kind that softhub does not load
    ├── PromptNotLoaded        (LookupError)  a prompt name that the engine does not hold
    ├── TrainingError          (RuntimeError) training cannot start or has gone wrong
    ├── MissingDependency      (ImportError)  an extra that is not installed
    └── HubError               (OSError)
        ├── RepositoryNotFound (LookupError)
        ├── RevisionNotFound   (LookupError)
        ├── PushConflict                      somebody else pushed first
        ├── HubAccessDenied    (PermissionError)
        └── HubUnavailable     (ConnectionError)

A message says what was found, what was expected, and what to do next.
"""

import difflib
from collections.abc import Collection


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return the end of a message about an unknown name: what may have been meant.

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


class SoftHubError(Exception):
    """Root of all errors that softhub raises on purpose."""

    def __str__(self) -> str:
        """Return the message itself (`KeyError` and `OSError` would decorate it)."""
        return str(self.args[0]) if self.args else ""


class ConfigError(SoftHubError, ValueError):
    """A recipe's configuration or a command's option is wrong."""


class TaskError(SoftHubError, ValueError):
    """A task definition is wrong; names the file, the key and the fix."""


class DatasetError(SoftHubError, ValueError):
    """Rows of a dataset are missing, damaged or mislabelled; names file and line."""


class BaseModelError(SoftHubError, ValueError):
    """A base model cannot be found, read, or used for soft prompts."""


class IncompatiblePrompt(SoftHubError, ValueError):
    """A prompt was made for another base model than the one at hand."""


class InvalidArtefact(SoftHubError, ValueError):
    """An adapter folder is damaged, inconsistent or hostile."""


class UnsupportedAdapter(InvalidArtefact):
    """A sound adapter, but of a kind that softhub does not load."""


class PromptNotLoaded(SoftHubError, LookupError):
    """A prompt was named that the engine does not hold."""


class TrainingError(SoftHubError, RuntimeError):
    """Training cannot start, or went wrong in a way that results must not hide."""


class MissingDependency(SoftHubError, ImportError):
    """An optional dependency is needed; the message has the exact pip line."""


class HubError(SoftHubError, OSError):
    """Something about a hub or a repository on it."""


class RepositoryNotFound(HubError, LookupError):
    """No repository of that name on the hub (or it is private and not yours)."""


class RevisionNotFound(HubError, LookupError):
    """The repository exists, but not the revision that was asked for."""


class PushConflict(HubError):
    """Somebody else pushed to the same revision first."""


class HubAccessDenied(HubError, PermissionError):
    """The hub refused the token, or there was none where one is needed."""


class HubUnavailable(HubError, ConnectionError):
    """The hub did not answer, or softhub was told to stay offline."""


class SoftHubWarning(UserWarning):
    """Category of the warnings that softhub gives."""
