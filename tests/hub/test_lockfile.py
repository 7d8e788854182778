"""Lock files pin prompts to commits and hashes."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from softhub.errors import HubError, InvalidAdapter
from softhub.hub import Hub
from softhub.hub.lockfile import LockedPrompt, read_lockfile, write_lockfile
from tests.hub.conftest import MakeAdapter

REPO = "me/sentiment"


def test_a_locked_prompt_stays_the_same(
    hub: Hub, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    old, new = make_adapter(1), make_adapter(2)
    hub.push(old, REPO, tags=["v1"])
    hub.lock(tmp_path / "softhub.lock", {"mood": f"{REPO}@v1"})
    hub.push(new, REPO)
    hub.lock(tmp_path / "softhub.lock", {"latest": REPO})
    folders = hub.pull_locked(tmp_path / "softhub.lock", local_dir=tmp_path / "prompts")
    assert folders == {n: tmp_path / "prompts" / n for n in ("mood", "latest")}
    for name, source in (("mood", old), ("latest", new)):
        for path in source.iterdir():
            assert (folders[name] / path.name).read_bytes() == path.read_bytes()


def test_other_weights_are_refused(hub: Hub, make_adapter: MakeAdapter, tmp_path: Path) -> None:
    commit = hub.push(make_adapter(1), REPO)
    path = tmp_path / "softhub.lock"
    write_lockfile(path, {"mood": LockedPrompt(REPO, commit.revision, "0" * 64)})
    with pytest.raises(InvalidAdapter, match="0000"):
        hub.pull_locked(path)


def test_equal_prompts_give_equal_bytes(tmp_path: Path) -> None:
    one, two = (LockedPrompt(REPO, digit * 40, digit * 64) for digit in "12")
    write_lockfile(tmp_path / "a", {"x": one, "y": two})
    write_lockfile(tmp_path / "b", {"y": two, "x": one})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_lockfile(tmp_path / "a") == {"x": one, "y": two}
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


ENTRY = {"repo_id": REPO, "revision": "1" * 40, "weights_sha256": "2" * 64}


@pytest.mark.parametrize(
    "record",
    [
        [],
        {},
        {"schema_version": 2, "prompts": {}},
        {"schema_version": 1, "prompts": []},
        {"schema_version": 1, "prompts": {"mood": {**ENTRY, "revision": "main"}}},
        {"schema_version": 1, "prompts": {"mood": {**ENTRY, "weights_sha256": "x"}}},
        {"schema_version": 1, "prompts": {"mood": {**ENTRY, "repo_id": "../x/y"}}},
        {"schema_version": 1, "prompts": {"mood": {**ENTRY, "more": 1}}},
        {"schema_version": 1, "prompts": {"../mood": ENTRY}},
        {"schema_version": 1, "prompts": {"mood": None}},
    ],
)
def test_damaged_lock_files_are_refused(record: object, tmp_path: Path) -> None:
    path = tmp_path / "softhub.lock"
    path.write_text(json.dumps(record))
    with pytest.raises(HubError):
        read_lockfile(path)


def test_a_missing_lock_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(HubError, match="softhub lock"):
        read_lockfile(tmp_path / "softhub.lock")


def test_processes_that_lock_at_once_lose_nothing(
    local_hub: Hub, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    local_hub.push(make_adapter(1), REPO)
    path = tmp_path / "softhub.lock"
    names = [f"mood-{number}" for number in range(12)]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: local_hub.lock(path, {name: REPO}), names))
    assert sorted(read_lockfile(path)) == sorted(names)


def test_a_damaged_lock_file_is_refused_before_anything_is_read_from_the_hub(
    local_hub: Hub, tmp_path: Path
) -> None:
    (tmp_path / "softhub.lock").write_text("{}")
    with pytest.raises(HubError, match="not a lock file"):
        local_hub.lock(tmp_path / "softhub.lock", {"mood": "me/nothing"})
    assert [path.name for path in tmp_path.iterdir()] == ["softhub.lock"]


def test_a_name_that_is_too_long_for_a_file_is_a_hub_error(
    local_hub: Hub, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    local_hub.push(make_adapter(1), REPO)
    with pytest.raises(HubError, match="too long"):
        local_hub.lock(tmp_path / ("x" * 300), {"mood": REPO})
