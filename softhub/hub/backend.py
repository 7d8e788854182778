"""What every place that stores adapters offers to `Hub`, local or remote."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from softhub.adapter.adapter import Adapter
from softhub.hub.query import Query
from softhub.hub.records import MAX_MESSAGE, AdapterInfo, CommitInfo, plain


@dataclass(frozen=True)
class Push:
    """One push.

    Attributes:
        repo_id: Where to.
        adapter: The adapter, already checked.
        revision: The branch to move.
        message: The commit's message; None for a default one.
        tags: New tags for the commit.
        private: Whether a repository that is created by this push is private.
        parent_commit: The commit that the branch must still name, or None for any.
    """

    repo_id: str
    adapter: Adapter
    revision: str
    message: str | None = None
    tags: tuple[str, ...] = ()
    private: bool = False
    parent_commit: str | None = None

    def message_or_default(self, *, is_update: bool) -> str:
        """Return the commit's message, safe to print."""
        default = "Update soft prompt" if is_update else "Add soft prompt"
        return plain(self.message or default, most=MAX_MESSAGE)


@dataclass(frozen=True)
class Fetched:
    """The adapter in one commit, its files checked against the hashes that the hub lists.

    Attributes:
        repo_id: The repository.
        revision: The commit.
        adapter: The adapter, not yet checked.
    """

    repo_id: str
    revision: str
    adapter: Adapter = field(repr=False)


class Backend(Protocol):
    """A place that stores adapters. Names and files have been checked by the caller."""

    @property
    def is_remote(self) -> bool:
        """Whether what is pushed leaves this machine."""

    def push(self, push: Push) -> CommitInfo:
        """Add a commit, or return the present one where nothing would change."""

    def fetch(self, repo_id: str, revision: str) -> Fetched:
        """Read one commit's files into memory."""

    def to_folder(self, fetched: Fetched) -> Path:
        """Return a folder on this machine with what was fetched (and since checked)."""

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
        """Check every commit that can be reached; for each what is wrong with it, or None."""

    def whoami(self) -> str:
        """Return the name under which pushes appear."""


def conflict_message(push: Push, expected: str | None, theirs: str) -> str:
    """Return the message of a push that came second, with both sides."""
    return (
        f"{push.repo_id}: your push expects {push.revision} at {expected}, but it "
        f"{theirs}; pull it, compare with `softhub diff`, then push again on top of it"
    )


def moving_tag_message(push: Push) -> str:
    """Return the message of a push to a tag."""
    return (
        f"{push.revision!r} of {push.repo_id} is a tag, which does not move; "
        "push to a branch (main) and give the commit a new tag"
    )


def missing_tag_message(repo_id: str, tag: str, tags: Collection[str]) -> str:
    """Return the message about a tag that does not exist."""
    return f"{repo_id} has no tag {tag!r}; it has {', '.join(sorted(tags)) or 'none'}"


def taken_message(repo_id: str, tag: str, commit: str, *, is_branch: bool) -> str:
    """Return the message about a tag's name that is taken."""
    kind, fix = ("branch", "") if is_branch else ("tag", f", or `softhub untag {repo_id} {tag}`")
    return f"{repo_id} already has the {kind} {tag!r} (at {commit}); choose another name{fix}"
