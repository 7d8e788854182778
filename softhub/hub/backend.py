"""What a place that keeps adapters must do; `Hub` gives every such place one face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from softhub.hub.query import Query
from softhub.hub.records import AdapterInfo, CommitInfo


@dataclass(frozen=True)
class Push:
    """One push, its files already read and checked.

    Attributes:
        repo_id: Where to.
        files: Contents by name.
        revision: The branch to move.
        message: Why; None for a standing phrase.
        tags: New tags for the commit.
        private: Whether a repository that is made by this push is private.
        parent_commit: The commit that the branch must still name, or None for any.
    """

    repo_id: str
    files: Mapping[str, bytes]
    revision: str
    message: str | None = None
    tags: tuple[str, ...] = ()
    private: bool = False
    parent_commit: str | None = None


@dataclass(frozen=True)
class Fetched:
    """The files of one commit, checked against the hashes that the hub gives for them."""

    repo_id: str
    revision: str
    files: Mapping[str, bytes] = field(repr=False)


class Backend(Protocol):
    """A place that keeps adapters. Names and files have been checked by the caller."""

    @property
    def is_remote(self) -> bool:
        """Whether what is pushed leaves this machine."""

    def push(self, push: Push) -> CommitInfo:
        """Add a commit, or return the present one where nothing would change."""

    def fetch(self, repo_id: str, revision: str) -> Fetched:
        """Read one commit's files into memory."""

    def keep(self, fetched: Fetched) -> Path:
        """Return a folder on this machine with what was fetched (and since validated)."""

    def info(self, repo_id: str, revision: str) -> AdapterInfo:
        """Describe one revision."""

    def select(self, query: Query) -> list[AdapterInfo]:
        """Describe the newest `main` of every repository that matches."""

    def log(self, repo_id: str, revision: str, limit: int) -> list[CommitInfo]:
        """Return the history, newest first."""

    def tag(self, repo_id: str, tag: str, revision: str) -> str:
        """Give a commit another name and return the commit; an equal tag is no error."""

    def untag(self, repo_id: str, tag: str) -> None:
        """Remove a tag; the commit stays."""

    def delete(self, repo_id: str) -> None:
        """Remove a repository with its whole history."""

    def verify(self, repo_id: str) -> dict[str, str | None]:
        """Check every revision that can be reached; name of each with its fault or None."""

    def whoami(self) -> str:
        """Return the name under which pushes appear."""


def conflict_message(push: Push, expected: str | None, theirs: str) -> str:
    """Say both sides of a push that came second."""
    return (
        f"{push.repo_id}: your push expects {push.revision} at {expected}, but it "
        f"{theirs}; pull it, compare with `softhub diff`, then push again on top of it"
    )


def taken_message(repo_id: str, tag: str, commit: str, *, is_branch: bool) -> str:
    """Say that a name for a tag is taken, and what can be done."""
    kind, fix = ("branch", "") if is_branch else ("tag", f", or `softhub untag {repo_id} {tag}`")
    return f"{repo_id} already has the {kind} {tag!r} (at {commit}); choose another name{fix}"
