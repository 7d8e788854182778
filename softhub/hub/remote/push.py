"""One push to a remote hub: one commit on a known parent, or an answer that says why not."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any

from softhub.adapter.layout import CARD, FILES, WEIGHTS, sha256_of
from softhub.errors import (
    HubError,
    HubUnavailable,
    InvalidArtefact,
    PushConflict,
    RepositoryNotFound,
    RevisionNotFound,
    SoftHubWarning,
)
from softhub.hub.backend import Push, conflict_message
from softhub.hub.describe import manifest_metrics
from softhub.hub.names import DEFAULT_REVISION
from softhub.hub.records import MAX_MESSAGE, CommitInfo, now, plain
from softhub.hub.remote.connection import status_of
from softhub.hub.remote.download import git_blob_id

if TYPE_CHECKING:
    from softhub.hub.remote.remote import RemoteHub

STALE = 412
TRIES = 3


class RemotePush:
    """The steps of one push; made for one run.

    Whatever the hub answers, or fails to answer, the last word is what its tree holds: a commit
    is never sent again before that was looked at.
    """

    def __init__(self, hub: RemoteHub, push: Push) -> None:
        """Prepare the push."""
        self.hub = hub
        self.job = push
        self.what = f"{push.repo_id}@{push.revision}"

    def run(self) -> CommitInfo:
        """Push.

        Raises:
            PushConflict: Somebody else changed the adapter since the parent.
            HubUnavailable: The hub did not answer, and nothing was pushed.
        """
        head = self._head_or_new()
        self._check_tags(head)
        expected = self.job.parent_commit
        if expected is not None and expected != head.sha:
            raise PushConflict(self._conflict(head, expected))
        if self._holds(head):
            return self._finish(str(head.sha), None, created=False)
        for _ in range(TRIES):
            commit, newer = self._try(head)
            if commit is not None:
                return self._finish(commit, str(head.sha), created=True)
            self._accept_or_refuse(head, newer)
            head = newer
        raise PushConflict(self._conflict(head, str(head.sha)))

    def _head_or_new(self) -> Any:
        """Return the branch's newest commit; make repository or branch if they are missing."""
        repo_id, revision = self.job.repo_id, self.job.revision
        try:
            return self.hub.model(repo_id, revision)
        except RepositoryNotFound:
            api = self.hub.api
            self.hub.connection.write(
                lambda: api.create_repo(repo_id, private=self.job.private, exist_ok=True), repo_id
            )
        except RevisionNotFound:
            pass
        if revision != DEFAULT_REVISION:
            api = self.hub.api
            self.hub.connection.write(
                lambda: api.create_branch(repo_id, branch=revision, exist_ok=True), self.what
            )
        return self.hub.model(repo_id, revision)

    def _check_tags(self, head: Any) -> None:
        branches, tags = self.hub.refs(self.job.repo_id)
        if self.job.revision in tags:
            raise HubError(
                f"{self.job.revision!r} of {self.job.repo_id} is a tag, which does not move; "
                "push to a branch (main) and give the commit a new tag"
            )
        commit = str(head.sha) if self._holds(head) else None
        for tag in self.job.tags:
            self.hub.check_tag(self.job.repo_id, tag, commit, branches, tags)

    def _try(self, head: Any) -> tuple[str | None, Any]:
        """Send the commit on `head`; return its name, or None and what the branch is now."""
        try:
            sent = self.hub.connection.write(lambda: self._send(head), self.what)
            return str(sent.oid), None
        except HubError as error:
            lost = isinstance(error, HubUnavailable)
            if not lost and status_of(error) != STALE:
                raise
            newer = self.hub.model(self.job.repo_id, self.job.revision)
            if self._holds(newer):
                return str(newer.sha), None
            if lost and newer.sha == head.sha:
                raise HubUnavailable(
                    f"{error} (nothing was pushed: {self.what} is still at {head.sha})"
                ) from error
            return None, newer

    def _send(self, head: Any) -> Any:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        present = {str(sibling.rfilename) for sibling in head.siblings or ()}
        operations: list[Any] = [
            CommitOperationAdd(name, BytesIO(data)) for name, data in self.job.files.items()
        ]
        stale = [name for name in FILES if name in present and name not in self.job.files]
        operations += [CommitOperationDelete(name) for name in stale]
        message = plain(self.job.message or self._phrase(present), most=MAX_MESSAGE)
        try:
            return self.hub.api.create_commit(
                self.job.repo_id,
                operations,
                commit_message=message,
                revision=self.job.revision,
                parent_commit=str(head.sha),
            )
        except ValueError as error:
            if isinstance(error, OSError):  # an answer of the hub's, which is told elsewhere
                raise
            raise InvalidArtefact(
                f"{self.what}: the hub does not accept the card: {plain(str(error), most=300)}; "
                f"mend the front matter of {CARD}"
            ) from error

    def _phrase(self, present: set[str]) -> str:
        return "Update soft prompt" if WEIGHTS in present else "Add soft prompt"

    def _accept_or_refuse(self, old: Any, new: Any) -> None:
        """Go on where somebody else only edited the card; anything more is a conflict."""
        before, after = _oids(old), _oids(new)
        touched = {name for name in FILES if before.get(name) != after.get(name)}
        if self.job.parent_commit is not None or touched - {CARD}:
            raise PushConflict(self._conflict(new, str(old.sha)))
        if touched:
            warnings.warn(
                f"{self.what}: its card was edited meanwhile ({new.sha}); yours replaces it, and "
                "theirs stays in the history",
                SoftHubWarning,
                stacklevel=2,
            )

    def _conflict(self, head: Any, expected: str) -> str:
        commits = self.hub.connection.read(
            lambda: self.hub.api.list_repo_commits(self.job.repo_id, revision=str(head.sha)),
            self.what,
        )
        newest = commits[0]
        who = plain(", ".join(newest.authors))
        theirs = f"is at {head.sha} ({plain(newest.title)!r} by {who}, {newest.created_at})"
        return conflict_message(self.job, expected, theirs)

    def _holds(self, model: Any) -> bool:
        """Tell whether a commit's tree holds exactly the files of this push."""
        present = _oids(model)
        if {name for name in FILES if name in present} != set(self.job.files):
            return False
        return all(present[name] in _names(data) for name, data in self.job.files.items())

    def _finish(self, commit: str, parent: str | None, *, created: bool) -> CommitInfo:
        for tag in self.job.tags:
            self._tag(tag, commit)
        return CommitInfo(
            repo_id=self.job.repo_id,
            revision=commit,
            parent=parent,
            author=self.hub.whoami(),
            date=now(),
            message=plain(self.job.message or "", most=MAX_MESSAGE),
            tags=self.job.tags,
            metrics=manifest_metrics(self.job.files),
            weights_sha256=sha256_of(self.job.files[WEIGHTS]),
            created=created,
        )

    def _tag(self, tag: str, commit: str) -> None:
        repo_id, api = self.job.repo_id, self.hub.api
        self.hub.connection.write(
            lambda: api.create_tag(repo_id, tag=tag, revision=commit, exist_ok=True),
            f"tag {tag} (the commit {commit} itself was pushed)",
        )


def _oids(model: Any) -> Mapping[str, str]:
    """Return for each file of a tree its SHA-256 (in LFS) or its git hash."""
    siblings = model.siblings or ()
    return {str(s.rfilename): str(s.lfs.sha256 if s.lfs else s.blob_id) for s in siblings}


def _names(data: bytes) -> tuple[str, str]:
    return git_blob_id(data), sha256_of(data)
