"""What only a remote hub has: tokens, offline mode, conflicts on the wire, lost answers."""

import time
from pathlib import Path

import pytest

from softhub.artefact.layout import CARD, MANIFEST, WEIGHTS
from softhub.errors import (
    HubAccessDenied,
    HubError,
    HubUnavailable,
    InvalidArtefact,
    PushConflict,
    RepositoryNotFound,
    UnsupportedAdapter,
)
from softhub.hub import Hub
from tests.hub.adapters import adapter_files, config, plain_peft_files, write
from tests.hub.conftest import MakeAdapter, hub_of
from tests.hub.server import BYTES, HubServer

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


# The race: somebody else commits between our look at the branch and our commit.


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


# Lost answers: the tree has the last word.


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


# Pulling through trouble.


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
    with pytest.raises((InvalidArtefact, HubUnavailable)):
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
    with pytest.raises((InvalidArtefact, UnsupportedAdapter)):
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
        with pytest.raises(InvalidArtefact, match="not what the hub lists"):
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


# Offline and dead.


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


@pytest.mark.parametrize("way", ["closed", "silent"])
def test_a_dead_endpoint_is_reported_within_four_seconds(
    way: str, server: HubServer, remote_hub: Hub
) -> None:
    if way == "closed":
        server.stop()
    else:
        server.faults.hang("*", seconds=30, times=None)
    started = time.monotonic()
    with pytest.raises(HubUnavailable, match=r"127\.0\.0\.1"):
        remote_hub.pull(REPO)
    assert time.monotonic() - started <= 4


# Tokens.


