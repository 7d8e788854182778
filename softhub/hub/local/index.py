"""An index of a local hub for fast searches: SQLite, and only ever a cache of the folders.

The index learns of changes from three places: the note that every writer appends to
`.softhub/changes`, the pushes under way in `.softhub/staging`, and the modification time of the
root, which changes when folders are copied in or removed. A row is returned only if its
repository has not changed since, and is otherwise read again from the folder. Delete the file and
the next search rebuilds it.

The file is in softhub's home and not in the hub, because a hub that was copied from somewhere may
contain anything, and rows from it must not be trusted.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from softhub.config import softhub_home
from softhub.errors import ConfigError, HubError
from softhub.hub.local.repository import Repository
from softhub.hub.local.store import Store
from softhub.hub.names import repo_folder_name, repo_id_of
from softhub.hub.query import Query, goodness, searched_text
from softhub.hub.records import AdapterInfo

SCHEMA = 2
BUSY_SECONDS = 10.0
_WARN_AFTER_SECONDS = 2.0
_WORST = -1e308
_MAX_NOTES = 1 << 24  # bytes; beyond that reading every folder is as fast
UNUSABLE = (
    *(sqlite3.Error, HubError, ValueError, TypeError, KeyError, AttributeError, OverflowError),
)
"""Errors of damaged rows; a damaged repository raises none, but is described as damaged."""
_DAMAGED = re.compile("no such|has no column")
# Records are in a table of their own, so that a search through the texts reads few pages.
_TABLES = f"""
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS adapters (
    id INTEGER PRIMARY KEY, repo_id TEXT UNIQUE, refs INTEGER, task TEXT, kind TEXT, base TEXT,
    author TEXT, license TEXT, rank REAL, date TEXT, size INTEGER, text TEXT, labels TEXT
);
CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY, record TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS by_task ON adapters (task, rank DESC, repo_id);
CREATE INDEX IF NOT EXISTS by_base ON adapters (base, rank DESC, repo_id);
CREATE INDEX IF NOT EXISTS by_rank ON adapters (rank DESC, repo_id);
CREATE INDEX IF NOT EXISTS by_date ON adapters (date DESC, repo_id);
PRAGMA user_version = {SCHEMA};
"""
_COLUMNS = ("repo_id", "refs", "task", "kind", "base", "author", "license", "rank", "date", "size")
_ALL = (*_COLUMNS, "text", "labels")
_UPSERT = f"""
INSERT INTO adapters ({", ".join(_ALL)}) VALUES ({", ".join("?" * len(_ALL))})
ON CONFLICT (repo_id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _ALL[1:])}
RETURNING id
"""
_DELETE_RECORD = "DELETE FROM records WHERE id = (SELECT id FROM adapters WHERE repo_id = ?)"
_ORDERS = {
    "score": "rank DESC, repo_id",
    "date": "date DESC, repo_id",
    "size": "size, repo_id",
    "name": "repo_id",
}
_logger = logging.getLogger("softhub")

Describe = Callable[[str], AdapterInfo | None]


class Index:
    """The index of one local hub; each call opens the file, brings it up to date and closes it."""

    def __init__(self, store: Store, describe: Describe) -> None:
        """Index `store`.

        Args:
            store: The hub.
            describe: Describes `main` of a repository from its folder; None if it has none.
        """
        self.store = store
        self.describe = describe

    def select(self, query: Query) -> list[AdapterInfo]:
        """Return the adapters that match, in order, each as it is in its folder now.

        Raises:
            sqlite3.Error: The index cannot be used, for instance while another process builds it;
                any other of `UNUSABLE` if a new index cannot be built either.
        """
        path = index_path(self.store.root)
        try:
            return self._select(path, query)
        except UNUSABLE as error:
            if isinstance(error, sqlite3.OperationalError) and not _DAMAGED.search(str(error)):
                raise
            _logger.info("rebuilding the damaged index %s: %s", path, error)
        path.unlink(missing_ok=True)
        return self._select(path, query)

    def _select(self, path: Path, query: Query) -> list[AdapterInfo]:
        with closing(_connect(path)) as connection:
            self._refresh(connection)
            return query.ordered(self._found(connection, query))

    # Bringing the index up to date.

    def _refresh(self, connection: sqlite3.Connection) -> None:
        state = dict(connection.execute("SELECT key, value FROM state"))
        under_way = set(self._under_way())  # before the notes: a push leaves one, then the other
        root_time, identity, notes = self._root_time(), self._identity(), self._notes_size()
        read = int(state.get("notes", 0))
        readable = 0 <= read <= notes <= read + _MAX_NOTES
        if state.get("identity") != identity or not readable:
            changed = self._known(connection) | set(self.store.repo_ids())
        elif state.get("root_time") != root_time:
            changed = self._known(connection) ^ set(self.store.repo_ids())
            changed |= under_way | set(self._noted(read, notes))
        else:
            changed = under_way | set(self._noted(read, notes))
        values = {"root_time": root_time, "identity": identity, "notes": str(notes)}
        if changed or state != values:
            with _transaction(connection):
                self._read(connection, changed)
                connection.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", values.items())

    def _under_way(self) -> Iterator[str]:
        staging = self.store.hidden / "staging"
        with suppress(OSError):
            for folder in staging.iterdir() if staging.is_dir() else ():
                repo_id = repo_id_of(folder.name)
                if repo_id and folder.is_dir() and any(folder.iterdir()):
                    yield repo_id

    def _noted(self, start: int, end: int) -> Iterator[str]:
        if end <= start:
            return
        with self.store.changes.open("rb") as stream:
            stream.seek(start)
            yield from stream.read(end - start).decode(errors="replace").splitlines()

    def _notes_size(self) -> int:
        try:
            return self.store.changes.stat().st_size
        except OSError:
            return 0

    def _root_time(self) -> str:
        try:
            return str(self.store.root.stat().st_mtime_ns)
        except OSError:
            return "none"

    def _identity(self) -> str:
        """Return what differs if another hub, or other notes, took the place of those indexed."""
        numbers = []
        for path in (self.store.root, self.store.changes):
            try:
                numbers.append(path.stat().st_ino)
            except OSError:
                numbers.append(0)
        return "-".join(map(str, numbers))

    def _known(self, connection: sqlite3.Connection) -> set[str]:
        return {row[0] for row in connection.execute("SELECT repo_id FROM adapters")}

    def _read(self, connection: sqlite3.Connection, repo_ids: Iterable[str]) -> None:
        warn_at = time.monotonic() + _WARN_AFTER_SECONDS
        for count, repo_id in enumerate(sorted(repo_ids)):
            self._update(connection, repo_id)
            if time.monotonic() > warn_at:
                warn_at = float("inf")
                _logger.warning("indexing the hub, %d adapters so far; needed only once", count)

    def _update(self, connection: sqlite3.Connection, repo_id: str) -> None:
        if repo_id_of(repo_folder_name(repo_id)) is None:
            return  # a damaged note
        refs = self._refs_time(repo_id)
        info = self.describe(repo_id)
        if info is None:
            connection.execute(_DELETE_RECORD, (repo_id,))
            connection.execute("DELETE FROM adapters WHERE repo_id = ?", (repo_id,))
        else:
            (row,) = connection.execute(_UPSERT, _row(info, refs)).fetchone()
            record = json.dumps(info.to_record())
            connection.execute("INSERT OR REPLACE INTO records VALUES (?, ?)", (row, record))

    def _refs_time(self, repo_id: str) -> int:
        """Return when refs last changed: every changed ref is a rename in their folder."""
        try:
            return (Repository(self.store, repo_id).folder / "refs").stat().st_mtime_ns
        except OSError:
            return 0

    # Searching.

    def _found(self, connection: sqlite3.Connection, query: Query) -> list[AdapterInfo]:
        """Return what matches, and no more than the limit where SQL's order is the query's."""
        in_order = query.sort != "score" or query.metric is None
        found: list[AdapterInfo] = []
        stale: list[str] = []
        for repo_id, refs, record in self._rows(connection, query):
            if refs == self._refs_time(repo_id):
                info: AdapterInfo | None = AdapterInfo.from_record(json.loads(record))
            else:
                info = self.describe(repo_id)
                stale.append(repo_id)
            if info is not None and query.matches(info):
                found.append(info)
            if in_order and len(found) == query.limit:
                break
        if stale:  # only now, because a row that is moved while rows are read may be read twice
            with _transaction(connection):
                self._read(connection, stale)
        return found

    def _rows(self, connection: sqlite3.Connection, query: Query) -> Iterator[tuple[str, int, str]]:
        """Yield what could match, in order; the caller checks it against the query."""
        conditions, values = _conditions(query)
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        cursor = connection.execute(
            f"SELECT id, repo_id, refs FROM adapters {where} ORDER BY {_ORDERS[query.sort]}", values
        )
        for row, repo_id, refs in cursor:
            record = connection.execute("SELECT record FROM records WHERE id = ?", (row,))
            yield repo_id, refs, record.fetchone()[0]


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def index_path(root: Path) -> Path:
    """Return the file with this user's index of the hub at `root`; its folder exists.

    Raises:
        sqlite3.OperationalError: There is no home folder, or it cannot be written.
    """
    digest = sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    try:
        cache = softhub_home() / "cache"
        cache.mkdir(parents=True, exist_ok=True)
    except (OSError, ConfigError) as error:
        raise sqlite3.OperationalError(str(error)) from error
    return cache / f"index-{digest}.sqlite"


def _connect(path: Path) -> sqlite3.Connection:
    """Open an index, which is created if necessary.

    Raises:
        sqlite3.DatabaseError: It is damaged, or has another schema.
    """
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        if _is_ready(connection):
            return connection
    except sqlite3.Error:
        connection.close()
        raise
    connection.close()
    raise sqlite3.DatabaseError("it has another schema")


def _is_ready(connection: sqlite3.Connection) -> bool:
    # A cache may be lost in a power cut, so no write waits for the disk.
    connection.execute("PRAGMA synchronous = OFF")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        connection.executescript(_TABLES)
    return version in (0, SCHEMA)


def _row(info: AdapterInfo, refs: int) -> tuple[object, ...]:
    return (
        info.repo_id,
        refs if info.revision else 0,  # a damaged adapter is read again each time
        _lower(info.task),
        _lower(info.task_kind),
        _lower(info.base_model),
        info.author.lower(),
        _lower(info.license),
        _WORST if info.score is None else goodness(*info.score),
        info.date,
        info.total_bytes,
        searched_text(info),
        _labels(info),
    )


def _labels(info: AdapterInfo) -> str:
    """Return the fields with several values as one text, each value between bars."""
    labels = [
        *(f"tag:{tag}" for tag in (*info.keywords, *info.tags)),
        *(f"language:{code}" for code in info.language),
        *(f"dataset:{name}" for name in info.datasets),
        *(f"metric:{metric.name}" for metric in info.metrics),
        f"base:{(info.base_model or '').rsplit('/', 1)[-1]}",
    ]
    return f"|{'|'.join(labels)}|".lower()


def _lower(text: str | None) -> str | None:
    return text.lower() if text is not None else None


def _conditions(query: Query) -> tuple[list[str], list[str]]:
    """Return conditions and values for the part of a query that SQL can answer by itself."""
    exact = {
        "task": query.task,
        "kind": query.task_kind,
        "author": query.author,
        "license": query.license,
        "base": query.base_model if query.base_model and "/" in query.base_model else None,
    }
    conditions = [f"{column} = ?" for column, value in exact.items() if value is not None]
    values = [value.lower() for value in exact.values() if value is not None]
    words = (query.text or "").lower().split()
    labels = {
        "tag": query.tag,
        "language": query.language,
        "dataset": query.dataset,
        "metric": query.metric,
        "base": query.base_model if query.base_model and "/" not in query.base_model else None,
    }
    named = [f"|{kind}:{value}|".lower() for kind, value in labels.items() if value is not None]
    conditions += ["instr(text, ?) > 0"] * len(words) + ["instr(labels, ?) > 0"] * len(named)
    return conditions, values + words + named
