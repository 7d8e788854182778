"""What pushes to one repository have prepared, and which of them were stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softhub.adapter.layout import write_durably
from softhub.files import sync_directory
from softhub.hub.local.disk import find_link, make_folders, read_file, remove
from softhub.hub.local.store import Store
from softhub.hub.names import check_revision_name, is_commit
from softhub.hub.records import MAX_COMMIT_BYTES, Commit

if TYPE_CHECKING:
    from filelock import BaseFileLock


@dataclass(frozen=True)
class Intent:
    """The steps of a staged push after placing its commit: move a branch, then set tags."""

    branch: str
    tags: tuple[str, ...]


class Staging:
    """The staged pushes of one repository, each in a folder with the name of its commit.

    A push locks a file in its own folder, too. Where the repository's lock is lost because
    somebody empties `.softhub/locks`, no other push takes it for one that was stopped.
    """

    def __init__(self, store: Store, name: str) -> None:
        """Use the folder for a repository's folder `name`; it need not exist yet."""
        self._store = store
        self.folder = store.hidden / "staging" / name

    def commits(self) -> list[str]:
        """Return the commits of pushes that are under way or were stopped."""
        try:
            return [path.name for path in self.folder.iterdir() if is_commit(path.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def intent(self, commit: str) -> Intent | None:
        """Return the remaining steps of a push; None if the note is damaged."""
        path = self.folder / commit / "intent.json"
        if find_link(self._store.root, path):
            return None
        try:
            note: dict[str, Any] = json.loads(read_file(path, most=MAX_COMMIT_BYTES))
            tags = tuple(map(check_revision_name, note["tags"]))
            return Intent(check_revision_name(note["branch"]), tags)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    @contextmanager
    def prepared(
        self, commit: Commit, files: Mapping[str, bytes], intent: Intent
    ) -> Iterator[Path]:
        """Write a push's files to its folder, which is locked as long as the block works."""
        make_folders(self.folder)
        stage = self.folder / commit.id
        record = json.dumps({"branch": intent.branch, "tags": intent.tags}).encode()
        write_durably(stage, {"intent.json": record, "commit.json": commit.to_bytes()})
        with self._lock(commit.id):
            write_durably(stage / "snapshot", files)
            sync_directory(stage)
            sync_directory(self.folder)
            yield stage

    @contextmanager
    def stopped(self, commit: str) -> Iterator[bool]:
        """Find out whether a push was stopped, and lock its folder meanwhile."""
        with ExitStack() as stack:
            found = True
            stage = self.folder / commit
            lock = stage / "lock"
            # A push makes no link or folder there: it is not opened, and need not be waited for.
            if stage.is_dir() and not lock.is_dir() and not find_link(self._store.root, lock):
                try:
                    stack.enter_context(self._lock(commit))
                except OSError:  # `Timeout`, or a folder of another user
                    found = False
            yield found

    def sweep(self) -> None:
        """Remove what belongs to no push."""
        for leftover in self.folder.iterdir() if self.folder.is_dir() else ():
            if not (is_commit(leftover.name) and leftover.is_dir()):
                remove(leftover)

    def _lock(self, commit: str) -> BaseFileLock:
        from filelock import FileLock

        return FileLock(self.folder / commit / "lock", timeout=0)
