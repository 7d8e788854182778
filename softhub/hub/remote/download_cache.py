"""Adapters pulled from remote hubs, stored under softhub's home for reuse and offline use.

::

    HOME/pulled/HOST/models--me--sentiment/snapshots/<commit>/...   the adapter's files
                                          /commits/<commit>.json    their sizes and hashes
                                          /refs/<revision>          the commit it named last

A snapshot appears complete, by a rename; its record is written after it. Everything is checked
again when it is read, so a cached adapter is as trustworthy as a fresh one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

from softhub.adapter.adapter import Adapter
from softhub.adapter.layout import FILES, MAX_BYTES, write_atomically
from softhub.adapter.strict_json import parse_object
from softhub.errors import HubUnavailable, InvalidAdapter
from softhub.files import replace_file, unfinished_name
from softhub.hub.local.disk import locked, make_folders, os_errors_as_hub_errors, read_file, remove
from softhub.hub.names import is_commit, repo_folder_name
from softhub.hub.records import FileEntry
from softhub.hub.transfer import Fetched


class DownloadCache:
    """The pulled adapters of one endpoint."""

    def __init__(self, home: Path, endpoint: str) -> None:
        """Use the folder for `endpoint` under `home`; it need not exist."""
        host = re.sub(r"[^A-Za-z0-9.-]", "_", endpoint.split("://", 1)[1])
        self.root = home / "pulled" / host

    def store(self, fetched: Fetched) -> Path:
        """Write validated files and return their folder; nothing is written twice."""
        files, folder = fetched.adapter.files, self._snapshot(fetched.repo_id, fetched.revision)
        if not self._holds(fetched):
            with self._writing(fetched.repo_id) as repo:
                if not self._holds(fetched):  # another process may have written it meanwhile
                    write_atomically(folder, files, within_hub=True)
                    entries = {name: asdict(FileEntry.of(data)) for name, data in files.items()}
                    record = json.dumps({"files": entries}, sort_keys=True).encode()
                    _write(repo / "commits" / f"{fetched.revision}.json", record)
        return folder

    def set_ref(self, repo_id: str, revision: str, commit: str) -> None:
        """Record the current commit of a branch or tag, for offline use."""
        if not is_commit(revision) and self._ref(repo_id, revision) != commit:
            with self._writing(repo_id) as repo:
                _write(repo / "refs" / _ref_name(revision), commit.encode())

    def fetch(self, repo_id: str, revision: str) -> Fetched:
        """Return the adapter that was pulled before under this name.

        Raises:
            HubUnavailable: Nothing was, or it was altered since.
        """
        commit = revision if is_commit(revision) else self._ref(repo_id, revision)
        files = self._files(repo_id, commit) if commit else None
        if commit is None or files is None:
            raise HubUnavailable(
                f"{repo_id}@{revision} was not pulled before, and softhub is offline; "
                "go online and pull it once"
            )
        return Fetched(repo_id, commit, Adapter(files, f"{repo_id}@{commit}"))

    def file(self, repo_id: str, commit: str, name: str) -> bytes | None:
        """Return a cached file as it is on the disk, or None; the caller checks it."""
        return _read(self._snapshot(repo_id, commit) / name, most=MAX_BYTES[name])

    def _files(self, repo_id: str, commit: str) -> dict[str, bytes] | None:
        """Return a commit's files if all are as they were pulled, or else None."""
        path = self._repo(repo_id) / "commits" / f"{commit}.json"
        try:
            record = parse_object(_read(path, most=64 * 1024) or b"", origin=str(path))
        except InvalidAdapter:
            return None
        files = {}
        for name, entry in record.get("files", {}).items():
            data = self.file(repo_id, commit, name) if name in FILES else None
            if data is None or asdict(FileEntry.of(data)) != entry:
                return None
            files[name] = data
        return files

    def _ref(self, repo_id: str, revision: str) -> str | None:
        content = _read(self._repo(repo_id) / "refs" / _ref_name(revision), most=100) or b""
        commit = content.decode("ascii", errors="replace")
        return commit if is_commit(commit) else None

    def _holds(self, fetched: Fetched) -> bool:
        return self._files(fetched.repo_id, fetched.revision) == fetched.adapter.files

    def _repo(self, repo_id: str) -> Path:
        return self.root / repo_folder_name(repo_id)

    def _snapshot(self, repo_id: str, commit: str) -> Path:
        return self._repo(repo_id) / "snapshots" / commit

    @contextmanager
    def _writing(self, repo_id: str) -> Iterator[Path]:
        """Lock a repository's folder for writing; first remove what a killed writer left."""
        repo = self._repo(repo_id)
        with os_errors_as_hub_errors(f"caching {repo_id}"):
            make_folders(repo)
            with locked(repo / ".lock", f"caching {repo_id}"):
                for entry in repo.glob("*/.*"):
                    if unfinished_name(entry.name):
                        remove(entry)
                yield repo


def _ref_name(revision: str) -> str:
    """Return the file of a revision; that of `feature/x` is not in a folder `feature`."""
    return quote(revision, safe="")


def _read(path: Path, *, most: int) -> bytes | None:
    try:
        return read_file(path, most=most)
    except (FileNotFoundError, NotADirectoryError, InvalidAdapter):
        return None


def _write(path: Path, data: bytes) -> None:
    make_folders(path.parent)
    replace_file(path, data)
