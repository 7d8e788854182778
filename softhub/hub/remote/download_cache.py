"""What was pulled from remote hubs, kept under softhub's home for the next time and offline use.

::

    HOME/pulled/HOST/models--me--sentiment/snapshots/<commit>/...   the adapter's files
                                          /commits/<commit>.json    their sizes and hashes
                                          /refs/<revision>          what a name last meant

A snapshot appears whole, by a rename; its record is written after it. Everything is checked
again when it is read, so a kept adapter is no weaker than a fresh one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from softhub.adapter.layout import FILES, MAX_BYTES, write_atomically
from softhub.adapter.strict_json import parse_object
from softhub.errors import HubUnavailable, InvalidArtefact
from softhub.files import replace_file, unfinished_name
from softhub.hub.backend import Fetched
from softhub.hub.local.disk import locked, make_folders, read_file, remove, told_as_hub_error
from softhub.hub.names import is_commit, repo_folder_name
from softhub.hub.records import FileEntry


class Kept:
    """The pulled adapters of one endpoint."""

    def __init__(self, home: Path, endpoint: str) -> None:
        """Look at the folder for `endpoint` under `home`; it need not exist."""
        host = re.sub(r"[^A-Za-z0-9.-]", "_", endpoint.split("://", 1)[1])
        self.root = home / "pulled" / host

    def keep(self, fetched: Fetched) -> Path:
        """Write validated files and return their folder; nothing is written twice."""
        folder = self._repo(fetched.repo_id) / "snapshots" / fetched.revision
        if not self._holds(fetched):
            with self._writing(fetched.repo_id) as repo:
                if not self._holds(fetched):  # nor has another process written them meanwhile
                    write_atomically(folder, fetched.files)
                    entries = {n: vars(FileEntry.of(data)) for n, data in fetched.files.items()}
                    record = json.dumps({"files": entries}, sort_keys=True).encode()
                    _write(repo / "commits" / f"{fetched.revision}.json", record)
        return folder

    def remember(self, repo_id: str, revision: str, commit: str) -> None:
        """Note what a branch or tag means now, for offline use."""
        if not is_commit(revision) and self._ref(repo_id, revision) != commit:
            with self._writing(repo_id) as repo:
                _write(repo / "refs" / revision, commit.encode())

    def fetch(self, repo_id: str, revision: str) -> Fetched:
        """Return what was pulled before under this name.

        Raises:
            HubUnavailable: Nothing was.
            InvalidArtefact: It was altered since.
        """
        commit = revision if is_commit(revision) else self._ref(repo_id, revision)
        files = self._present(repo_id, commit) if commit else None
        if commit is None or files is None:
            raise HubUnavailable(
                f"{repo_id}@{revision} was not pulled before, and softhub is offline; "
                "go online and pull it once"
            )
        return Fetched(repo_id, commit, files)

    def file(self, repo_id: str, commit: str, name: str) -> bytes | None:
        """Return a kept file as it is on the disk, or None; the caller checks it."""
        folder = self._repo(repo_id) / "snapshots" / commit
        try:
            return read_file(folder / name, most=MAX_BYTES[name])
        except (FileNotFoundError, InvalidArtefact):
            return None

    def _present(self, repo_id: str, commit: str) -> Mapping[str, bytes] | None:
        path = self._repo(repo_id) / "commits" / f"{commit}.json"
        try:
            record = parse_object(read_file(path, most=64 * 1024), origin=str(path))
        except (FileNotFoundError, InvalidArtefact):
            return None
        files = {}
        for name, entry in record.get("files", {}).items():
            data = self.file(repo_id, commit, name) if name in FILES else None
            if data is None or vars(FileEntry.of(data)) != entry:
                return None
            files[name] = data
        return files

    def _ref(self, repo_id: str, revision: str) -> str | None:
        path = self._repo(repo_id) / "refs" / revision
        try:
            commit = read_file(path, most=100).decode("ascii", errors="replace")
        except (FileNotFoundError, InvalidArtefact):
            return None
        return commit if is_commit(commit) else None

    def _holds(self, fetched: Fetched) -> bool:
        return self._present(fetched.repo_id, fetched.revision) == fetched.files

    def _repo(self, repo_id: str) -> Path:
        return self.root / repo_folder_name(repo_id)

    @contextmanager
    def _writing(self, repo_id: str) -> Iterator[Path]:
        """Be the only writer of a repository's folder; remove first what a killed writer left."""
        repo = self._repo(repo_id)
        with told_as_hub_error(f"keeping {repo_id}"):
            make_folders(repo)
            with locked(repo / ".lock", f"keeping {repo_id}"):
                for entry in repo.glob("*/.*"):
                    if unfinished_name(entry.name):
                        remove(entry)
                yield repo


def _write(path: Path, data: bytes) -> None:
    make_folders(path.parent)
    replace_file(path, data)
