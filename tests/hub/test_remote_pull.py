"""Pulls from a remote hub: wrong bytes, lies, what is kept, offline mode."""

from pathlib import Path

import pytest

from softhub.adapter.layout import CARD, WEIGHTS
from softhub.errors import (
    HubUnavailable,
    InvalidAdapter,
    UnsupportedAdapter,
)
from softhub.hub import Hub
from tests.hub.adapters import adapter_files, config
from tests.hub.conftest import MakeAdapter, hub_of
from tests.hub.server import BYTES, HubServer

REPO = "me/sentiment"


@pytest.mark.parametrize("fault", ["corrupt", "shorten", "endless", "inflate", "promise"])
def test_wrong_bytes_are_refused_and_nothing_is_written(
    fault: str,
    server: HubServer,
    remote_hub: Hub,
    make_adapter: MakeAdapter,
    tmp_path: Path,
    softhub_home: Path,
) -> None:
    remote_hub.push(make_adapter(1), REPO)
    getattr(server.faults, fault)(BYTES, times=None)
    with pytest.raises((InvalidAdapter, HubUnavailable)):
        remote_hub.pull(REPO, local_dir=tmp_path / "there")
    assert not (tmp_path / "there").exists()
    assert not list(softhub_home.rglob("*.safetensors"))
    server.faults.clear()
    assert remote_hub.pull(REPO, local_dir=tmp_path / "there")


@pytest.mark.parametrize(
    "lie",
    [
        {"size": 1 << 50},
        {"size": -1},
        {"size": 10},
        {"size": "many"},
        {"size": None},
        {"oid": "0" * 40},
        {"oid": ""},
        {"oid": None},
        {"oid": "../../x"},
        {"path": "../evil"},
        {"path": "/etc/passwd"},
        {"path": "adapter_model.bin"},
    ],
)
def test_lies_about_the_tree_are_refused_without_a_download(
    lie: dict[str, object],
    server: HubServer,
    remote_hub: Hub,
    make_adapter: MakeAdapter,
    softhub_home: Path,
) -> None:
    remote_hub.push(make_adapter(1), REPO)
    server.faults.lie(WEIGHTS, **lie)
    with pytest.raises((InvalidAdapter, UnsupportedAdapter)):
        remote_hub.pull(REPO)
    assert not list(softhub_home.rglob("*.safetensors"))
    assert not [r for r in server.sent_to("file", "resolve") if "evil" in r.path or "etc" in r.path]
    assert len(remote_hub.list()) <= 1  # a listing shows what it can, and does not fall over


def test_a_lie_about_an_lfs_hash_is_refused(make_adapter: MakeAdapter, softhub_home: Path) -> None:
    from tests.hub.server.client import running

    with running("lfs") as server:
        hub = hub_of(server)
        hub.push(make_adapter(1), REPO)
        server.faults.lie(WEIGHTS, sha256="0" * 64)
        with pytest.raises(InvalidAdapter, match="not what the hub lists"):
            hub.pull(REPO)
    assert not list(softhub_home.rglob("*.safetensors"))


def test_a_pickle_is_refused_with_the_conversion(server: HubServer, remote_hub: Hub) -> None:
    server.seed(REPO, {"adapter_model.bin": b"\x80\x04.", "adapter_config.json": config()})
    with pytest.raises(UnsupportedAdapter, match="safe_serialization"):
        remote_hub.pull(REPO)
    assert not [r for r in server.requests if r.path.endswith(".bin")]


