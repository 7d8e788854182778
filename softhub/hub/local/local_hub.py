"""The embedded hub: repositories as plain files under one folder, no server and no account."""

from __future__ import annotations

import getpass
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from softhub.adapter.adapter import Adapter
from softhub.adapter.layout import MANIFEST
from softhub.adapter.validation import check_files
from softhub.config import full_path
from softhub.errors import (
    ConfigError,
    HubError,
    InvalidAdapter,
    PushConflict,
    RevisionNotFound,
    SoftHubError,
)
from softhub.hub.describe import DESCRIBING, describe, recorded_metrics
from softhub.hub.local.disk import os_errors_as_hub_errors, reading
from softhub.hub.local.index import UNUSABLE, Index
from softhub.hub.local.repository import Repository
from softhub.hub.local.store import Store
from softhub.hub.names import DEFAULT_REVISION
from softhub.hub.query import Query
from softhub.hub.records import AdapterInfo, Commit, CommitInfo, FileEntry, now, plain
from softhub.hub.transfer import (
    Fetched,
    Push,
    conflict_message,
    missing_tag_message,
    moving_tag_message,
    taken_message,
)

_logger = logging.getLogger("softhub")


class LocalHub:
    """A hub in a folder; see `store` for its layout.

    Reading takes no lock and works on read-only media; writers of one repository take turns.
    """

    is_remote = False

    def __init__(self, root: Path) -> None:
        """Use the hub at `root`, which is created by the first push.

        Raises:
            HubError: `root` is a file or cannot be read, or is Hugging Face's download cache or
                inside it, where a download of the same name would overwrite what was pushed.
        """
        with reading(root):
            is_file = root.is_file()
        if is_file:
            raise HubError(f"the hub {root} is a file; expected a folder (--hub local:FOLDER)")
        self.root = root
        self.store = Store(root)
        _refuse_download_cache(root)

    def push(self, push: Push) -> CommitInfo:
        """Add a commit, or return the present one where nothing would change."""
        with self._writing(push.repo_id, f"the push to {push.repo_id}", create=True) as repo:
            head = repo.ref(push.revision)
            self._check_branch(repo, push, head)
            entries = {
                name: FileEntry(len(data), push.adapter.sha256[name])
                for name, data in sorted(push.adapter.files.items())
            }
            unchanged = head if head and repo.commit(head).files == entries else None
            for tag in push.tags:
                _check_tag(repo, tag, unchanged)
                _check_case(tag, push.tags)
            if unchanged is not None:
                self._restore(repo, unchanged, push)
                repo.set_tags(push.tags, unchanged)
                return self._commit_info(repo, unchanged, created=False)
            commit = Commit(
                parent=head,
                author=plain(self.whoami()),
                date=now(),
                message=push.message_or_default(is_update=head is not None),
                files=entries,
            )
            repo.publish(commit, push.adapter.files, branch=push.revision, tags=push.tags)
            metrics = recorded_metrics(push.adapter)
            return CommitInfo.of(push.repo_id, commit, tags=push.tags, metrics=metrics)

    def fetch(self, repo_id: str, revision: str) -> Fetched:
        """Read one commit's files, checked against the commit's record."""
        repo = Repository(self.store, repo_id)
        commit = repo.resolve(revision)
        return Fetched(repo_id, commit, Adapter(repo.read_all(commit), f"{repo_id}@{commit}"))

    def config(self, repo_id: str, revision: str) -> Mapping[str, Any]:
        """Return a commit's `adapter_config.json`; empty if it has none."""
        return self.fetch(repo_id, revision).adapter.config

    def to_folder(self, fetched: Fetched, revision: str) -> Path:
        """Return the hub's own folder; nothing is copied."""
        return Repository(self.store, fetched.repo_id).snapshot(fetched.revision)

    def info(self, repo_id: str, revision: str) -> AdapterInfo:
        """Describe one revision."""
        repo = Repository(self.store, repo_id)
        return self._describe(repo, repo.resolve(revision))

    def select(self, query: Query) -> list[AdapterInfo]:
        """Describe the newest `main` of every repository that matches."""
        if not self.store.exists():
            return []
        try:
            return Index(self.store, self._describe_main).select(query)
        except UNUSABLE as error:
            _logger.info("reading the hub's folders, because its index cannot be used: %s", error)
        infos = (self._describe_main(repo_id) for repo_id in self.store.repo_ids())
        return query.select(info for info in infos if info is not None)

    def log(self, repo_id: str, revision: str, limit: int) -> list[CommitInfo]:
        """Return the history, newest first."""
        repo = Repository(self.store, repo_id)
        history = islice(repo.history(repo.resolve(revision)), limit)
        return [self._commit_info(repo, name) for name, _ in history]

    def tag(self, repo_id: str, tag: str, revision: str) -> str:
        """Give a commit another name; an equal tag is not an error."""
        with self._writing(repo_id, f"tagging {repo_id}") as repo:
            commit = repo.resolve(revision)
            _check_tag(repo, tag, commit)
            repo.set_tags([tag], commit)
            return commit

    def untag(self, repo_id: str, tag: str) -> None:
        """Remove a tag; the commit stays."""
        with self._writing(repo_id, f"removing the tag {tag} of {repo_id}") as repo:
            tags = repo.tags()
            if tag not in tags:
                raise RevisionNotFound(missing_tag_message(repo_id, tag, tags))
            repo.delete_ref(tag)

    def delete(self, repo_id: str) -> None:
        """Remove a repository and its history."""
        with self._writing(repo_id, f"deleting {repo_id}") as repo:
            repo.delete()

    def verify(self, repo_id: str) -> dict[str, str | None]:
        """Check every commit that a branch or tag reaches."""
        repo = Repository(self.store, repo_id)
        repo.resolve(DEFAULT_REVISION)
        results: dict[str, str | None] = {}
        for head in repo.refs().values():
            commit: str | None = head
            while commit is not None and commit not in results:
                results[commit], commit = _verify(repo, commit)
        return results

    def whoami(self) -> str:
        """Return `$SOFTHUB_USER`, or the name of the account on this machine."""
        try:
            return os.environ.get("SOFTHUB_USER") or getpass.getuser()
        except (OSError, KeyError, ImportError):
            return "unknown"

    @contextmanager
    def _writing(self, repo_id: str, what: str, *, create: bool = False) -> Iterator[Repository]:
        """Lock a repository for writing; it must exist unless it may be created."""
        repo = Repository(self.store, repo_id)
        with os_errors_as_hub_errors(what):
            if not create and not repo.exists():
                repo.resolve(DEFAULT_REVISION)
            with repo.locked():
                yield repo

    def _describe_main(self, repo_id: str) -> AdapterInfo | None:
        """Describe `main` of a repository; None if it has none, a note if it is damaged."""
        repo = Repository(self.store, repo_id)
        try:
            commit = repo.ref(DEFAULT_REVISION)
            return self._describe(repo, commit) if commit else None
        except (SoftHubError, OSError, ValueError, TypeError) as error:
            owner = repo_id.split("/")[0]
            return AdapterInfo(repo_id, "", author=owner, unchecked=f"damaged: {plain(str(error))}")

    def _describe(self, repo: Repository, commit: str) -> AdapterInfo:
        record = repo.commit(commit)
        known = CommitInfo.of(repo.repo_id, record)
        return describe(
            repo.repo_id,
            Adapter(repo.read(commit, DESCRIBING), f"{repo.repo_id}@{commit}"),
            revision=commit,
            tags=tuple(repo.tags()),
            total_bytes=sum(entry.size for entry in record.files.values()),
            weights_sha256=known.weights_sha256,
            date=known.date,
            message=known.message,
        )

    def _commit_info(self, repo: Repository, commit: str, *, created: bool = True) -> CommitInfo:
        tags = tuple(tag for tag, target in repo.tags().items() if target == commit)
        metrics = recorded_metrics(Adapter(repo.read(commit, (MANIFEST,)), commit))
        record = repo.commit(commit)
        return CommitInfo.of(repo.repo_id, record, tags=tags, metrics=metrics, created=created)

    def _restore(self, repo: Repository, commit: str, push: Push) -> None:
        restored = repo.restore(commit, push.adapter.files)
        if restored:
            names = ", ".join(restored)
            _logger.warning("%s: restored %s, which was damaged on the hub", repo.repo_id, names)

    def _check_branch(self, repo: Repository, push: Push, head: str | None) -> None:
        _check_case(push.revision, [*repo.ref_names(), *push.tags])
        if head is not None and not repo.is_branch(push.revision):
            raise HubError(moving_tag_message(push))
        if push.parent_commit in (None, head):
            return
        theirs = "does not exist"
        if head is not None:
            info = CommitInfo.of(repo.repo_id, repo.commit(head))
            theirs = f"is at {head} ({info.message!r} by {info.author}, {info.date})"
        raise PushConflict(conflict_message(push, push.parent_commit, theirs))


