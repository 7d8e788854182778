"""The local hub on disk: one directory of plain files in the layout of Hugging Face's cache.

::

    HUB/models--me--sentiment/refs/main                the commit that `main` names
                             /refs/v1                  a tag
                             /refs/history/<commit>    protects every commit from `hf cache prune`
                             /branches/dev             marks refs/dev as a branch, not a tag
                             /snapshots/<commit>/...   the adapter's files
                             /commits/<commit>.json    the record whose hash is the commit's name
    HUB/.softhub/locks, staging, trash                 locks and unfinished work
                /changes                               names of changed repositories, for the index

A push is prepared in `staging` and takes effect at the one moment in which its branch's ref is
replaced. If it is stopped earlier, the next writer undoes it, and readers do not see it.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from softhub.adapter.layout import FILES, MAX_BYTES, write_durably
from softhub.errors import InvalidArtefact, RepositoryNotFound, RevisionNotFound
from softhub.files import replace_file, sync_directory, write_file
from softhub.hub.local.disk import append, locked, make_folders, read_file, remove
from softhub.hub.names import (
    DEFAULT_REVISION,
    check_repo_id,
    check_revision,
    is_commit,
    repo_folder_name,
    repo_id_of,
)
from softhub.hub.records import MAX_COMMIT_BYTES, Commit, FileEntry

HIDDEN = ".softhub"


class Store:
    """All repositories under one hub's root."""

    def __init__(self, root: Path) -> None:
        """Use `root`, which need not exist yet."""
        self.root = root
        self.hidden = root / HIDDEN

    def repository(self, repo_id: str) -> Repository:
        """Return the place of a repository, whether or not it exists."""
        return Repository(self, check_repo_id(repo_id))

    def repo_ids(self) -> Iterator[str]:
        """Yield the names of all folders that could be repositories."""
        if not self.root.is_dir():
            return
        with os.scandir(self.root) as entries:
            for entry in entries:
                repo_id = repo_id_of(entry.name)
                if repo_id is not None:
                    yield repo_id

    def note_change(self, repo_id: str) -> None:
        """Tell the index that a repository changed; one short append, all or nothing."""
        append(self.hidden / "changes", f"{repo_id}\n".encode())

    def sweep_trash(self) -> None:
        """Delete what was discarded; what cannot be deleted now is tried again the next time."""
        with suppress(OSError):
            for entry in list((self.hidden / "trash").iterdir()):
                remove(entry)


