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
import tempfile
from collections.abc import Mapping
from pathlib import Path

from softhub.artefact.layout import FILES, MAX_BYTES, write_atomically
from softhub.artefact.strict_json import parse_object
from softhub.artefact.validation import read_folder
from softhub.errors import HubUnavailable, InvalidArtefact
from softhub.hub.backend import Fetched
from softhub.hub.disk import make_folders, read_file, replace_file, told_as_hub_error
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
        repo = self.root / repo_folder_name(fetched.repo_id)
        folder = repo / "snapshots" / fetched.revision
        with told_as_hub_error(f"keeping {fetched.repo_id}"):
            if self._present(fetched.repo_id, fetched.revision) != fetched.files:
                _write_beside_others(folder, fetched.files)
                entries = {n: vars(FileEntry.of(data)) for n, data in fetched.files.items()}
                record = json.dumps({"files": entries}, sort_keys=True).encode()
                self._write(repo / "commits" / f"{fetched.revision}.json", record)
        return folder

    def remember(self, repo_id: str, revision: str, commit: str) -> None:
        """Note what a branch or tag means now, for offline use."""
        if not is_commit(revision):
            path = self.root / repo_folder_name(repo_id) / "refs" / revision
            with told_as_hub_error(f"keeping {repo_id}"):
                self._write(path, commit.encode())

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
        folder = self.root / repo_folder_name(repo_id) / "snapshots" / commit
        try:
            return read_file(folder / name, most=MAX_BYTES[name])
        except (FileNotFoundError, InvalidArtefact):
            return None

    def _present(self, repo_id: str, commit: str) -> Mapping[str, bytes] | None:
        path = self.root / repo_folder_name(repo_id) / "commits" / f"{commit}.json"
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
        path = self.root / repo_folder_name(repo_id) / "refs" / revision
        try:
            commit = read_file(path, most=100).decode("ascii", errors="replace")
        except (FileNotFoundError, InvalidArtefact):
            return None
        return commit if is_commit(commit) else None

    def _write(self, path: Path, data: bytes) -> None:
        make_folders(path.parent)
        # A temporary name of its own for each writer: others may pull the same at this moment.
        with tempfile.TemporaryDirectory(prefix=".", dir=self.root) as staging:
            replace_file(path, data, staging=Path(staging))


def _write_beside_others(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a snapshot; another process that just wrote the same is no trouble."""
    try:
        write_atomically(folder, files)
    except OSError:
        if any(not (folder / name).is_file() for name in files) or read_folder(folder) != files:
            raise