def test_the_login_token_goes_to_no_other_host(
    server: HubServer, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", server.token)
    server.seed(REPO, adapter_files(1))
    hub = Hub(f"hf+{server.endpoint}")
    assert hub.pull(REPO)
    assert not [request for request in server.requests if request.token]
    with pytest.raises(HubAccessDenied, match="SOFTHUB_TOKEN"):
        hub.push(make_adapter(1), "me/new")


def test_softhubs_token_goes_to_the_hub_that_is_named_with_it(
    server: HubServer, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOFTHUB_TOKEN", server.token)
    with pytest.raises(HubAccessDenied):
        Hub(f"hf+{server.endpoint}").whoami()
    assert not [request for request in server.requests if request.token]
    monkeypatch.setenv("SOFTHUB_HUB", f"hf+{server.endpoint}")
    assert Hub().whoami() == "me"


@pytest.mark.parametrize("routes", ["resolve", "file", "model_info"])
def test_a_redirect_does_not_carry_the_token_away(
    routes: str, server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    remote_hub.push(make_adapter(1), REPO)
    server.faults.redirect(routes, server.elsewhere, times=None)
    with pytest.raises(Exception) if routes == "model_info" else _nothing():
        remote_hub.pull(REPO)
    assert server.leaks() == []


class _nothing:
    def __enter__(self) -> None:
        """Allow anything."""

    def __exit__(self, *error: object) -> bool:
        return True


@pytest.mark.parametrize(
    "to", ["http://example.org", "file:///etc/passwd", "ftp://example.org", "", "//"]
)
def test_redirects_out_of_https_are_not_followed(
    to: str, server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter, softhub_home: Path
) -> None:
    remote_hub.push(make_adapter(1), REPO)
    server.faults.redirect("file", to, append_path=False, times=None)
    with pytest.raises(HubError):
        remote_hub.pull(REPO)
    assert not list(softhub_home.rglob("*.safetensors"))


def test_a_circle_of_redirects_ends(
    server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    remote_hub.push(make_adapter(1), REPO)
    server.faults.redirect("file", server.endpoint, times=None)
    with pytest.raises(HubError, match="redirects"):
        remote_hub.pull(REPO)


def test_a_token_never_shows(server: HubServer, remote_hub: Hub) -> None:
    assert server.token not in repr(remote_hub)
    with pytest.raises(RepositoryNotFound) as raised:
        remote_hub.pull(REPO)
    assert server.token not in str(raised.value)


def test_local_paths_are_not_pushed(
    server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    source = make_adapter(1, body="trained on /home/someone/data/x.csv\n")
    with pytest.raises(InvalidArtefact, match="/home/someone/data"):
        remote_hub.push(source, REPO)
    assert server.requests == []


def test_a_card_that_the_hub_refuses_is_told_plainly(
    remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    with pytest.raises(InvalidArtefact, match="license"):
        remote_hub.push(make_adapter(1, license="my own"), REPO)


def test_a_gated_repository_says_so(server: HubServer, remote_hub: Hub) -> None:
    server.seed("you/gated", adapter_files(1))
    server.faults.status("model_info", 403, code="GatedRepo", message="gated", times=None)
    with pytest.raises(HubAccessDenied, match="gated"):
        remote_hub.pull("you/gated")


def test_rate_limits_are_told(server: HubServer, remote_hub: Hub) -> None:
    server.faults.rate_limit("model_info", seconds=0, times=None)
    with pytest.raises(HubUnavailable, match="429"):
        remote_hub.pull(REPO)


@pytest.mark.parametrize("sha", ["main", "../../x", "", "0" * 39])
def test_a_commit_that_is_no_hash_is_refused(
    sha: str, server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    remote_hub.push(make_adapter(1), REPO)
    _lie_about_commit(server, sha)
    with pytest.raises(InvalidArtefact, match="is the commit"):
        remote_hub.pull(REPO)


def test_another_commit_than_the_one_asked_for_is_refused(
    server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    commit = remote_hub.push(make_adapter(1), REPO)
    _lie_about_commit(server, "1" * 40)
    with pytest.raises(InvalidArtefact, match="is the commit"):
        remote_hub.pull(REPO, revision=commit.revision)


def _lie_about_commit(server: HubServer, sha: str) -> None:
    import json

    def lie(body: bytes) -> bytes:
        return json.dumps({**json.loads(body), "sha": sha}).encode()

    server.faults.replace("model_info", lie, times=None)


# Found by others.


def test_hugging_faces_own_filters_find_what_was_pushed(
    server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    from huggingface_hub import HfApi

    remote_hub.push(make_adapter(1, base="org/base"), REPO)
    api = HfApi(endpoint=server.endpoint, token=False)
    for wanted in (["peft", "soft-prompt"], ["base_model:adapter:org/base"], ["sentiment"]):
        assert [model.id for model in api.list_models(filter=wanted)] == [REPO]


def test_other_adapters_are_passed_over_in_lists(
    server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    lora = config().replace(b"PROMPT_TUNING", b"LORA")
    files = {**plain_peft_files(1), "adapter_config.json": lora}
    server.seed("you/lora", files)
    server.seed("you/broken", {**plain_peft_files(1), "adapter_config.json": b"{" * 100})
    remote_hub.push(make_adapter(1), REPO)
    assert [info.repo_id for info in remote_hub.list()] == [REPO]


def test_a_second_search_asks_only_for_what_is_new(
    server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter, softhub_home: Path
) -> None:
    for name in ("one", "two"):
        remote_hub.push(make_adapter(1), f"me/{name}")
    server.seed("you/lora", {**plain_peft_files(1), "adapter_config.json": b"{}"})
    first = remote_hub.list()
    seen = len(server.sent_to("model_info", "resolve", "file"))
    assert remote_hub.list() == first
    assert len(server.sent_to("model_info", "resolve", "file")) == seen
    remote_hub.push(make_adapter(2, score=0.1), "me/two")
    assert [info.score for info in remote_hub.list()] == [("accuracy", 0.9), ("accuracy", 0.1)]


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000])
def test_a_damaged_cache_of_searches_is_no_trouble(
    content: bytes, remote_hub: Hub, make_adapter: MakeAdapter, softhub_home: Path
) -> None:
    remote_hub.push(make_adapter(1), REPO)
    first = remote_hub.list()
    (cache,) = (softhub_home / "cache").glob("described-*")
    cache.write_bytes(content)
    assert remote_hub.list() == first
    assert remote_hub.list() == first


# Stopped.


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
        if code == 0:
            break
    assert step > 10


def test_what_softhub_itself_saves_is_pushed_found_and_described(
    server: HubServer, remote_hub: Hub, tmp_path: Path
) -> None:
    import torch
    from huggingface_hub import HfApi

    from softhub.artefact.manifest import Manifest
    from softhub.prompt import SoftPrompt
    from softhub.tasks import Task, Template, Verbalizer
    from tests.hub.adapters import metric

    task = Task(
        name="sentiment",
        kind="classification",
        template=Template("Review: {text} Sentiment:"),
        verbalizer=Verbalizer.from_mapping({"positive": " good", "negative": " bad"}),
        language="en",
    )
    manifest = Manifest(
        base_model="google/gemma-3-270m",
        task_type="CAUSAL_LM",
        num_virtual_tokens=4,
        hidden_size=8,
        base_revision=None,
        base_quantization=None,
        fingerprint={"model_type": "gemma3_text"},
        task=task.to_record(),
        provenance={"seed": 1},
        metrics=(metric(0.93),),
        license=None,
        files={},
        softhub_version="0.1.0",
    )
    folder = SoftPrompt(torch.ones(4, 8), manifest).save_pretrained(tmp_path / "adapter")
    remote_hub.push(folder, REPO)
    api = HfApi(endpoint=server.endpoint, token=False)
    for wanted in (
        ["peft", "soft-prompt", "softhub"],
        ["base_model:adapter:google/gemma-3-270m"],
        ["sentiment", "en"],
    ):
        assert [model.id for model in api.list_models(filter=wanted)] == [REPO], wanted
    (info,) = remote_hub.search("sentiment", base_model="google/gemma-3-270m", language="en")
    assert info.score == ("accuracy", 0.93)
    assert info.fingerprint == {"model_type": "gemma3_text"}
    card = (remote_hub.pull(REPO) / CARD).read_text()
    assert "gemma" in card.lower()
    assert "terms" in card.lower()  # the base's licence binds who uses the prompt


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"null",
        b"[]",
        b"{}",
        b'{"id": "me/sentiment"}',
        b'{"id": "me/sentiment", "sha": 7, "siblings": 7}',
        b'{"id": "me/sentiment", "sha": null, "siblings": null}',
        b'{"id": "me/sentiment", "sha": "%s", "siblings": [1, 2]}' % (b"0" * 40),
        b'{"id": "me/sentiment", "sha": "%s", "siblings": [{"rfilename": []}]}' % (b"0" * 40),
        b'{"id": "me/sentiment", "sha": "%s", "siblings": [{}]}' % (b"0" * 40),
        b"[" * 100_000,
        b"<html>It works!</html>",
    ],
)
def test_nonsense_in_an_answer_is_told_in_one_line(
    body: bytes, server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter, softhub_home: Path
) -> None:
    remote_hub.push(make_adapter(1), REPO)
    server.faults.replace("model_info", body, times=None)
    for call in (lambda: remote_hub.pull(REPO), lambda: remote_hub.info(REPO)):
        with pytest.raises((HubError, InvalidArtefact)) as raised:
            call()
        assert str(raised.value).isprintable()
    server.faults.clear()
    server.faults.replace("list_models", body, times=None)
    with pytest.raises(HubError) if body not in (b"[]", b"{}") else _nothing():
        remote_hub.list()
    assert not list(softhub_home.rglob("*.safetensors"))


def test_a_circle_in_the_api_is_told(server: HubServer, remote_hub: Hub) -> None:
    server.faults.redirect("model_info", server.endpoint, times=None)
    with pytest.raises(HubError, match="redirect"):
        remote_hub.pull(REPO)


@pytest.mark.parametrize("status", [400, 404, 409, 418, 451, 500])
def test_any_status_is_told_in_one_line(status: int, server: HubServer, remote_hub: Hub) -> None:
    message = "no\u202e\u200b way"
    server.faults.status(
        "model_info", status, message=message.encode().decode("latin-1"), times=None
    )
    with pytest.raises(HubError) as raised:
        remote_hub.pull(REPO)
    assert str(raised.value).isprintable()
