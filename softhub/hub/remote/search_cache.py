"""Descriptions that searches of remote hubs have made, by commit; only a cache."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path

from softhub.hub.records import AdapterInfo

SCHEMA = 2
FILE = f"described-{SCHEMA}.sqlite"
BUSY_SECONDS = 5.0
_TABLE = """
CREATE TABLE IF NOT EXISTS described (
    endpoint TEXT, repo_id TEXT, revision TEXT, record TEXT, PRIMARY KEY (endpoint, repo_id)
) WITHOUT ROWID
"""
_logger = logging.getLogger("softhub")

Descriptions = dict[str, AdapterInfo | None]


class SearchCache:
    """Descriptions of the newest commits of one endpoint's repositories.

    A commit does not change, so a description is valid for as long as its commit is the newest.
    None marks a repository that contains no prompt. A cache that cannot be used is empty.
    """

    def __init__(self, home: Path, endpoint: str) -> None:
        """Use the cache under `home`; it need not exist."""
        self.path = home / "cache" / FILE
        self.endpoint = endpoint

    def lookup(self, heads: Mapping[str, str]) -> Descriptions:
        """Return the known descriptions of repositories, by name, at exactly these commits."""
        query = "SELECT record FROM described WHERE endpoint = ? AND repo_id = ? AND revision = ?"
        found: Descriptions = {}

        def read(connection: sqlite3.Connection) -> None:
            for head in heads.items():
                row = connection.execute(query, (self.endpoint, *head)).fetchone()
                if row is not None:
                    with suppress(ValueError, TypeError, KeyError):  # that row alone is damaged
                        record = json.loads(row[0])
                        found[head[0]] = None if record is None else AdapterInfo.from_record(record)

        self._use(read)
        return found

    def store(self, heads: Mapping[str, str], descriptions: Descriptions) -> None:
        """Add descriptions; they replace those of older commits."""
        rows = [
            (self.endpoint, repo_id, heads[repo_id], json.dumps(info and info.to_record()))
            for repo_id, info in descriptions.items()
            if info is None or info.revision == heads[repo_id]
        ]
        insert = "INSERT OR REPLACE INTO described VALUES (?, ?, ?, ?)"
        self._use(lambda connection: connection.executemany(insert, rows))

    def _use(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Open the cache and work on it; errors are only logged."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS)
            with closing(connection), connection:
                connection.execute(_TABLE)
                work(connection)
        except (OSError, sqlite3.Error, ValueError, TypeError, KeyError) as error:
            _logger.info("the cache of searches cannot be used: %s", error)
            if type(error) is sqlite3.DatabaseError:  # damaged; the next search rebuilds it
                self.path.unlink(missing_ok=True)
