"""Pushes to a remote hub: one commit, conflicts on the wire, lost answers."""

from pathlib import Path

import pytest

from softhub.adapter.layout import CARD, MANIFEST, WEIGHTS
from softhub.errors import (
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
