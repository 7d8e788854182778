"""Attacks on a local hub that was copied: links, planted notes, planted rows, strange cards."""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from softhub.adapter.layout import CARD, MANIFEST, WEIGHTS, write_atomically
from softhub.errors import HubError, InvalidAdapter, SoftHubError
from softhub.hub import Hub
from softhub.hub.local.index import index_path
from tests.hostile.sound import sound_files

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("ignore:.*is deprecated"),
]

REPO, OTHER = "me/mood", "you/other"
FOLDER = "models--me--mood"
ESCAPE = "\x1b]0;owned\x07"


def _adapter(folder: Path, note: str) -> Path:
    files = sound_files()
    return write_atomically(folder, {**files, CARD: files.get(CARD, b"") + f"\n{note}\n".encode()})


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """An adapter that is not on the hub yet."""
    return _adapter(tmp_path / "new", "new")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A hub with two commits and a tag in one repository, and another repository."""
    root = tmp_path / "hub"
    hub = Hub(f"local:{root}")
    hub.push(_adapter(tmp_path / "one", "one"), REPO, tags=["v1"])
    hub.push(_adapter(tmp_path / "two", "two"), REPO)
    hub.push(_adapter(tmp_path / "one", "one"), OTHER)
    return root


@pytest.fixture
def hub(root: Path) -> Hub:
    return Hub(f"local:{root}")


def _content(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def _move_behind_a_link(place: Path, victim: Path) -> None:
    """Put a folder or file elsewhere, with something of the user's beside, and link to it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    victim.mkdir()
    (victim / "thesis.txt").write_text("years of work")
    target = victim / place.name
    if place.is_dir():
        place.rename(target)
        (target / "thesis.txt").write_text("years of work")
        (target / ("0" * 40)).mkdir()
        (target / ("0" * 40) / "thesis.txt").write_text("years of work")
    else:
        target.write_text("years of work")
        place.unlink(missing_ok=True)
    place.symlink_to(target)


FOLDERS = [
    ".softhub",
    ".softhub/trash",
    ".softhub/locks",
    ".softhub/staging",
    f".softhub/staging/{FOLDER}",
    FOLDER,
    f"{FOLDER}/refs",
    f"{FOLDER}/refs/history",
    f"{FOLDER}/branches",
    f"{FOLDER}/snapshots",
    f"{FOLDER}/commits",
]
FILES = [f".softhub/locks/{FOLDER}.lock", ".softhub/changes"]
VERBS: dict[str, Callable[[Hub, Path], object]] = {
    "push": lambda hub, new: hub.push(new, REPO),
    "tag": lambda hub, new: hub.tag(REPO, "v2"),
    "untag": lambda hub, new: hub.untag(REPO, "v1"),
    "deprecate": lambda hub, new: hub.deprecate(REPO, reason="old"),
    "delete": lambda hub, new: hub.delete(REPO),
}


@pytest.mark.parametrize("place", [*FOLDERS, *FILES])
def test_no_write_follows_a_link(
    hub: Hub, root: Path, new: Path, tmp_path: Path, place: str
) -> None:
    _move_behind_a_link(root / place, tmp_path / "victim")
    before = _content(tmp_path / "victim")
    for name, verb in VERBS.items():
        with pytest.raises(SoftHubError, match="is a link") as caught:
            verb(hub, new)
        assert place.split("/")[-1] in str(caught.value), name
    assert _content(tmp_path / "victim") == before
    assert OTHER in [info.repo_id for info in hub.list()]
    assert _content(tmp_path / "victim") == before


LEAVES = [
    f"{FOLDER}/branches/dev",
    f"{FOLDER}/refs/dev",
    ".softhub/index.sqlite",
    ".softhub/index.sqlite-journal",
    ".softhub/trash/x",
    f".softhub/staging/{FOLDER}/dev.tmp",
    f".softhub/staging/{FOLDER}/{'0' * 40}",
    ".gitattributes",
]