class Repository:
    """One repository of the local hub: refs, commits, snapshots, and the steps of a push."""

    def __init__(self, store: Store, repo_id: str) -> None:
        """Use the folder of `repo_id`, which need not exist yet."""
        self.store = store
        self.repo_id = repo_id
        self.folder = store.root / repo_folder_name(repo_id)
        self._staging = store.hidden / "staging" / self.folder.name
        self._commits: dict[str, Commit] = {}  # a record does not change, as its hash is its name

    # Reading takes no lock and works on read-only media.

    def ref(self, name: str) -> str | None:
        """Return the commit that a branch or tag names, or None."""
        try:
            content = read_file(self.folder / "refs" / name, most=100)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except InvalidArtefact:
            if (self.folder / "refs" / name).is_dir():  # `history`, which holds refs
                return None
            raise
        commit = content.decode("ascii", errors="replace").strip()
        if not is_commit(commit):
            raise InvalidArtefact(
                f"{self.folder / 'refs' / name} contains no commit hash; restore it from a backup "
                "of the hub, or remove the file and push again"
            )
        return commit

    def refs(self) -> dict[str, str]:
        """Return all branches and tags with their commits, without those of unfinished pushes."""
        try:
            with os.scandir(self.folder / "refs") as entries:
                files = (e.name for e in entries if e.is_file() and not e.name.startswith("."))
                found = {name: self.ref(name) for name in sorted(files)}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {name: c for name, c in found.items() if c and self._is_published(c)}

    def tags(self) -> dict[str, str]:
        """Return the tags with their commits."""
        return {name: commit for name, commit in self.refs().items() if not self.is_branch(name)}

    def is_branch(self, name: str) -> bool:
        """Return whether pushes may move the ref `name`."""
        return name == DEFAULT_REVISION or (self.folder / "branches" / name).is_file()

    def exists(self) -> bool:
        """Return whether anything was ever pushed here."""
        return self.ref(DEFAULT_REVISION) is not None or bool(self.refs())

    def resolve(self, revision: str) -> str:
        """Return the commit that a branch, tag or full hash names.

        Raises:
            RepositoryNotFound: There is no such repository.
            RevisionNotFound: It has no such revision.
            InvalidArtefact: The record of the commit is missing.
        """
        check_revision(revision)
        commit = revision if is_commit(revision) else self.ref(revision)
        known = commit is not None and os.path.lexists(self._commit_path(commit))
        if commit and known and (revision == DEFAULT_REVISION or self._is_published(commit)):
            return commit
        if commit and not known and self.ref(revision) == commit:
            raise self._without_record(commit)
        refs = self.refs()
        if not refs:
            raise RepositoryNotFound(
                f"{self.repo_id} is not on the hub at {self.store.root}; "
                "`softhub list` shows what is"
            )
        raise RevisionNotFound(
            f"{self.repo_id} has no revision {revision!r}; it has {', '.join(sorted(refs))} "
            f"and the commits that `softhub log {self.repo_id}` shows"
        )

    def commit(self, commit: str) -> Commit:
        """Return the record of a commit, checked against its own name.

        Raises:
            InvalidArtefact: It is missing, or was altered.
        """
        if commit not in self._commits:
            path = self._commit_path(commit)
            try:
                data = read_file(path, most=MAX_COMMIT_BYTES)
            except FileNotFoundError as error:
                raise self._without_record(commit) from error
            self._commits[commit] = Commit.from_bytes(data, expected=commit, origin=str(path))
        return self._commits[commit]

    def history(self, commit: str | None) -> Iterator[tuple[str, Commit]]:
        """Yield commits with their names from `commit` back to the first."""
        while commit is not None:
            record = self.commit(commit)
            yield commit, record
            commit = record.parent

    def snapshot(self, commit: str) -> Path:
        """Return the folder with a commit's files."""
        return self.folder / "snapshots" / commit

    def read(self, commit: str, names: Sequence[str] = FILES) -> dict[str, bytes]:
        """Return a commit's files (or those in `names`), each checked against the record.

        Raises:
            InvalidArtefact: A file is missing or altered.
        """
        entries = self.commit(commit).files
        folder = self.snapshot(commit)
        return {
            name: _read_entry(folder / name, entries[name]) for name in names if name in entries
        }

    def read_all(self, commit: str) -> dict[str, bytes]:
        """Return all files of a commit, after checking that its snapshot holds nothing else.

        Raises:
            InvalidArtefact: A file is missing, altered, or not in the commit's record.
        """
        files = self.read(commit)
        folder = self.snapshot(commit)
        present = {path.name for path in folder.iterdir()} - _FILE_BROWSER_FILES
        unexpected = sorted(present - set(files))
        if unexpected:
            raise InvalidArtefact(
                f"{folder} also holds {unexpected[0]!r}, which was not pushed; remove that file"
            )
        return files

    # Writing happens only inside `locked`.

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only writer of this repository; first undo what a stopped writer left.

        Raises:
            HubError: Another process holds the lock for too long.
        """
        locks = self.store.hidden / "locks"
        for folder in (locks, self.store.hidden / "staging", self.store.hidden / "trash"):
            make_folders(folder)
        with locked(locks / f"{self.folder.name}.lock", f"writing to {self.repo_id}"):
            self._recover()
            yield

    def publish(
        self, commit: Commit, files: Mapping[str, bytes], *, branch: str, tags: Sequence[str]
    ) -> None:
        """Add a commit and move `branch` to it; all or nothing.

        Args:
            commit: The record, which describes `files`.
            files: Contents by name.
            branch: The branch whose ref is replaced last.
            tags: New tags for the commit.
        """
        try:
            stage = self._prepare(commit, files, branch)
            self._place(stage, commit.id, branch, tags)
        except BaseException:
            with suppress(OSError):
                self._recover()
            raise
        self._discard(stage)

    def set_ref(self, name: str, commit: str) -> None:
        """Point a branch or tag to a commit that exists."""
        make_folders(self._staging)
        replace_file(self.folder / "refs" / name, commit.encode(), staging=self._staging)

    def delete_ref(self, name: str) -> None:
        """Remove a tag."""
        remove(self.folder / "refs" / name)
        sync_directory(self.folder / "refs")

    def delete(self) -> None:
        """Remove the repository in one step."""
        self._move_to_trash(self.folder)

    def _prepare(self, commit: Commit, files: Mapping[str, bytes], branch: str) -> Path:
        for folder in (self._staging, *map(self.folder.joinpath, _FOLDERS)):
            make_folders(folder)
        stage = self._staging / commit.id
        intent = json.dumps({"branch": branch}).encode()
        write_durably(stage, {"intent.json": intent, "commit.json": commit.to_bytes()})
        write_durably(stage / "snapshot", files)
        sync_directory(stage)
        sync_directory(self._staging)
        return stage

    def _place(self, stage: Path, commit: str, branch: str, tags: Sequence[str]) -> None:
        (stage / "snapshot").rename(self.snapshot(commit))
        sync_directory(self.folder / "snapshots")
        (stage / "commit.json").rename(self._commit_path(commit))
        sync_directory(self.folder / "commits")
        history = self.folder / "refs" / "history" / commit
        replace_file(history, commit.encode(), staging=self._staging)
        if branch != DEFAULT_REVISION and not self.is_branch(branch):
            write_file(self.folder / "branches" / branch, b"")
            sync_directory(self.folder / "branches")
        for tag in tags:
            self.set_ref(tag, commit)
        self.set_ref(branch, commit)

    def _recover(self) -> None:
        for commit in list(self._unfinished()):
            if not self._is_published(commit):
                self._undo(commit)
            self._discard(self._staging / commit)
        if self._staging.is_dir():
            for leftover in self._staging.iterdir():
                remove(leftover)
        self.store.sweep_trash()

    def _undo(self, commit: str) -> None:
        refs = self.folder / "refs"
        if refs.is_dir():
            for path in [p for p in refs.iterdir() if p.is_file() and self.ref(p.name) == commit]:
                remove(path)
        for leftover in (refs / "history" / commit, self._commit_path(commit)):
            remove(leftover)
        if self.snapshot(commit).is_dir():
            self._move_to_trash(self.snapshot(commit))

    def _discard(self, stage: Path) -> None:
        """End a finished push; the index is told first, so that it sees the stage or the note."""
        self.store.note_change(self.repo_id)
        self._move_to_trash(stage)
        self.store.sweep_trash()

    def _move_to_trash(self, folder: Path) -> None:
        """Remove a folder in one step; a partly removed one must never be read."""
        if folder.is_dir():
            folder.rename(self.store.hidden / "trash" / secrets.token_hex(8))
            sync_directory(folder.parent)

    def _unfinished(self) -> Iterator[str]:
        """Yield the commits of pushes that are under way or were stopped."""
        try:
            names = [path.name for path in self._staging.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return
        yield from filter(is_commit, names)

    def _is_published(self, commit: str) -> bool:
        """Return whether the push of `commit` has moved its branch."""
        stage = self._staging / commit
        if not stage.is_dir():
            return True
        branch = _branch_of(stage)
        return branch is not None and self.ref(branch) == commit

    def _without_record(self, commit: str) -> InvalidArtefact:
        return InvalidArtefact(
            f"{self._commit_path(commit)} is missing, so that commit of {self.repo_id} cannot be "
            "checked; restore the file from a backup of the hub"
        )

    def _commit_path(self, commit: str) -> Path:
        return self.folder / "commits" / f"{commit}.json"


_FILE_BROWSER_FILES = {".DS_Store", "Thumbs.db", "desktop.ini"}
_FOLDERS = ("refs/history", "branches", "snapshots", "commits")


def _branch_of(stage: Path) -> str | None:
    try:
        intent: dict[str, Any] = json.loads(read_file(stage / "intent.json", most=1000))
        return str(intent["branch"])
    except (OSError, ValueError, KeyError, InvalidArtefact):
        return None


def _read_entry(path: Path, entry: FileEntry) -> bytes:
    try:
        data = read_file(path, most=MAX_BYTES[path.name])
    except FileNotFoundError as error:
        raise InvalidArtefact(
            f"{path} is missing; restore it from a backup of the hub, or push again"
        ) from error
    if FileEntry.of(data) != entry:
        raise InvalidArtefact(
            f"{path} was altered: SHA-256 is {FileEntry.of(data).sha256}, expected "
            f"{entry.sha256}; restore it from a backup of the hub, or push again"
        )
    return data
