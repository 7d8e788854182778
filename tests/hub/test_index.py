"""The index answers as the folders would, and is never more than a cache of them."""

import itertools
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from softhub.hub import Hub
from softhub.hub.local.index import index_path
from softhub.hub.local.local_hub import LocalHub
from softhub.hub.query import Query
from tests.hub.adapters import adapter_files, write
from tests.hub.conftest import MakeAdapter

REPO = "me/sentiment"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "hub"


def index_of(root: Path) -> Path:
    return index_path(root)


def repos(hub: Hub, **filters: Any) -> list[str]:
    return [info.repo_id for info in hub.list(**filters)]


@pytest.fixture
def filled(local_hub: Hub, tmp_path: Path) -> Hub:
    tasks, bases, authors = ("sentiment", "triage", "poems"), ("tiny/llama", "x/gpt"), ("me", "you")
    for number, (task, base, author) in enumerate(itertools.product(tasks, bases, authors)):
        files = adapter_files(
            number,
            task=task,
            base=base,
            score=number / 12,
            language=("en", "de")[number % 2],
            tags=[f"tag{number % 3}"],
            datasets=[f"org/data{number % 4}"],
            rows=1 + number % 5,
        )
        folder = write(tmp_path / "a" / str(number), files)
        local_hub.push(folder, f"{author}/{task}-{number}", message=f"number {number}")
    return local_hub


def test_the_index_answers_as_the_folders_would(filled: Hub, root: Path) -> None:
    hub = LocalHub(root)
    assert index_of(root).is_file() is False
    values: dict[str, list[Any]] = {
        "task": [None, "Triage", "nothing"],
        "base_model": [None, "X/GPT", "llama"],
        "author": [None, "you"],
        "language": [None, "de"],
        "tag": [None, "tag1"],
        "dataset": [None, "org/data3"],
        "text": [None, "tri GPT", "number"],
        "min_score": [None, 0.4],
    }
    everything = [hub._describe_main(repo_id) for repo_id in hub.store.repo_ids()]
    orders = itertools.cycle(
        [("score", 3), ("date", None), ("size", 2), ("name", 1), ("score", None)]
    )
    found = 0
    for combination in itertools.product(*values.values()):
        sort, limit = next(orders)
        filters = dict(zip(values, combination, strict=True))
        query = Query.of(**filters, sort=sort, limit=limit)
        expected = query.select(info for info in everything if info)
        assert hub.select(query) == expected, query
        found += len(expected)
    assert found > 100


def test_a_deleted_index_is_built_again(filled: Hub, root: Path) -> None:
    before = filled.list()
    index_of(root).unlink()
    assert filled.list() == before
    assert index_of(root).is_file()


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, b"SQLite format 3\0" + bytes(500)])
def test_a_damaged_index_is_built_again(filled: Hub, root: Path, content: bytes) -> None:
    before = filled.list()
    index_of(root).write_bytes(content)
    assert filled.list() == before


def test_an_index_of_another_schema_is_built_again(filled: Hub, root: Path) -> None:
    before = filled.list()
    connection = sqlite3.connect(index_of(root))
    connection.executescript("DROP TABLE adapters; PRAGMA user_version = 99;")
    connection.close()
    assert filled.list() == before


def test_a_locked_index_does_not_stop_a_search(
    filled: Hub, root: Path, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softhub.hub.local.index.BUSY_SECONDS", 0.1)
    filled.list()
    filled.push(make_adapter(1), REPO)
    other = sqlite3.connect(index_of(root), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        assert REPO in repos(filled)
    finally:
        other.close()


def test_folders_that_come_and_go_without_a_word(
    local_hub: Hub, root: Path, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    local_hub.push(make_adapter(1), REPO)
    local_hub.push(make_adapter(2), "me/other")
    assert repos(local_hub) == ["me/other", REPO]
    other = Hub(f"local:{tmp_path / 'elsewhere'}")
    other.push(make_adapter(3), "you/new")
    shutil.copytree(tmp_path / "elsewhere" / "models--you--new", root / "models--you--new")
    shutil.rmtree(root / "models--me--other")
    assert repos(local_hub) == [REPO, "you/new"]


def test_a_ref_that_moved_without_a_word_is_told_as_it_is(
    local_hub: Hub, root: Path, make_adapter: MakeAdapter
) -> None:
    first = local_hub.push(make_adapter(1, score=0.5), REPO)
    local_hub.push(make_adapter(2, score=0.9), REPO)
    assert local_hub.list()[0].score == ("accuracy", 0.9)
    refs = root / "models--me--sentiment" / "refs"
    (refs / "new").write_text(first.revision)
    (refs / "new").replace(refs / "main")
    assert local_hub.list()[0].score == ("accuracy", 0.5)


def test_rows_that_are_mended_while_they_are_read_come_once(
    local_hub: Hub, root: Path, make_adapter: MakeAdapter
) -> None:
    firsts = {}
    for number in range(6):
        repo_id = f"me/r{number}"
        firsts[repo_id] = local_hub.push(make_adapter(1, score=0.01 * number), repo_id).revision
        local_hub.push(make_adapter(2, score=0.9 + 0.01 * number), repo_id)
    assert len(local_hub.list(sort="score")) == 6
    for repo_id, commit in firsts.items():
        refs = root / f"models--{repo_id.replace('/', '--')}" / "refs"
        (refs / "new").write_text(commit)
        (refs / "new").replace(refs / "main")
    for _ in range(2):
        found = local_hub.list(sort="score")
        assert [info.repo_id for info in found] == [f"me/r{n}" for n in (5, 4, 3, 2, 1, 0)]
        assert all(info.score and info.score[1] < 0.1 for info in found)


def test_tags_and_deletions_are_seen(local_hub: Hub, make_adapter: MakeAdapter) -> None:
    local_hub.push(make_adapter(1), REPO)
    assert local_hub.list()[0].tags == ()
    local_hub.tag(REPO, "v1")
    assert local_hub.list()[0].tags == ("v1",)
    assert repos(local_hub, tag="v1") == [REPO]
    local_hub.untag(REPO, "v1")
    assert repos(local_hub, tag="v1") == []
    local_hub.delete(REPO)
    assert local_hub.list() == []


def test_lost_notes_are_made_good(local_hub: Hub, root: Path, make_adapter: MakeAdapter) -> None:
    local_hub.push(make_adapter(1), REPO)
    assert repos(local_hub) == [REPO]
    (root / ".softhub" / "changes").unlink()
    local_hub.push(make_adapter(2), "me/other")
    assert repos(local_hub) == ["me/other", REPO]


def test_nothing_but_the_index_is_in_the_index(
    local_hub: Hub, root: Path, make_adapter: MakeAdapter
) -> None:
    commit = local_hub.push(make_adapter(1), REPO)
    local_hub.list()
    shutil.rmtree(root / ".softhub")
    assert local_hub.info(REPO).revision == commit.revision
    assert repos(local_hub) == [REPO]
    assert local_hub.push(make_adapter(2), REPO).parent == commit.revision
