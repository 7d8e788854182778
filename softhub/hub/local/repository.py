"""One repository of the local hub: reading it, and a push's steps; see `store` for the files."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from softhub.adapter.layout import FILES, MAX_BYTES, write_durably
from softhub.errors import (
    HubError,
    InvalidAdapter,
    PushConflict,
    RepositoryNotFound,
    RevisionNotFound,
)
from softhub.files import replace_file, sync_directory, write_file
from softhub.hub.local.disk import (
    after_publication,
    find_link,
    locked,
    make_folders,
    read_file,
    remove,
)
from softhub.hub.local.staging import Intent, Staging
from softhub.hub.local.store import Store
from softhub.hub.names import (
    DEFAULT_REVISION,
    check_repo_id,
    check_revision,
    is_commit,
    is_revision,
    repo_folder_name,
)
from softhub.hub.records import MAX_COMMIT_BYTES, Commit, FileEntry


class Repository:
    """One repository of the local hub: refs, commits, snapshots, and the steps of a push."""

    def __init__(self, store: Store, repo_id: str) -> None:
        """Use the folder of `repo_id`, which need not exist yet."""
        self.store = store
        self.repo_id = check_repo_id(repo_id)
        self.folder = store.root / repo_folder_name(repo_id)
        self._staging = Staging(store, self.folder.name)
        self._plain: set[str] = set()
        self._commits: dict[str, Commit] = {}  # a record does not change, as its hash is its name

    # Reading takes no lock and works on read-only media.

    def ref(self, name: str) -> str | None:
        """Return the commit that a branch or tag names, or None."""
        try:
            content = self._read_file(self.folder / "refs" / name, most=100)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except InvalidAdapter:
            if (self.folder / "refs" / name).is_dir():  # `history`, which contains refs
                return None
            raise
        commit = content.decode("ascii", errors="replace").strip()
        if not is_commit(commit):
            raise InvalidAdapter(
                f"{self.folder / 'refs' / name} contains no commit hash; restore it from a backup "
                "of the hub, or remove the file and push again"
            )
        return commit

    def refs(self) -> dict[str, str]:
        """Return all branches and tags with their commits."""
        found = self._unwritten_tags()
        for name in self.ref_names():
            commit = self.ref(name)
            if commit is not None:
                found[name] = commit
        return dict(sorted(found.items()))

    def ref_names(self) -> list[str]:
        """Return the names of branches and tags, and `history`, which contains refs.

        File browsers and programs that synchronize folders put files of other names there.
        """
        self._check_readable(self.folder / "refs")
        try:
            names = [path.name for path in (self.folder / "refs").iterdir()]
            return [name for name in names if is_revision(name) and name not in _BROWSER_FILES]
        except (FileNotFoundError, NotADirectoryError):
            return []

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
            InvalidAdapter: The record of the commit is missing.
        """
        check_revision(revision)
        by_hash = is_commit(revision)
        commit = revision if by_hash else self.ref(revision)
        commit = commit or self._unwritten_tags().get(revision)
        known = commit is not None and os.path.lexists(self._commit_path(commit))
        if commit and known and not (by_hash and self._is_unfinished(commit)):
            return commit
        if commit and not known and self.ref(revision) == commit:
            raise self._without_record(commit)
        refs = self.refs()
        if not refs:
            root = self.store.root
            hint = f"; `softhub list --hub local:{root}` shows what is"
            if not root.is_dir():
                hint = ", which does not exist; check the address of the hub"
            raise RepositoryNotFound(f"{self.repo_id} is not on the hub at {root}{hint}")
        raise RevisionNotFound(
            f"{self.repo_id} has no revision {revision!r}; it has {', '.join(sorted(refs))} "
            f"and the commits that `softhub log {self.repo_id}` shows"
        )

    def commit(self, commit: str) -> Commit:
        """Return the record of a commit, checked against its own name.

        Raises:
            InvalidAdapter: It is missing, or was altered.
        """
        if commit not in self._commits:
            path = self._commit_path(commit)
            try:
                data = self._read_file(path, most=MAX_COMMIT_BYTES)
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
            InvalidAdapter: A file is missing or altered.
        """
        entries = self.commit(commit).files
        folder = self.snapshot(commit)
        return {
            name: self._read_entry(folder / name, entries[name])
            for name in names
            if name in entries
        }

    def read_all(self, commit: str) -> dict[str, bytes]:
        """Return all files of a commit, after checking that its snapshot contains nothing else.

        Raises:
            InvalidAdapter: A file is missing, altered, or not in the commit's record.
        """
        files = self.read(commit)
        folder = self.snapshot(commit)
        present = {path.name for path in folder.iterdir()} - _BROWSER_FILES
        unexpected = sorted(present - set(files))
        if unexpected:
            raise InvalidAdapter(
                f"{folder} also contains {unexpected[0]!r}, which was not pushed; remove that file"
            )
        return files

    # Writing happens only inside `locked`.

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock this repository for writing; first finish what a stopped writer left.

        Raises:
            HubError: Another process holds the lock for too long, there is a link in the hub, or
                the repository is new and another one's name differs from its own only in case.
        """
        locks, trash = self.store.hidden / "locks", self.store.hidden / "trash"
        # One lock for all names that are the same folder on macOS and Windows.
        lock = locks / f"{self.folder.name.lower()}.lock"
        places = [self._staging.folder, *map(self.folder.joinpath, _FOLDERS)]
        self.store.check_writable(lock, trash, self.store.changes, *places)
        for folder in (locks, trash, self._staging.folder.parent):
            make_folders(folder)
        with locked(lock, f"writing to {self.repo_id}"):
            self.store.check_case(self.folder)
            self.store.write_git_attributes()
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

        Raises:
            PushConflict: Another push came between, because the lock was removed.
        """
        intent = Intent(branch, tuple(tags))
        try:
            for folder in _FOLDERS:
                make_folders(self.folder / folder)
            with self._staging.prepared(commit, files, intent) as stage:
                self._place(stage, commit, branch)
        except BaseException:
            with suppress(OSError, InvalidAdapter):
                self._recover()
            raise
        with after_publication(f"the push to {self.repo_id}"):
            self._complete(commit.id, intent)

    def restore(self, commit: str, files: Mapping[str, bytes]) -> list[str]:
        """Replace the files of a commit that are missing or were altered, each in one step.

        Args:
            commit: The commit.
            files: Its content, as its record describes it.

        Returns:
            The names of the files that were replaced.

        Raises:
            InvalidAdapter: The snapshot contains a file that is not the commit's.
            HubError: There is a link in the snapshot.
        """
        folder, stage = self.snapshot(commit), self._staging.folder / "restored"
        damaged = [name for name in files if not self._is_intact(commit, name)]
        if damaged:
            self.store.check_writable(*(folder / name for name in damaged))
            if folders := [str(folder / name) for name in damaged if (folder / name).is_dir()]:
                raise InvalidAdapter(
                    f"{folders[0]} is a folder; expected a file. Remove it, then push again."
                )
            for each in (folder, stage.parent):
                make_folders(each)
            write_durably(stage, {name: files[name] for name in damaged})
            for name in damaged:
                (stage / name).replace(folder / name)
            sync_directory(folder)
            remove(stage)
        self.read_all(commit)
        return damaged

    def set_tags(self, tags: Sequence[str], commit: str) -> None:
        """Point tags to a commit that exists; all of them or none."""
        new = [tag for tag in tags if self.ref(tag) is None]
        try:
            make_folders(self._staging.folder)
            for tag in new:
                self._set_ref(tag, commit, self._staging.folder)
        except BaseException:
            for tag in new:
                remove(self.folder / "refs" / tag)
            raise
        self._note_change(f"tagging {self.repo_id}")

    def delete_ref(self, name: str) -> None:
        """Remove a tag."""
        remove(self.folder / "refs" / name)
        with after_publication(f"removing {name} of {self.repo_id}"):
            sync_directory(self.folder / "refs")
        self._note_change(f"removing {name} of {self.repo_id}")

    def delete(self) -> None:
        """Remove the repository in one step."""
        self._move_to_trash(self.folder)
        self._note_change(f"deleting {self.repo_id}")
        self.store.sweep_trash()

    def _note_change(self, what: str) -> None:
        with after_publication(what):
            self.store.note_change(self.repo_id)

    def _set_ref(self, name: str, commit: str, staging: Path) -> None:
        replace_file(self.folder / "refs" / name, commit.encode(), staging=staging)

    def _place(self, stage: Path, commit: Commit, branch: str) -> None:
        (stage / "snapshot").rename(self.snapshot(commit.id))
        sync_directory(self.folder / "snapshots")
        (stage / "commit.json").rename(self._commit_path(commit.id))
        sync_directory(self.folder / "commits")
        self._set_ref(f"history/{commit.id}", commit.id, stage)
        if branch != DEFAULT_REVISION and not self.is_branch(branch):
            write_file(self.folder / "branches" / branch, b"")
            sync_directory(self.folder / "branches")
        if self.ref(branch) != commit.parent or not self._commit_path(commit.id).is_file():
            raise PushConflict(
                f"another process changed {self.repo_id} during this push, because its lock in "
                f"{self.store.hidden / 'locks'} was removed; leave that folder alone, and push "
                "again"
            )
        self._set_ref(branch, commit.id, stage)

    def _recover(self) -> None:
        for commit in self._staging.commits():
            with self._staging.stopped(commit) as stopped:
                if stopped:
                    self._end(commit)
            if stopped:
                self._discard(commit)
        self._staging.sweep()
        self.store.sweep_trash()

    def _end(self, commit: str) -> None:
        """Do the remaining steps of a push that was stopped, or undo those that it made."""
        intent = self._staging.intent(commit)
        if intent and self.ref(intent.branch) == commit:
            self._set_missing(intent.tags, commit)
        elif self._is_unfinished(commit):
            self._undo(commit, intent)

    def _complete(self, commit: str, intent: Intent) -> None:
        """Complete a push whose branch has moved."""
        self._set_missing(intent.tags, commit)
        self._discard(commit)

    def _set_missing(self, tags: Sequence[str], commit: str) -> None:
        for tag in tags:
            if self.ref(tag) is None:
                self._set_ref(tag, commit, self._staging.folder / commit)

    def _undo(self, commit: str, intent: Intent | None) -> None:
        """Remove a commit that no ref reaches."""
        if intent and self.ref(intent.branch) is None:
            remove(self.folder / "branches" / intent.branch)
        for leftover in (self.folder / "refs" / "history" / commit, self._commit_path(commit)):
            remove(leftover)
        self._move_to_trash(self.snapshot(commit))

    def _discard(self, commit: str) -> None:
        """End a finished push; the index is notified first, so that it sees stage or note."""
        stage = self._staging.folder / commit
        if stage.is_dir():
            self.store.note_change(self.repo_id)
            self._move_to_trash(stage)
            self.store.sweep_trash()

    def _move_to_trash(self, folder: Path) -> None:
        """Remove a folder in one step; a partly removed one must never be read."""
        if folder.is_dir():
            folder.rename(self.store.hidden / "trash" / secrets.token_hex(8))
            with suppress(OSError):  # it is gone: no later step may report a failure
                sync_directory(folder.parent)

    def _unwritten_tags(self) -> dict[str, str]:
        """Return the tags of pushes that have moved their branch and not yet written their tags."""
        staging = self._staging
        intents = ((commit, staging.intent(commit)) for commit in staging.commits())
        return {
            tag: commit
            for commit, intent in intents
            if intent and self.ref(intent.branch) == commit
            for tag in intent.tags
        }

    def _is_unfinished(self, commit: str) -> bool:
        """Return whether a push of `commit` began and no ref reaches it.

        Whoever plants a stage must not make a published commit disappear: it is unfinished only
        if every ref and the history behind it can be read, and it is in none.
        """
        if not (self._staging.folder / commit).is_dir():
            return False
        try:
            steps = set(self.refs().values())
            reached: set[str] = set()
            while steps:
                step = steps.pop()
                reached.add(step)
                parent = self.commit(step).parent
                if parent is not None and parent not in reached:
                    steps.add(parent)
        except (InvalidAdapter, HubError):
            return False
        return commit not in reached

    def _check_readable(self, path: Path) -> None:
        found = find_link(self.store.root, path, plain=self._plain)
        if found:
            raise InvalidAdapter(found)

    def _read_file(self, path: Path, *, most: int) -> bytes:
        self._check_readable(path)
        return read_file(path, most=most)

    def _read_entry(self, path: Path, entry: FileEntry) -> bytes:
        try:
            data = self._read_file(path, most=MAX_BYTES[path.name])
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InvalidAdapter(
                f"{path} is missing; restore it from a backup of the hub, or push again"
            ) from error
        found = FileEntry.of(data)
        if found != entry:
            raise InvalidAdapter(
                f"{path} was altered: SHA-256 is {found.sha256}, expected {entry.sha256}; "
                "restore it from a backup of the hub, or push again"
            )
        return data

    def _is_intact(self, commit: str, name: str) -> bool:
        try:
            return bool(self.read(commit, (name,)))
        except InvalidAdapter:
            return False

    def _without_record(self, commit: str) -> InvalidAdapter:
        return InvalidAdapter(
            f"{self._commit_path(commit)} is missing, so that commit of {self.repo_id} cannot be "
            "checked; restore the file from a backup of the hub, or remove each file that names "
            f"the commit from {self.folder / 'refs'} and push again, which begins a new history"
        )

    def _commit_path(self, commit: str) -> Path:
        return self.folder / "commits" / f"{commit}.json"


_BROWSER_FILES = {".DS_Store", "Thumbs.db", "desktop.ini"}
_FOLDERS = ("refs/history", "branches", "snapshots", "commits")
