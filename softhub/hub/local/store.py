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
    HUB/.gitattributes                                 stops git from converting line ends

A push is prepared in `staging` and takes effect atomically when its branch's ref is
replaced. If it is stopped earlier, the next writer undoes it, and readers do not see it. If it is
stopped later, readers already see its tags, and the next writer writes them. Whatever `staging`
says, a commit that a ref reaches is never undone. No link below the root is followed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from softhub.errors import HubError
from softhub.files import replace_file
from softhub.hub.local.disk import append, find_link, reading, remove
from softhub.hub.names import repo_id_of

HIDDEN = ".softhub"
_GIT_ATTRIBUTES = b"* -text\n"


class Store:
    """All repositories under one hub's root."""

    def __init__(self, root: Path) -> None:
        """Use `root`, which need not exist yet."""
        self.root = root
        self.hidden = root / HIDDEN
        self.changes = self.hidden / "changes"

    def exists(self) -> bool:
        """Return whether there is a folder.

        Raises:
            HubError: The system does not say.
        """
        with reading(self.root):
            return self.root.is_dir()

    def repo_ids(self) -> Iterator[str]:
        """Yield the names of all folders that could be repositories.

        Raises:
            HubError: The root cannot be read.
        """
        if not self.exists():
            return
        with reading(self.root):
            names = [path.name for path in self.root.iterdir()]
        yield from filter(None, map(repo_id_of, names))

    def check_writable(self, *paths: Path) -> None:
        """Refuse to write, list or delete through a link.

        Raises:
            HubError: There is a link or a special file on the way to one of the paths.
        """
        found = find_link(self.root, *paths)
        if found:
            raise HubError(found)

    def check_case(self, folder: Path) -> None:
        """Reject a new repository that differs from another only in the case of its letters.

        The two would be one folder on macOS and Windows.

        Raises:
            HubError: There is such a repository.
        """
        other_case = folder.with_name(folder.name.swapcase())
        if not self.root.is_dir() or (folder.exists() and not other_case.exists()):
            return
        names = [path.name for path in self.root.iterdir()]
        for name in names if folder.name not in names else ():
            if name.lower() == folder.name.lower():
                raise HubError(
                    f"the hub already has {repo_id_of(name)}, which differs from "
                    f"{repo_id_of(folder.name)} only in case; use that name, or another one"
                )

    def write_git_attributes(self) -> None:
        """Stop git from converting line ends if somebody keeps the hub in a git repository."""
        path = self.root / ".gitattributes"
        if not os.path.lexists(path):
            replace_file(path, _GIT_ATTRIBUTES)

    def note_change(self, repo_id: str) -> None:
        """Tell every index that a repository changed; one short append, all or nothing."""
        try:
            append(self.changes, f"{repo_id}\n".encode())
        except OSError:
            with suppress(OSError):
                self.changes.unlink()  # an index that finds no notes reads everything again
            raise

    def sweep_trash(self) -> None:
        """Delete discarded files; failures are retried the next time."""
        with suppress(OSError):
            for entry in list((self.hidden / "trash").iterdir()):
                remove(entry)
