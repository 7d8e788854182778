"""A strange repository on a shared hub damages no more than itself."""

import dataclasses
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from softhub.adapter.layout import CONFIG, MANIFEST, WEIGHTS
from softhub.adapter.manifest import Manifest, RecordedMetric
from softhub.hub import Hub
from softhub.hub.local.index import Index, index_path
from softhub.hub.records import AdapterInfo, commit_id
from softhub.hub.remote.search_cache import SearchCache
from tests.hub.adapters import adapter_files, write

REPO, OTHER = "evil/mood", "me/other"
FOLDER = "models--evil--mood"

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    hub = Hub(f"local:{tmp_path / 'hub'}")
    hub.push(write(tmp_path / "other", adapter_files(1)), OTHER)
    return hub


@pytest.fixture
def folder(hub: Hub, tmp_path: Path) -> Path:
    """The folder of a repository that somebody else can write to."""
    hub.push(write(tmp_path / "mood", adapter_files(2)), REPO, tags=["v1"])
    return tmp_path / "hub" / FOLDER


def _lists_both(hub: Hub, root: Path) -> AdapterInfo:
    """Check that every way to list shows both repositories; return the strange one's."""
    for _ in range(2):  # from the folders, then from the index
        found = {info.repo_id: info for info in hub.list()}
        assert set(found) == {REPO, OTHER}
        assert found[OTHER].unchecked is None
        assert OTHER in [info.repo_id for info in hub.search()]
        assert OTHER in [info.repo_id for info in hub.leaderboard("sentiment")]
        json.dumps(found[REPO].to_record())
    index_path(root).unlink(missing_ok=True)
    return found[REPO]


STRANGE: dict[str, dict[str, Any]] = {
    "a space that does not break": {"license": "Apache\u00a02.0"},
    "a space without width": {"license": "mit\u200b"},
    "a soft hyphen": {"license": "mit\u00ad"},
    "a character for private use": {"license": "\ue000"},
    "a huge known score": {
        "metrics": (RecordedMetric("accuracy", 10**19, None, None, "test", 3, {}),)
    },
    "a huge unknown score": {"metrics": (RecordedMetric("x", 10**19, None, None, "test", 3, {}),)},
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_adapter_that_can_be_pushed_hides_no_other(
    name: str, hub: Hub, tmp_path: Path
) -> None:
    files = adapter_files(3)
    manifest = dataclasses.replace(Manifest.from_bytes(files[MANIFEST]), **STRANGE[name])
    hub.push(write(tmp_path / "x", {**files, MANIFEST: manifest.to_bytes()}), REPO)
    info = _lists_both(hub, tmp_path / "hub")
    assert info.license is None or info.license.isprintable()
    assert info.unchecked is None


def _forge(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let `main` name a commit whose record was changed and has its right name."""
    old = (folder / "refs" / "main").read_text()
    record = json.loads((folder / "commits" / f"{old}.json").read_text())
    change(record)
    data = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    new = commit_id(data)
    (folder / "commits" / f"{new}.json").write_bytes(data)
    shutil.copytree(folder / "snapshots" / old, folder / "snapshots" / new)
    (folder / "refs" / "main").write_text(new)


def _entry(**fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda record: record["files"][WEIGHTS].update(fields)


RECORDS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a size that is text": _entry(size="100"),
    "a size that is true": _entry(size=True),
    "a size with a fraction": _entry(size=1.5),
    "a hash that is a list": _entry(sha256=["x"]),
    "a hash with a mark of direction": _entry(sha256="\u202eabc"),
    "a long hash": _entry(sha256="a" * 50_000),
    "no files": lambda record: record.update(files={}),
    "no weights": lambda record: record["files"].pop(WEIGHTS),
    "no config": lambda record: record["files"].pop(CONFIG),
    "files that are a list": lambda record: record.update(files=[WEIGHTS]),
    "a parent that is a number": lambda record: record.update(parent=1),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_planted_record_damages_its_repository_only(
    name: str, hub: Hub, folder: Path, tmp_path: Path
) -> None:
    hub.list()
    _forge(folder, RECORDS[name])
    index_path(tmp_path / "hub").unlink()
    info = _lists_both(hub, tmp_path / "hub")
    assert info.unchecked and info.unchecked.startswith("damaged: ")
    assert info.unchecked.isprintable()
    assert hub.verify(REPO)[hub_head(folder)]


def hub_head(folder: Path) -> str:
    return (folder / "refs" / "main").read_text()


@pytest.mark.parametrize(
    "name",
    [
        *("\x1b[2Jv1", "a\nb", "v\u202e1", "v\u00a01", "Icon\r", "desktop.ini", "Thumbs.db"),
        *("main (conflicted copy)", os.fsdecode(b"v\xff")),
    ],
)
def test_a_file_among_the_refs_that_is_none_is_ignored(
    name: str, hub: Hub, folder: Path, tmp_path: Path
) -> None:
    before = hub.info(REPO)
    junk = "[.ShellClassInfo]" if name.isascii() and name.isprintable() else hub_head(folder)
    (folder / "refs" / name).write_text(junk)
    assert _lists_both(hub, tmp_path / "hub") == before
    assert hub.info(REPO).tags == ("v1",)
    assert hub.log(REPO)[0].tags == ("v1",)
    assert hub.pull(REPO).is_dir()
    assert set(hub.verify(REPO).values()) == {None}
    assert hub.push(write(tmp_path / "new", adapter_files(5)), REPO).created


def test_the_folders_are_read_where_an_index_cannot_be_built(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is that no row can be made of."""

    def fails(*_: object) -> None:
        raise ValueError("a row that no index can have")

    monkeypatch.setattr("softhub.hub.local.index._row", fails)
    assert [info.repo_id for info in hub.list()] == [REPO, OTHER]
    monkeypatch.undo()
    monkeypatch.setattr(Index, "_select", fails)
    assert [info.repo_id for info in hub.list()] == [REPO, OTHER]


def test_a_bad_row_of_the_cache_of_searches_hides_no_other(tmp_path: Path) -> None:
    cache = SearchCache(tmp_path, "http://x")
    heads = {f"a/r{number}": "0" * 40 for number in range(5)}
    cache.store(heads, {name: AdapterInfo(name, "0" * 40, license="mit") for name in heads})
    connection = sqlite3.connect(cache.path)
    with connection:
        for number, record in enumerate(["{", '{"license": "\\u001b"}', "[]"]):
            connection.execute(
                "UPDATE described SET record = ? WHERE repo_id = ?", (record, f"a/r{number}")
            )
    connection.close()
    found = cache.lookup(heads)
    assert {name for name, info in found.items() if info} == {"a/r3", "a/r4"}
