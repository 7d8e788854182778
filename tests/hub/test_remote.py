"""What only a remote hub has: tokens, redirects, refusals, its lists."""

import time
from pathlib import Path

import pytest

from softhub.adapter.layout import CARD
from softhub.errors import (
    HubAccessDenied,
    HubError,
    HubUnavailable,
    InvalidAdapter,
    RepositoryNotFound,
)
from softhub.hub import Hub
from tests.hub.adapters import adapter_files, config, plain_peft_files
from tests.hub.conftest import MakeAdapter
from tests.hub.server import HubServer

REPO = "me/sentiment"


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
    with pytest.raises(InvalidAdapter, match="/home/someone/data"):
        remote_hub.push(source, REPO)
    assert server.requests == []


def test_a_card_that_the_hub_refuses_is_told_plainly(
    remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    with pytest.raises(InvalidAdapter, match="license"):
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
    with pytest.raises(InvalidAdapter, match="is the commit"):
        remote_hub.pull(REPO)


def test_another_commit_than_the_one_asked_for_is_refused(
    server: HubServer, remote_hub: Hub, make_adapter: MakeAdapter
) -> None:
    commit = remote_hub.push(make_adapter(1), REPO)
    _lie_about_commit(server, "1" * 40)
    with pytest.raises(InvalidAdapter, match="is the commit"):
        remote_hub.pull(REPO, revision=commit.revision)


def _lie_about_commit(server: HubServer, sha: str) -> None:
    import json

    def lie(body: bytes) -> bytes:
        return json.dumps({**json.loads(body), "sha": sha}).encode()

    server.faults.replace("model_info", lie, times=None)


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


def test_what_softhub_itself_saves_is_pushed_found_and_described(
    server: HubServer, remote_hub: Hub, tmp_path: Path
) -> None:
    import torch
    from huggingface_hub import HfApi

    from softhub.adapter.manifest import Manifest
    from softhub.model.prompt import SoftPrompt
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
        with pytest.raises((HubError, InvalidAdapter)) as raised:
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