@pytest.mark.parametrize("place", LEAVES)
@pytest.mark.parametrize("target", ["file", "folder", "nothing"])
def test_a_linked_file_is_replaced_or_refused_and_its_target_left_alone(
    hub: Hub, root: Path, new: Path, tmp_path: Path, place: str, target: str
) -> None:
    victim = tmp_path / "victim"
    (victim / "folder").mkdir(parents=True)
    (victim / "folder" / "thesis.txt").write_text("years of work")
    (victim / "file").write_text("years of work")
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).unlink(missing_ok=True)
    (root / place).symlink_to(victim / target)
    before = _content(victim)
    try:
        hub.push(new, REPO, revision="dev", tags=["v3"])
    except SoftHubError as error:
        assert place.split("/")[-1] in str(error)
    assert _content(victim) == before
    hub.list()
    assert _content(victim) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("place", [*FOLDERS[1:], *FILES])
def test_a_pipe_in_the_way_is_refused(hub: Hub, root: Path, new: Path, place: str) -> None:
    path = root / place
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises((HubError, InvalidAdapter), match="not a regular file"):
        hub.push(new, REPO)
    assert OTHER in [info.repo_id for info in hub.list()]


def _intent(**changes: object) -> bytes:
    return json.dumps({"branch": "main", "tags": [], **changes}).encode()


INTENTS = {
    "an older push to main": _intent(),
    "another branch": _intent(branch="dev"),
    "the tag that reaches it": _intent(branch="dev", tags=["v1"]),
    "a new tag": _intent(branch="dev", tags=["v9"]),
    "no note": None,
    "an empty note": b"",
    "a list": b"[]",
    "a branch outside": _intent(branch="../../../x"),
    "a tag outside": _intent(tags=["../../x"]),
    "a branch that is a number": _intent(branch=1),
    "tags that are a text": _intent(tags="v1"),
    "deep": b"[" * 50_000,
}


@pytest.mark.parametrize("which", [0, 1], ids=["newest", "oldest"])
@pytest.mark.parametrize("name", INTENTS)
def test_no_planted_note_makes_a_published_commit_disappear(
    hub: Hub, root: Path, new: Path, name: str, which: int
) -> None:
    commits = [entry.revision for entry in hub.log(REPO)]
    stage = root / ".softhub" / "staging" / FOLDER / commits[which]
    stage.mkdir(parents=True)
    note = INTENTS[name]
    if note is not None:
        (stage / "intent.json").write_bytes(note)
    assert hub.info(REPO, revision=commits[which]).revision == commits[which]
    assert hub.info(REPO).revision == commits[0]
    hub.push(new, REPO)
    assert [entry.revision for entry in hub.log(REPO)][1:] == commits
    assert set(hub.verify(REPO).values()) == {None}
    assert hub.info(REPO, revision="v1").revision == commits[1]
    assert not stage.exists()
    assert not (root.parent / "x").exists()


def test_a_commit_that_only_a_tag_reaches_is_published(hub: Hub, root: Path, new: Path) -> None:
    newest, oldest = (entry.revision for entry in hub.log(REPO))
    hub.tag(REPO, "v2", revision=newest)
    (root / FOLDER / "refs" / "main").write_text(oldest)
    stage = root / ".softhub" / "staging" / FOLDER / newest
    stage.mkdir(parents=True)
    (stage / "intent.json").write_bytes(_intent(tags=["v2"]))
    hub.push(new, REPO)
    assert hub.info(REPO, revision="v2").revision == newest
    assert set(hub.verify(REPO).values()) == {None}


def test_a_commit_is_not_undone_where_damage_hides_what_reaches_it(
    hub: Hub, root: Path, new: Path
) -> None:
    newest, oldest = (entry.revision for entry in hub.log(REPO))
    hub.untag(REPO, "v1")
    record = root / FOLDER / "commits" / f"{newest}.json"
    content = record.read_bytes()
    record.write_bytes(b"{}")
    (root / ".softhub" / "staging" / FOLDER / oldest).mkdir(parents=True)
    with pytest.raises(InvalidAdapter, match="altered"):
        hub.push(new, REPO)
    record.write_bytes(content)
    assert set(hub.verify(REPO).values()) == {None}


