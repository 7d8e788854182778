"""Data that `Hub` passes to local and remote hubs, and the messages of both."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from softhub.adapter.adapter import Adapter
from softhub.hub.records import MAX_MESSAGE, plain


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