def test_only_an_adapters_files_are_downloaded(
    server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    files = {**adapter_files(1), "modeling.py": b"evil()", "sub/adapter_config.json": b"{}"}
    server.seed(REPO, files)
    folder = remote_hub.pull(REPO)
    assert sorted(path.name for path in folder.iterdir()) == sorted(adapter_files(1))
    assert not [r for r in server.requests if "modeling" in r.path or "sub/" in r.path]


def test_what_is_kept_is_not_downloaded_again(
    server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    remote_hub.push(make_adapter(1), REPO)
    folder = remote_hub.pull(REPO)
    seen = len(server.sent_to("file", "resolve"))
    assert remote_hub.pull(REPO) == folder
    assert len(server.sent_to("file", "resolve")) == seen


def test_a_kept_file_that_was_altered_is_downloaded_again(
    remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    source = make_adapter(1)
    remote_hub.push(source, REPO)
    folder = remote_hub.pull(REPO)
    (folder / WEIGHTS).write_bytes(b"altered")
    assert (remote_hub.pull(REPO) / WEIGHTS).read_bytes() == (source / WEIGHTS).read_bytes()


def test_offline_serves_what_was_pulled(
    server: HubServer,
    remote_hub: Hub,
    make_adapter: MakeAdapter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = remote_hub.push(make_adapter(1), REPO, tags=["v1"])
    remote_hub.push(make_adapter(2), "me/other")
    folder = remote_hub.pull(REPO)
    remote_hub.pull(REPO, revision="v1")
    monkeypatch.setenv("SOFTHUB_OFFLINE", "1")
    seen = len(server.requests)
    for revision in ("main", "v1", first.revision):
        assert remote_hub.pull(REPO, revision=revision) == folder
    assert remote_hub.info(REPO).task == "sentiment"
    for refused in (
        lambda: remote_hub.pull("me/other"),
        lambda: remote_hub.list(),
        lambda: remote_hub.push(make_adapter(3), REPO),
        lambda: remote_hub.tag(REPO, "v2"),
        lambda: remote_hub.whoami(),
    ):
        with pytest.raises(HubUnavailable, match="offline"):
            refused()
    assert len(server.requests) == seen


def test_what_was_pulled_stays_available_offline_when_a_newer_commit_is_only_looked_at(
    remote_hub: Hub, make_adapter: MakeAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = remote_hub.push(make_adapter(1), REPO)
    folder = remote_hub.pull(REPO)
    remote_hub.push(make_adapter(2), REPO)
    remote_hub.diff(REPO, first.revision)
    remote_hub.lock(tmp_path / "softhub.lock", {"mood": REPO})
    with pytest.raises(InvalidAdapter):
        remote_hub.pull(REPO, expect_sha256="0" * 64)
    monkeypatch.setenv("SOFTHUB_OFFLINE", "1")
    assert remote_hub.pull(REPO) == folder


def test_hugging_faces_offline_switch_is_honoured(
    server: HubServer, remote_hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnavailable, match="offline"):
        remote_hub.list()
    assert server.requests == []


def test_a_kept_adapter_that_was_altered_is_not_served_offline(
    remote_hub: Hub, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote_hub.push(make_adapter(1), REPO)
    folder = remote_hub.pull(REPO)
    (folder / CARD).write_text("altered")
    monkeypatch.setenv("SOFTHUB_OFFLINE", "1")
    with pytest.raises(HubUnavailable):
        remote_hub.pull(REPO)


def test_a_pull_that_is_killed_anywhere_leaves_nothing_half(
    server: HubServer,
    remote_hub: Hub,
    make_adapter: MakeAdapter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import close_session

    from tests.hub.test_local_faults import Steps, in_child, kill

    source = make_adapter(1)
    remote_hub.push(source, REPO)
    close_session()
    for step in range(1, 200):
        home = tmp_path / f"home-{step}"
        monkeypatch.setenv("SOFTHUB_HOME", str(home))
        hub = hub_of(server)

        def work(home: Path = home, step: int = step, hub: Hub = hub) -> int:
            Steps(home, kill, step).watch()
            hub.pull(REPO)
            return 0

        code = in_child(work)
        monkeypatch.setenv("SOFTHUB_OFFLINE", "1")
        try:
            pulled = hub.pull(REPO)
        except HubUnavailable:
            assert code != 0
        else:
            assert sorted(p.name for p in pulled.iterdir()) == sorted(adapter_files(1))
        monkeypatch.delenv("SOFTHUB_OFFLINE")
        weights = (hub.pull(REPO) / WEIGHTS).read_bytes()
        close_session()
        assert weights == (source / WEIGHTS).read_bytes()
        assert not [path for path in home.rglob(".*") if path.name != ".lock"], "cleaned up"
        if code == 0:
            break
    assert step > 10
