"""Pushes to a remote hub: one commit, conflicts on the wire, lost answers."""

import json
import warnings
from pathlib import Path

import pytest

from softhub.adapter.layout import CARD, MANIFEST, WEIGHTS
from softhub.errors import (
    HubError,
    HubUnavailable,
    PushConflict,
    RepositoryNotFound,
)
from softhub.hub import Hub
from tests.hub.adapters import plain_peft_files, write
from tests.hub.conftest import MakeAdapter, hub_of
from tests.hub.server import HubServer

REPO = "me/sentiment"


def commits(server: HubServer) -> int:
    return len([r for r in server.sent_to("commit") if r.method == "POST"])


def test_a_push_is_one_commit(
    server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    remote_hub.push(make_adapter(1), REPO, message="all at once")
    assert commits(server) == 1
    assert remote_hub.log(REPO)[0].message == "all at once"


def test_private_repositories_stay_private(
    server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    remote_hub.push(make_adapter(1), REPO, private=True)
    assert remote_hub.pull(REPO)
    stranger = hub_of(server, server.add_user("you"))
    with pytest.raises(RepositoryNotFound, match="private"):
        stranger.pull(REPO)
    assert stranger.list() == []


def test_a_file_that_went_away_is_removed(
    remote_hub: Hub, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    remote_hub.push(make_adapter(1), REPO)
    remote_hub.push(write(tmp_path / "plain", plain_peft_files(2)), REPO)
    assert not (remote_hub.pull(REPO) / MANIFEST).exists()


def test_a_newer_adapter_is_a_conflict_with_both_sides(
    server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    ours, theirs = make_adapter(2), make_adapter(3)
    base = remote_hub.push(make_adapter(1), REPO)
    server.faults.meanwhile(
        "preupload", lambda: hub_of(server).push(theirs, REPO, message="theirs")
    )
    with pytest.raises(PushConflict) as raised:
        remote_hub.push(ours, REPO)
    head = remote_hub.info(REPO)
    assert head.message == "theirs"
    for part in (base.revision, head.revision, "theirs", "me"):
        assert part in str(raised.value)


def test_an_edited_card_is_no_conflict(
    server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    remote_hub.push(make_adapter(1), REPO)
    edited = make_adapter(1, body="# Edited on the web\n")
    server.faults.meanwhile("preupload", lambda: hub_of(server).push(edited, REPO, message="web"))
    ours = make_adapter(2)
    with pytest.warns(UserWarning, match="card was edited"):
        commit = remote_hub.push(ours, REPO, message="ours")
    assert [entry.message for entry in remote_hub.log(REPO)][:2] == ["ours", "web"]
    assert commit.parent == remote_hub.log(REPO)[1].revision
    assert (remote_hub.pull(REPO) / CARD).read_bytes() == (ours / CARD).read_bytes()


def test_an_edited_card_is_a_conflict_for_who_named_the_parent(
    server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    base = remote_hub.push(make_adapter(1), REPO)
    edited = make_adapter(1, body="# Edited on the web\n")
    server.faults.meanwhile("preupload", lambda: hub_of(server).push(edited, REPO))
    with pytest.raises(PushConflict):
        remote_hub.push(make_adapter(2), REPO, parent_commit=base.revision)


def test_a_passing_412_is_tried_again(
    server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    remote_hub.push(make_adapter(1), REPO)
    server.faults.stale()
    assert remote_hub.push(make_adapter(2), REPO, message="second").created
    assert [e.message for e in remote_hub.log(REPO)].count("second") == 1


def test_a_lost_answer_is_not_pushed_twice(
    server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    remote_hub.push(make_adapter(1), REPO)
    server.faults.lose_response("commit")
    commit = remote_hub.push(make_adapter(2), REPO, message="second", tags=["v2"])
    log = remote_hub.log(REPO)
    assert [entry.message for entry in log].count("second") == 1
    assert commit.revision == log[0].revision
    assert log[0].tags == ("v2",)


def test_a_dropped_commit_says_that_nothing_was_pushed(
    server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    first = remote_hub.push(make_adapter(1), REPO)
    server.faults.drop("commit")
    with pytest.raises(HubUnavailable, match="nothing was pushed"):
        remote_hub.push(make_adapter(2), REPO)
    assert remote_hub.info(REPO).revision == first.revision


def test_passing_trouble_is_ridden_out(
    server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    source = make_adapter(1)
    remote_hub.push(source, REPO)
    server.faults.unavailable("model_info", headers={"Retry-After": "0"})
    server.faults.drop("file")
    server.faults.truncate("file")
    folder = remote_hub.pull(REPO)
    assert (folder / WEIGHTS).read_bytes() == (source / WEIGHTS).read_bytes()


@pytest.mark.parametrize("line", ["softhub.json", "*.safetensors", "README.md", "*.json"])
def test_a_push_that_the_hub_does_not_take_in_full_is_no_success(
    line: str, server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    server.seed(REPO, {".gitignore": f"{line}\n".encode()})
    with pytest.raises(HubError, match=r"left out .*\.gitignore"):
        remote_hub.push(make_adapter(1), REPO, tags=["v1"])
    assert server.store.repos[REPO].tags == {}


@pytest.mark.parametrize("oid", ["", "main", "0" * 40, "../../x", "f" * 39])
def test_the_name_of_the_commit_is_what_the_branch_says(
    oid: str, server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    def lie(body: bytes) -> bytes:
        return json.dumps({**json.loads(body), "commitOid": oid}).encode()

    server.faults.replace("commit", lie)
    commit = remote_hub.push(make_adapter(1), REPO, tags=["v1"])
    repo = server.store.repos[REPO]
    assert commit.revision == repo.branches["main"] == repo.tags["v1"]
    assert remote_hub.pull(REPO, revision="v1")


def test_a_push_on_top_of_ours_is_no_trouble(
    server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    ours, theirs = make_adapter(1), make_adapter(2)
    server.faults.meanwhile("commit", lambda: hub_of(server).push(theirs, REPO))
    commit = remote_hub.push(ours, REPO, tags=["v1"])
    assert server.store.repos[REPO].tags == {"v1": commit.revision}
    assert commit.revision != remote_hub.info(REPO).revision
    folder = remote_hub.pull(REPO, revision="v1")
    assert (folder / WEIGHTS).read_bytes() == (ours / WEIGHTS).read_bytes()


@pytest.mark.parametrize("status", [400, 403, 500])
@pytest.mark.parametrize("route", ["whoami", "tag"])
def test_what_fails_after_a_push_is_no_failed_push(
    route: str, status: int, server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    server.faults.status(route, status, times=None)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        commit = remote_hub.push(make_adapter(1), REPO, tags=["v1"])
    assert commit.created and commit.revision == server.store.repos[REPO].branches["main"]
    assert commit.tags == (() if route == "tag" else ("v1",))
    told = [str(warning.message) for warning in warned if "softhub tag" in str(warning.message)]
    assert len(told) == (route == "tag")


def test_a_push_that_cannot_be_compared_is_told_so_and_not_tagged(
    server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    def fail() -> None:
        server.faults.status("model_info", 400, times=None)

    server.faults.meanwhile("commit", fail)
    with pytest.warns(UserWarning, match="could not be compared.*softhub verify"):
        commit = remote_hub.push(make_adapter(1), REPO, tags=["v1"])
    repo = server.store.repos[REPO]
    assert (commit.revision, commit.tags, repo.tags) == (repo.branches["main"], (), {})


def test_a_tag_that_fails_without_a_new_commit_is_an_error(
    server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    source = make_adapter(1)
    remote_hub.push(source, REPO)
    server.faults.status("tag", 403, times=None)
    with pytest.raises(HubError, match="v1"):
        remote_hub.push(source, REPO, tags=["v1"])


def test_a_push_is_silent(
    any_server: HubServer, make_adapter: MakeAdapter, capfd: pytest.CaptureFixture[str]
) -> None:
    hub_of(any_server).push(make_adapter(1), REPO)
    assert capfd.readouterr() == ("", "")
