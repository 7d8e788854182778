"""One push to a remote hub: one commit on a known parent, or an error with the reason."""

from __future__ import annotations

import warnings
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any

from softhub.adapter.layout import CARD, FILES, WEIGHTS
from softhub.errors import (
    HubError,
    HubUnavailable,
    InvalidAdapter,
    PushConflict,
    RepositoryNotFound,
    RevisionNotFound,
    SoftHubWarning,
)
from softhub.hub.describe import recorded_metrics
from softhub.hub.names import DEFAULT_REVISION, is_commit
from softhub.hub.records import MAX_MESSAGE, CommitInfo, now, plain
from softhub.hub.remote.client import Client, RemoteCommit
from softhub.hub.remote.connection import status_of
from softhub.hub.remote.download import git_blob_id
from softhub.hub.transfer import Push, conflict_message, moving_tag_message

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PRECONDITION_FAILED = 412
TRIES = 3


class RemotePush:
    """The steps of one push; used once.

    Whatever the hub answers, or fails to answer, its tree decides whether the push succeeded: a
    commit is never sent again before the tree was read.
    """

    def __init__(self, client: Client, push: Push) -> None:
        """Prepare the push."""
        self.client = client
        self.job = push
        self.what = f"{push.repo_id}@{push.revision}"

    def run(self) -> CommitInfo:
        """Push the adapter.

        Returns:
            The new commit, or the present one where nothing would change.

        Raises:
            PushConflict: Somebody else changed the adapter since the parent.
            HubUnavailable: The hub did not answer, and nothing was pushed.
        """
        head = self._head_or_new()
        self._check_tags(head)
        expected = self.job.parent_commit
        if expected is not None and expected != head.id:
            raise PushConflict(self._conflict(head, expected))
        if self._is_content_of(head):
            return self._finish(head.id, None, created=False)
        for _ in range(TRIES):
            commit, newer = self._try(head)
            if commit is not None:
                return self._published(commit, head.id)
            self._accept_or_refuse(head, newer)
            head = newer
        raise PushConflict(self._conflict(head, head.id))

    def _head_or_new(self) -> RemoteCommit:
        """Return the branch's newest commit; create repository or branch if they are missing."""
        repo_id, revision = self.job.repo_id, self.job.revision
        try:
            return self.client.commit(repo_id, revision)
        except RepositoryNotFound:
            private = self.job.private
            self.client.write(
                lambda api: api.create_repo(repo_id, private=private, exist_ok=True), repo_id
            )
        except RevisionNotFound:
            pass
        if revision != DEFAULT_REVISION:
            self.client.write(
                lambda api: api.create_branch(repo_id, branch=revision, exist_ok=True), self.what
            )
        return self.client.commit(repo_id, revision)

    def _check_tags(self, head: RemoteCommit) -> None:
        refs = self.client.refs(self.job.repo_id)
        if self.job.revision in refs.tags:
            raise HubError(moving_tag_message(self.job))
        commit = head.id if self._is_content_of(head) else None
        for tag in self.job.tags:
            refs.check_tag(self.job.repo_id, tag, commit)

    def _try(self, head: RemoteCommit) -> tuple[str | None, RemoteCommit]:
        """Send the commit on `head`; return its name, or None and the current branch head."""
        try:
            return self.client.write(lambda api: self._send(api, head), self.what), head
        except HubError as error:
            lost = isinstance(error, HubUnavailable)
            if not lost and status_of(error) != PRECONDITION_FAILED:
                raise
            newer = self.client.commit(self.job.repo_id, self.job.revision)
            if self._is_content_of(newer):
                return newer.id, newer
            if lost and newer.id == head.id:
                raise HubUnavailable(
                    f"{error} (nothing was pushed: {self.what} is still at {head.id})"
                ) from error
            return None, newer

    def _send(self, api: HfApi, head: RemoteCommit) -> str:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        files = self.job.adapter.files
        # As streams, because these go over plain HTTP, under guard; bytes would go through the
        # client of Xet, which has an HTTP library and proxies of its own, for kilobytes.
        operations: list[Any] = [
            CommitOperationAdd(name, BytesIO(data)) for name, data in files.items()
        ]
        stale = [name for name in FILES if name in head.files and name not in files]
        operations += map(CommitOperationDelete, stale)
        try:
            sent = api.create_commit(
                self.job.repo_id,
                operations,
                commit_message=self.job.message_or_default(is_update=WEIGHTS in head.files),
                revision=self.job.revision,
                parent_commit=head.id,
            )
        except ValueError as error:
            if isinstance(error, OSError):  # an answer of the hub's, which `write` translates
                raise
            raise InvalidAdapter(
                f"{self.what}: the hub does not accept the card: {plain(str(error), most=300)}; "
                f"correct the front matter of {CARD}"
            ) from error
        return str(sent.oid)

    def _accept_or_refuse(self, old: RemoteCommit, new: RemoteCommit) -> None:
        """Continue if the other push only edited the card; anything else is a conflict."""
        touched = {name for name in FILES if _digest(old, name) != _digest(new, name)}
        if self.job.parent_commit is not None or touched - {CARD}:
            raise PushConflict(self._conflict(new, old.id))
        if touched:
            warnings.warn(
                f"{self.what}: its card was edited in the meantime ({new.id}); yours replaces it, "
                "and the other one stays in the history",
                SoftHubWarning,
                stacklevel=2,
            )

    def _conflict(self, head: RemoteCommit, expected: str) -> str:
        theirs = f"is at {head.id}"
        for newest in self.client.history(self.job.repo_id, head.id)[:1]:
            theirs += f" ({plain(newest.title)!r} by {newest.author}, {newest.date})"
        return conflict_message(self.job, expected, theirs)

    def _is_content_of(self, commit: RemoteCommit) -> bool:
        """Return whether a commit's tree contains exactly the files of this push."""
        adapter = self.job.adapter
        if {name for name in FILES if name in commit.files} != set(adapter.files):
            return False
        return all(
            commit.files[name].digest in (git_blob_id(data), adapter.sha256[name])
            for name, data in adapter.files.items()
        )

    def _published(self, commit: str, parent: str) -> CommitInfo:
        """Compare the stored commit with the pushed files; only then set the tags.

        The commit is on the branch, so nothing that fails from here on is a failed push, except
        that the hub contains something else.
        """
        try:
            stored = self._stored(commit)
        except HubError as error:
            self._warn(
                f"{self.what} was pushed, but could not be compared with what the hub stores: "
                f"{error}; run `softhub verify {self.job.repo_id}`{self._tags_to_set(commit)}"
            )
            return self._result(commit, parent, (), created=True)
        if not self._is_content_of(stored):
            raise HubError(self._incomplete(stored))
        return self._finish(stored.id, parent, created=True)

    def _stored(self, commit: str) -> RemoteCommit:
        """Return the pushed commit as the hub lists it, independent of the name in the answer."""
        newest = self.client.commit(self.job.repo_id, self.job.revision)
        if newest.id == commit or self._is_content_of(newest) or not is_commit(commit):
            return newest
        return self.client.commit(self.job.repo_id, commit)  # somebody has pushed on top of it

    def _incomplete(self, stored: RemoteCommit) -> str:
        files = self.job.adapter.files
        left_out = [name for name in files if name not in stored.files]
        what = f"left out {', '.join(left_out)}" if left_out else "stored other files"
        return (
            f"{self.what}: the hub accepted the push but {what} (its commit {stored.id} is not "
            "what was pushed, and cannot be pulled; no tag was set); if the repository has a "
            ".gitignore, remove its line for these files, then push again"
        )

    def _finish(self, commit: str, parent: str | None, *, created: bool) -> CommitInfo:
        tagged = []
        for tag in self.job.tags:
            try:
                self.client.create_tag(self.job.repo_id, tag, commit, f"tag {tag}")
                tagged.append(tag)
            except HubError as error:
                if not created:
                    raise
                self._warn(
                    f"the commit {commit} was pushed, but the tag {tag} was not set: {error}; run "
                    f"`softhub tag {self.job.repo_id} {tag} --revision {commit}`"
                )
        return self._result(commit, parent, tuple(tagged), created=created)

    def _result(
        self, commit: str, parent: str | None, tags: tuple[str, ...], *, created: bool
    ) -> CommitInfo:
        author = ""
        with suppress(HubError):  # the push is published, whoever pushed it
            author = self.client.whoami()
        return CommitInfo(
            repo_id=self.job.repo_id,
            revision=commit,
            parent=parent,
            author=author,
            date=now(),
            message=plain(self.job.message or "", most=MAX_MESSAGE),
            tags=tags,
            metrics=recorded_metrics(self.job.adapter),
            weights_sha256=self.job.adapter.weights_sha256,
            created=created,
        )

    def _tags_to_set(self, commit: str) -> str:
        tags = ", ".join(self.job.tags)
        return f" and then set the tags ({tags}) on {plain(commit)}" if tags else ""

    def _warn(self, message: str) -> None:
        warnings.warn(self.client.without_token(message), SoftHubWarning, stacklevel=2)


def _digest(commit: RemoteCommit, name: str) -> str | None:
    return commit.files[name].digest if name in commit.files else None
