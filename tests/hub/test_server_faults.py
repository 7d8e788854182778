"""The loopback hub misbehaves as told, and serves other processes."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import (
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
)
from huggingface_hub.utils import get_session

from tests.hub.server import HubServer
from tests.hub.server.client import REPO, WEIGHTS, api_of, push, running


def test_a_lost_response_leaves_the_commit(server: HubServer) -> None:
    api = api_of(server)
    push(api, b"one")
    server.faults.lose_response("commit")
    with pytest.raises(Exception, match="disconnected"):
        push(api, b"two")
    assert len(api.list_repo_commits(REPO)) == 3
    server.faults.drop("commit")
    with pytest.raises(Exception, match="disconnected"):
        push(api, b"three")
    assert len(api.list_repo_commits(REPO)) == 3


def test_refusals_come_as_often_as_asked(server: HubServer) -> None:
    api = api_of(server)
    server.faults.stale()
    with pytest.raises(HfHubHTTPError, match="commit has happened"):
        push(api)
    push(api)
    server.faults.unavailable("model_info", times=2)
    for _ in range(2):
        with pytest.raises(HfHubHTTPError, match="503"):
            api.model_info(REPO)
    assert api.model_info(REPO).id == REPO
    server.faults.rate_limit("list_models", seconds=0)
    assert [model.id for model in api.list_models()] == [REPO]
    assert len(server.sent_to("list_models")) == 2
    server.faults.rate_limit("whoami", seconds=7, times=None)
    with pytest.raises(HfHubHTTPError) as limited:
        api.whoami()
    assert limited.value.response.headers["Retry-After"] == "7"
    server.faults.clear()
    assert api.whoami()["name"] == "me"


@pytest.mark.parametrize(
    "kind", ["truncate", "promise", "shorten", "corrupt", "endless", "inflate", "slow"]
)
def test_bytes_may_be_wrong(any_server: HubServer, kind: str) -> None:
    data = os.urandom(3_000)
    push(api_of(any_server), data)
    misbehave = getattr(any_server.faults, kind)
    size = {"size": 5_000} if kind in ("endless", "inflate") else {}
    misbehave(path=WEIGHTS if any_server.uploads == "regular" else "", **size, method="GET")
    url = f"{any_server.endpoint}/{REPO}/resolve/main/{WEIGHTS}"
    if kind in ("truncate", "promise"):
        with pytest.raises(Exception, match=r"peer closed|incomplete"):
            get_session().get(url)
        return
    answer = get_session().get(url)
    expected = {
        "shorten": data[:10],
        "corrupt": data[:-1] + bytes([data[-1] ^ 255]),
        "endless": bytes(5_000),
        "inflate": bytes(5_000),
        "slow": data,
    }
    assert answer.content == expected[kind]
    assert ("content-length" in answer.headers) == (kind != "endless")
    assert get_session().get(url).content == data


def test_lies_in_the_listings(any_server: HubServer) -> None:
    api = api_of(any_server)
    push(api)
    lies = {"size": 1 << 50, "oid": "0" * 40, "sha256": "1" * 64, "path": "../evil"}
    any_server.faults.lie(WEIGHTS, **lies)
    tree = {file.path: file for file in api.list_repo_tree(REPO)}
    evil = tree["../evil"]
    assert (evil.size, evil.blob_id) == (1 << 50, "0" * 40)
    assert evil.lfs is None or (evil.lfs.sha256, evil.lfs.size) == ("1" * 64, 1 << 50)
    assert api.get_paths_info(REPO, WEIGHTS)[0].path == "../evil"
    siblings = api.model_info(REPO, files_metadata=True).siblings or []
    assert next(s.size for s in siblings if s.rfilename == "../evil") == 1 << 50
    any_server.faults.clear()
    assert WEIGHTS in {file.path for file in api.list_repo_tree(REPO)}


def test_a_repo_may_hold_names_no_client_would_send(server: HubServer) -> None:
    names = {"../evil", "/etc/passwd", "a\x1b[31m"}
    server.seed(REPO, dict.fromkeys(names, b"x"))
    assert set(api_of(server).list_repo_files(REPO)) == names | {".gitattributes"}
    siblings = api_of(server).model_info(REPO).siblings or []
    assert {sibling.rfilename for sibling in siblings} == names | {".gitattributes"}


def test_a_redirect_elsewhere_shows_who_leaks(server: HubServer) -> None:
    data = b"weights"
    push(api_of(server), data)
    server.faults.redirect("file", server.elsewhere, times=None, method="GET")
    url = f"{server.endpoint}/{REPO}/resolve/main/{WEIGHTS}"
    header = {"Authorization": f"Bearer {server.token}"}
    assert get_session().get(url, headers=header).content == data
    assert [request.host for request in server.sent_to("file")] == ["hub", "elsewhere"]
    assert server.leaks() == []
    careless = urllib.request.Request(url, headers=header)
    assert urllib.request.urlopen(careless, timeout=5).read() == data
    assert [request.host for request in server.leaks()] == ["elsewhere"]


def test_a_circle_of_redirects_and_a_false_header(server: HubServer, tmp_path: Path) -> None:
    api = api_of(server)
    push(api)
    server.faults.redirect("resolve", server.endpoint, times=None)
    with pytest.raises(Exception, match="redirects"):
        get_session().get(f"{server.endpoint}/{REPO}/resolve/main/{WEIGHTS}")
    server.faults.clear()
    for commit in ("0" * 40, None):
        server.faults.header("file", "X-Repo-Commit", commit, times=None)
        answer = get_session().get(f"{server.endpoint}/{REPO}/resolve/main/{WEIGHTS}")
        assert answer.headers.get("X-Repo-Commit") == commit
        server.faults.clear()


def test_storage_refuses_tokens() -> None:
    with running("lfs") as server:
        commit = server.seed(REPO, {WEIGHTS: b"w"})
        url = f"{server.cdn}/objects/{commit.files[WEIGHTS].sha256}"
        assert get_session().get(url).content == b"w"
        refused = get_session().get(url, headers={"Authorization": f"Bearer {server.token}"})
        assert refused.status_code == 400
        assert len(server.leaks()) == 1


def test_hanging_and_a_dead_endpoint() -> None:
    with running() as server:
        push(api_of(server))
        server.faults.hang("model_info", seconds=30)
        with pytest.raises(Exception, match="timed out"):
            api_of(server).model_info(REPO, timeout=0.2)
        assert api_of(server).model_info(REPO, timeout=5).id == REPO
        server.stop()
        for _ in range(2):
            with pytest.raises(Exception, match=r"refused|disconnected|reset"):
                api_of(server).model_info(REPO, timeout=2)


def test_a_ref_that_moves_in_between(server: HubServer, tmp_path: Path) -> None:
    api = api_of(server)
    first = push(api, b"one")
    server.faults.meanwhile("model_info", lambda: server.seed(REPO, {WEIGHTS: b"two"}))
    assert api.model_info(REPO).sha == first
    main = api.hf_hub_download(REPO, WEIGHTS, cache_dir=tmp_path)
    assert Path(main).read_bytes() == b"two"
    pinned = api.hf_hub_download(REPO, WEIGHTS, cache_dir=tmp_path, revision=first)
    assert Path(pinned).read_bytes() == b"one"


PUSHER = """
import sys
from huggingface_hub import CommitOperationAdd, HfApi
number = sys.argv[1].encode()
HfApi().create_commit("me/mood", [CommitOperationAdd(f"{sys.argv[1]}.bin", number * 5000)],
                      commit_message="Add")