def _check_tag(repo: Repository, tag: str, commit: str | None) -> None:
    """Reject a tag that another commit (or any, if `commit` does not exist yet) already has."""
    _check_case(tag, repo.ref_names())
    present = repo.ref(tag)
    if present is None or (present == commit and not repo.is_branch(tag)):
        return
    raise HubError(taken_message(repo.repo_id, tag, present, is_branch=repo.is_branch(tag)))


def _check_case(name: str, others: Iterable[str]) -> None:
    """Reject a branch or tag that differs from another only in case: one file on some systems."""
    for other in others:
        if other != name and other.lower() == name.lower():
            raise HubError(
                f"{name!r} differs from {other!r} only in case, and the two would be one file on "
                "macOS and Windows; choose another name"
            )


def _verify(repo: Repository, commit: str) -> tuple[str | None, str | None]:
    """Return a description of the problem with a commit, or None and its parent."""
    try:
        check_files(repo.read_all(commit), origin=f"{repo.repo_id}@{commit}")
        return None, repo.commit(commit).parent
    except (InvalidAdapter, HubError) as error:
        return str(error), None


def _refuse_download_cache(root: Path) -> None:
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface")
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    try:
        cache = full_path(named or home / "hub")
    except ConfigError:  # no home folder or working folder, so that there is no cache either
        return
    resolved, forbidden = root.resolve(), cache.resolve()
    if resolved == forbidden or forbidden in resolved.parents:
        raise HubError(
            f"the hub's folder {root} is Hugging Face's download cache {cache} or inside it, where "
            "downloads would overwrite what you push; choose another folder "
            "(--hub local:FOLDER, or SOFTHUB_HOME), or unset HF_HUB_CACHE"
        )
