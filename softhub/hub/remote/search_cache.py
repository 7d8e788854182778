"""What searches of remote hubs found out, by commit, so that no one asks twice; only a cache."""

from __future__ import annotations

import json
import logging
import sqlite3
from contextlib import closing
from pathlib import Path

from softhub.hub.records import AdapterInfo

SCHEMA = 1
FILE = f"described-{SCHEMA}.sqlite"
BUSY_SECONDS = 5.0
_TABLE = """
CREATE TABLE IF NOT EXISTS described (
    endpoint TEXT, repo_id TEXT, revision TEXT, record TEXT, PRIMARY KEY (endpoint, repo_id)
) WITHOUT ROWID
"""
_logger = logging.getLogger("softhub")

Described = dict[str, AdapterInfo | None]


class DescribedCache:
    """Descriptions of the newest commits of one endpoint's repositories.

    A commit does not change, so a description is good for as long as its commit is the newest.
    None stands for a repository that holds no prompt. A cache that cannot be used is empty.
    """

    def __init__(self, home: Path, endpoint: str) -> None:
        """Use the cache under `home`; it need not exist."""
        self.path = home / "cache" / FILE
        self.endpoint = endpoint

    def known(self, heads: dict[str, str]) -> Described:
        """Return what is known of repositories at these very commits."""
        found: Described = {}
        try:
            with closing(self._opened()) as connection:
                for repo_id, revision in heads.items():
                    row = connection.execute(
                        "SELECT record FROM described "
                        "WHERE endpoint = ? AND repo_id = ? AND revision = ?",
                        (self.endpoint, repo_id, revision),
                    ).fetchone()
                    if row is not None:
                        record = json.loads(row[0])
                        found[repo_id] = AdapterInfo.from_record(record) if record else None
        except (OSError, sqlite3.Error, ValueError, TypeError, KeyError) as error:
            _logger.info("the cache of searches cannot be read: %s", error)
        return found

    def keep(self, heads: dict[str, str], described: Described) -> None:
        """Remember descriptions; they replace those of older commits."""
        rows = [
            (self.endpoint, repo_id, heads[repo_id], json.dumps(info and info.to_record()))
            for repo_id, info in described.items()
            if info is None or info.revision == heads[repo_id]
        ]
        try:
            with closing(self._opened()) as connection, connection:
                connection.executemany("INSERT OR REPLACE INTO described VALUES (?, ?, ?, ?)", rows)
        except (OSError, sqlite3.Error) as error:
            _logger.info("the cache of searches cannot be written: %s", error)

    def _opened(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS)
        try:
            connection.execute(_TABLE)
        except sqlite3.OperationalError:
            connection.close()
            raise
        except sqlite3.DatabaseError:
            connection.close()
            self.path.unlink()  # damaged: it holds nothing that cannot be asked again
            raise
        return connection