def test_a_commit_that_no_ref_reaches_is_undone(hub: Hub, root: Path, new: Path) -> None:
    newest, oldest = (entry.revision for entry in hub.log(REPO))
    (root / FOLDER / "refs" / "main").write_text(oldest)
    stage = root / ".softhub" / "staging" / FOLDER / newest
    stage.mkdir(parents=True)
    (stage / "intent.json").write_bytes(_intent())
    with pytest.raises(HubError, match="no revision"):
        hub.info(REPO, revision=newest)
    hub.push(new, REPO)
    assert not (root / FOLDER / "snapshots" / newest).exists()
    assert set(hub.verify(REPO).values()) == {None}


def test_a_planted_index_in_the_hub_is_not_read(hub: Hub, root: Path) -> None:
    before = hub.list()
    planted = root / ".softhub" / "index.sqlite"
    shutil.copy(index_path(root), planted)
    connection = sqlite3.connect(planted)
    with connection:
        connection.execute("UPDATE records SET record = replace(record, 'me/mood', 'evil')")
    connection.close()
    assert hub.list() == before
    index_path(root).unlink()
    assert hub.list() == before


DAMAGE = {
    "an escape": """UPDATE records SET record = json_set(record, '$.task', char(27) || '[2J')""",
    "an escape in a tag": "UPDATE records SET record = json_set(record, '$.tags[0]', char(7))",
    "a score of text": "UPDATE records SET record = json_set(record, '$.score', 'best')",
    "a score without a number": (
        """UPDATE records SET record = json_set(record, '$.score', json('["x", "y"]'))"""
    ),
    "an unknown key": "UPDATE records SET record = json_set(record, '$.evil', 1)",
    "no JSON": "UPDATE records SET record = '{'",
    "a list": "UPDATE records SET record = '[]'",
    "bytes": "UPDATE records SET record = x'ff00'",
    "no records": "DELETE FROM records",
    "no table of records": "DROP TABLE records",
    "another column": "ALTER TABLE adapters RENAME COLUMN task TO tusk",
    "no state": "DROP TABLE state",
    "notes that are no number": "UPDATE state SET value = 'x' WHERE key = 'notes'",
    "notes beyond the end": "UPDATE state SET value = '999999999' WHERE key = 'notes'",
    "notes before the start": "UPDATE state SET value = '-5' WHERE key = 'notes'",
    "names that are null": "UPDATE adapters SET repo_id = NULL",
    "names that lead outside": "UPDATE adapters SET repo_id = '../' || id",
    "dates of refs that are text": "UPDATE adapters SET refs = 'x'",
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_index_is_rebuilt(hub: Hub, root: Path, new: Path, name: str) -> None:
    before = hub.list()
    connection = sqlite3.connect(index_path(root))
    with connection:
        connection.execute(DAMAGE[name])
    connection.close()
    assert hub.list() == before
    hub.push(new, "me/third")
    assert [info.repo_id for info in hub.list()] == [REPO, "me/third", OTHER]
    assert len(hub.search("mood")) == 1


@pytest.mark.parametrize("size", [0, 100, 5_000])
def test_a_truncated_index_is_rebuilt(hub: Hub, root: Path, size: int) -> None:
    before = hub.list()
    with index_path(root).open("r+b") as stream:
        stream.truncate(size)
    assert hub.list() == before


def test_another_hub_in_the_same_place_is_read_anew(
    hub: Hub, root: Path, new: Path, tmp_path: Path
) -> None:
    assert len(hub.list()) == 2
    other = Hub(f"local:{tmp_path / 'other'}")
    for number in range(4):
        other.push(new, f"org/prompt-{number}")
    other.push(new, REPO)
    root.rename(tmp_path / "old")
    (tmp_path / "other").rename(root)
    names = [*(f"org/prompt-{n}" for n in range(4))]
    assert [info.repo_id for info in hub.list()] == [REPO, *names]
    assert hub.list()[0] == hub.info(REPO)


CARDS = {
    "a number of base 60": "license: 1" + ":59" * 3_000,
    "a long number": "license: " + "9" * 20_000,
    "a date that does not exist": "license: 2026-99-99",
    "a version": "license: 1.10",
    "a binary": "license: !!binary x",
    "a program's tag": "license: !!python/name:os.system",
    "an infinity": "tags: [.inf, -.inf, .nan]",
    "a merge": "<<: {license: mit}",
    "a set": "tags: !!set {a, b}",
    "nulls": "license: ~\ntags: [~, null]\nlanguage:\ndatasets: {}",
    "numbers for texts": "license: 0x1F\nlanguage: [1_000]\ntags: 010\ndatasets: 1e999",
    "a deprecation that is a number": "softhub_deprecated: 0o17",
    "a deprecation of lists": "softhub_deprecated: {reason: [a], replacement: {b: c}}",
    "no mapping": "- a",
    "an alias": "a: &a [x]\nb: *a",
    "keys that are lists": "? [a]\n: b",
    "an unclosed list": "tags: [",
}


@pytest.mark.parametrize("name", CARDS)
def test_no_card_hides_the_others(hub: Hub, root: Path, tmp_path: Path, name: str) -> None:
    card = f"---\n{CARDS[name]}\n---\n".encode()
    folder = write_atomically(tmp_path / "odd", {**sound_files(), CARD: card})
    hub.push(folder, "odd/card")
    for _ in range(2):
        found = {info.repo_id: info for info in hub.list()}
        assert set(found) == {REPO, OTHER, "odd/card"}
    info = found["odd/card"]
    for text in (info.license, info.deprecated, *info.keywords, *info.language, *info.datasets):
        assert text is None or (text.isprintable() and len(text) <= 200)
    assert [i.repo_id for i in hub.search("odd")] == ["odd/card"]
    assert len(hub.similar(REPO)) == 2
    hub.leaderboard("mood")


def _commit_file(folder: Path, name: str) -> Path:
    commit = (folder / "refs" / "main").read_text()
    return folder / "snapshots" / commit / name


def _as_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "an empty ref": lambda f: (f / "refs" / "main").write_bytes(b""),
    "a ref with an escape": lambda f: (f / "refs" / "main").write_text(ESCAPE),
    "a linked ref": lambda f: _as_link(f / "refs" / "main"),
    "a ref to nowhere": lambda f: (f / "refs" / "main").write_text("0" * 40),
    "no commits": lambda f: shutil.rmtree(f / "commits"),
    "commits that are a file": lambda f: (
        shutil.rmtree(f / "commits"),
        (f / "commits").write_text(""),
    ),
    "no snapshots": lambda f: shutil.rmtree(f / "snapshots"),
    "an altered card": lambda f: _commit_file(f, CARD).write_bytes(b"x"),
    "a linked card": lambda f: _as_link(_commit_file(f, CARD)),
    "a linked manifest": lambda f: _as_link(_commit_file(f, MANIFEST)),
    "a folder for a manifest": lambda f: (
        _commit_file(f, MANIFEST).unlink(),
        _commit_file(f, MANIFEST).mkdir(),
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_repository_is_named_and_hides_no_other(
    hub: Hub, root: Path, tmp_path: Path, name: str
) -> None:
    DAMAGES[name](root / FOLDER)
    for _ in range(2):
        damaged, other = hub.list()
        assert (damaged.repo_id, other.repo_id) == (REPO, OTHER)
        assert damaged.unchecked and damaged.unchecked.startswith("damaged: ")
        assert damaged.unchecked.isprintable()
        assert other.unchecked is None
    assert hub.similar(OTHER) == []
    with pytest.raises(SoftHubError):
        hub.pull(REPO)


def test_a_linked_tag_is_named_and_not_read(hub: Hub, root: Path) -> None:
    (root / FOLDER / "refs" / "v9").symlink_to("/etc/hostname")
    damaged, other = hub.list()
    assert damaged.unchecked and "v9 is a link" in damaged.unchecked
    assert other.unchecked is None
    with pytest.raises(InvalidAdapter, match="v9 is a link"):
        hub.pull(REPO, revision="v9")


def test_a_linked_weights_file_is_not_read(hub: Hub, root: Path, tmp_path: Path) -> None:
    path = _commit_file(root / FOLDER, WEIGHTS)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidAdapter, match="is a link"):
        hub.pull(REPO)
    assert "is a link" in str(hub.verify(REPO))