"""


@pytest.mark.parametrize("uploads", ["regular", "lfs", "xet"])
def test_processes_push_at_once(uploads: str, tmp_path: Path) -> None:
    with running(uploads) as server:
        api_of(server).create_repo(REPO)
        pushers = [
            subprocess.Popen([sys.executable, "-c", PUSHER, str(n)], env=server.environment())
            for n in range(3)
        ]
        assert [pusher.wait(60) for pusher in pushers] == [0, 0, 0]
        assert len(api_of(server).list_repo_commits(REPO)) == 4
        folder = Path(snapshot_download(REPO, endpoint=server.endpoint, local_dir=tmp_path))
        assert (folder / "2.bin").read_bytes() == b"2" * 5000


PEFT = """
import sys, warnings
warnings.simplefilter("error", UserWarning)
import torch
from huggingface_hub import HfApi
from peft import PeftModel, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained(sys.argv[1])
config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
model = get_peft_model(base, config)
weights = model.get_prompt_embedding_to_save("default").clone()
model.save_pretrained(sys.argv[2])
HfApi().create_repo("me/mood")
HfApi().upload_folder(repo_id="me/mood", folder_path=sys.argv[2], ignore_patterns="README.md")
fresh = AutoModelForCausalLM.from_pretrained(sys.argv[1])
loaded = PeftModel.from_pretrained(fresh, "me/mood")
assert torch.equal(loaded.get_prompt_embedding_to_save("default"), weights)
print("loaded", tuple(weights.shape))
"""


@pytest.mark.slow
def test_plain_peft_pushes_and_loads(tiny_base: Callable[[str], Path], tmp_path: Path) -> None:
    with running("xet") as server:
        run = subprocess.run(
            [sys.executable, "-c", PEFT, str(tiny_base("gpt2")), str(tmp_path / "adapter")],
            env={**server.environment(), "HF_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
        )
        assert run.stdout.strip() == "loaded (3, 32)", run.stderr
        files = server.store.repos[REPO].head.files
        assert files[WEIGHTS].xet_hash
        assert json.loads(server.store.read(files["adapter_config.json"]))["peft_type"]
        assert server.leaks() == []


def test_the_shared_cache_serves_offline_what_was_pulled(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(api_of(server), b"kept")
    endpoint = {"endpoint": server.endpoint, "cache_dir": tmp_path}
    first = hf_hub_download(REPO, WEIGHTS, **endpoint)
    server.stop()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert hf_hub_download(REPO, WEIGHTS, **endpoint) == first
