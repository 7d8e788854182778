"""The embedded hub: repositories as plain files under one folder, no server and no account."""

from __future__ import annotations

import getpass
import logging
import os
import sqlite3
from collections.abc import Mapping
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path

from softhub.adapter.layout import MANIFEST
from softhub.adapter.validation import check_files
from softhub.errors import (
    HubError,
    InvalidArtefact,
    PushConflict,
    RevisionNotFound,
)
from softhub.hub.backend import Fetched, Push, conflict_message, taken_message
from softhub.hub.describe import DESCRIBING, describe, manifest_metrics
from softhub.hub.local.disk import told_as_hub_error
from softhub.hub.local.index import Index
from softhub.hub.local.store import Repository, Store
from softhub.hub.names import DEFAULT_REVISION
from softhub.hub.query import Query
from softhub.hub.records import MAX_MESSAGE, AdapterInfo, Commit, CommitInfo, FileEntry, now, plain

_logger = logging.getLogger("softhub")


class LocalHub:
    """A hub in a folder; see `store` for its layout.

    Reading takes no lock and works on read-only media; writers of one repository take turns.
    """

    is_remote = False

    def __init__(self, root: Path) -> None:
        """Use the hub at `root`, which is made by the first push.

        Raises:
            HubError: `root` is a file, or is Hugging Face's download cache or inside it, where an
                online download of an equal name would overwrite what was pushed.
        """
        if root.is_file():
            raise HubError(f"the hub {root} is a file; expected a folder (--hub local:FOLDER)")
        self.root = root
        self.store = Store(root)
        _refuse_download_cache(root)

    def push(self, push: Push) -> CommitInfo:
        """Add a commit, or return the present one where nothing would change.

        Raises:
            PushConflict: `parent_commit` is not what the branch names.
            HubError: A tag is taken, the revision is a tag, or the disk refuses.
        """
        repo = self.store.repository(push.repo_id)
        with told_as_hub_error(f"the push to {push.repo_id}"), repo.locked():
            head = repo.ref(push.revision)
            self._check_branch(repo, push, head)
            entries = {name: FileEntry.of(data) for name, data in push.files.items()}
            unchanged = head is not None and repo.commit(head).files == entries
            self._check_tags(repo, push, head if unchanged else None)
            if unchanged and head is not None:
                for tag in push.tags:
                    repo.set_ref(tag, head)
                self.store.note_change(push.repo_id)
                return self._commit_info(repo, head, repo.commit(head), created=False)
            commit = self._new_commit(push, head, entries)
            repo.publish(commit, push.files, branch=push.revision, tags=push.tags)
            return CommitInfo.of(
                push.repo_id, commit, tags=push.tags, metrics=manifest_metrics(push.files)
            )

    def fetch(self, repo_id: str, revision: str) -> Fetched:
        """Read one commit's files, checked against the commit's record."""
        repo = self.store.repository(repo_id)
        commit = repo.resolve(revision)
        files = repo.read(commit)
        repo.check_names(commit)
        return Fetched(repo_id, commit, files)

    def keep(self, fetched: Fetched) -> Path:
        """Return the hub's own folder; nothing is copied."""
        return self.store.repository(fetched.repo_id).snapshot(fetched.revision)

    def info(self, repo_id: str, revision: str) -> AdapterInfo:
        """Describe one revision."""
        repo = self.store.repository(repo_id)
        return self._describe(repo, repo.resolve(revision))

    def select(self, query: Query) -> list[AdapterInfo]:
        """Describe the newest `main` of every repository that matches."""
        if not self.root.is_dir():
            return []
        try:
            return Index(self.store, self._describe_main).select(query)
        except sqlite3.Error as error:
            _logger.info("reading the hub's folders, for its index cannot be used: %s", error)
        infos = (self._describe_main(repo_id) for repo_id in self.store.repo_ids())
        return query.select(info for info in infos if info is not None)

    def _describe_main(self, repo_id: str) -> AdapterInfo | None:
        """Describe `main` of a repository; None if it has none, a note if it is damaged."""
        repo = self.store.repository(repo_id)
        try:
            commit = repo.ref(DEFAULT_REVISION)
            return self._describe(repo, commit) if commit else None
        except InvalidArtefact as error:
            owner = repo_id.split("/")[0]
            return AdapterInfo(repo_id, "", author=owner, unchecked=f"damaged: {plain(str(error))}")

    def log(self, repo_id: str, revision: str, limit: int) -> list[CommitInfo]:
        """Return the history, newest first."""
        repo = self.store.repository(repo_id)
        history = islice(repo.history(repo.resolve(revision)), limit)
        return [self._commit_info(repo, name, commit) for name, commit in history]

    def tag(self, repo_id: str, tag: str, revision: str) -> str:
        """Give a commit another name; an equal tag is no error.

        Raises:
            HubError: The name already belongs to another commit, or to a branch.
        """
        repo = self.store.repository(repo_id)
        with told_as_hub_error(f"tagging {repo_id}"), self._locked_existing(repo):
            commit = repo.resolve(revision)
            _check_tag(repo, tag, commit)
            repo.set_ref(tag, commit)
            self.store.note_change(repo_id)
            return commit

    def untag(self, repo_id: str, tag: str) -> None:
        """Remove a tag; the commit stays.

        Raises:
            RevisionNotFound: There is no such tag.
        """
        repo = self.store.repository(repo_id)
        with told_as_hub_error(f"untagging {repo_id}"), self._locked_existing(repo):
            tags = repo.tags()
            if tag not in tags:
                raise RevisionNotFound(
                    f"{repo_id} has no tag {tag!r}; it has {', '.join(tags) or 'none'}"
                )
            repo.delete_ref(tag)
            self.store.note_change(repo_id)

    def delete(self, repo_id: str) -> None:
        """Remove a repository with its whole history."""
        repo = self.store.repository(repo_id)
        with told_as_hub_error(f"deleting {repo_id}"), self._locked_existing(repo):
            repo.delete()
            self.store.note_change(repo_id)
            self.store.sweep_trash()

    def verify(self, repo_id: str) -> dict[str, str | None]:
        """Check every commit that a branch or tag reaches; each with its fault or None."""
        repo = self.store.repository(repo_id)
        repo.resolve(DEFAULT_REVISION)
        verdicts: dict[str, str | None] = {}
        for commit in repo.refs().values():
            self._verify_history(repo, commit, verdicts)
        return verdicts

    def whoami(self) -> str:
        """Return `$SOFTHUB_USER`, or the name of the account on this machine."""
        try:
            return os.environ.get("SOFTHUB_USER") or getpass.getuser()
        except (OSError, KeyError, ImportError):
            return "unknown"

    def _verify_history(
        self, repo: Repository, commit: str | None, verdicts: dict[str, str | None]
    ) -> None:
        while commit is not None and commit not in verdicts:
            verdicts[commit], commit = self._verify_commit(repo, commit)

    def _verify_commit(self, repo: Repository, commit: str) -> tuple[str | None, str | None]:
        """Return the fault of one commit, or None and its parent."""
        try:
            files = repo.read(commit)
            repo.check_names(commit)
            check_files(files, origin=f"{repo.repo_id}@{commit}")
            return None, repo.commit(commit).parent
        except InvalidArtefact as error:
            return str(error), None

    def _describe(self, repo: Repository, commit: str) -> AdapterInfo:
        record = repo.commit(commit)
        known = CommitInfo.of(repo.repo_id, record)
        return describe(
            repo.repo_id,
            repo.read(commit, DESCRIBING),
            revision=commit,
            tags=tuple(repo.tags()),
            total_bytes=sum(entry.size for entry in record.files.values()),
            weights_sha256=known.weights_sha256,
            date=known.date,
            message=known.message,
        )

    def _commit_info(
        self, repo: Repository, name: str, commit: Commit, *, created: bool = True
    ) -> CommitInfo:
        tags = tuple(tag for tag, target in repo.tags().items() if target == name)
        metrics = manifest_metrics(repo.read(name, (MANIFEST,)))
        return CommitInfo.of(repo.repo_id, commit, tags=tags, metrics=metrics, created=created)

    def _new_commit(self, push: Push, head: str | None, entries: Mapping[str, FileEntry]) -> Commit:
        message = push.message or ("Update soft prompt" if head else "Add soft prompt")
        return Commit(
            parent=head,
            author=plain(self.whoami()),
            date=now(),
            message=plain(message, most=MAX_MESSAGE),
            files=dict(sorted(entries.items())),
        )

    def _locked_existing(self, repo: Repository) -> AbstractContextManager[None]:
        if not repo.exists():
            repo.resolve(DEFAULT_REVISION)
        return repo.locked()

    def _check_branch(self, repo: Repository, push: Push, head: str | None) -> None:
        if head is not None and not repo.is_branch(push.revision):
            raise HubError(
                f"{push.revision!r} of {push.repo_id} is a tag, which does not move; "
                "push to a branch (main) and give the commit a new tag"
            )
        if push.parent_commit is not None and push.parent_commit != head:
            raise PushConflict(self._conflict(repo, push, head))

    def _conflict(self, repo: Repository, push: Push, head: str | None) -> str:
        if head is None:
            theirs = "does not exist"
        else:
            info = CommitInfo.of(repo.repo_id, repo.commit(head))
            theirs = f"is at {head} ({info.message!r} by {info.author}, {info.date})"
        return conflict_message(push, push.parent_commit, theirs)

    def _check_tags(self, repo: Repository, push: Push, commit: str | None) -> None:
        for tag in push.tags:
            _check_tag(repo, tag, commit)


def _check_tag(repo: Repository, tag: str, commit: str | None) -> None:
    """Refuse a tag that is taken by another commit (or by any, if `commit` is yet to come)."""
    present = repo.ref(tag)
    if present is None or (present == commit and not repo.is_branch(tag)):
        return
    raise HubError(taken_message(repo.repo_id, tag, present, is_branch=repo.is_branch(tag)))


def _refuse_download_cache(root: Path) -> None:
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    cache = Path(
        os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or home / "hub"
    ).expanduser()
    resolved, forbidden = root.resolve(), cache.resolve()
    if resolved == forbidden or forbidden in resolved.parents:
        raise HubError(
            f"the hub's folder {root} is (in) Hugging Face's download cache {cache}, where "
            "downloads would overwrite what you push; choose another folder "
            "(--hub local:FOLDER, or SOFTHUB_HOME), or unset HF_HUB_CACHE"
        )
