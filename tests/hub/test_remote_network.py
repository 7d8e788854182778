"""What a network may do to a hub's client: steal its token, flood it, or answer nonsense."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from softhub.errors import HubAccessDenied, HubError, HubUnavailable
from softhub.hub import Hub
from softhub.hub.remote import connection, transport
from softhub.hub.remote.client import Client
from tests.hub.adapters import adapter_files
from tests.hub.conftest import MakeAdapter, hub_of
from tests.hub.server import HubServer

REPO = "me/sentiment"
HF_TOKEN = "hf_" + "a" * 34
CALLS: dict[str, Callable[[Hub], object]] = {
    "whoami": lambda hub: hub.whoami(),
    "model_info": lambda hub: hub.pull(REPO),
    "list_models": lambda hub: hub.list(),
    "commits": lambda hub: hub.log(REPO),
    "refs": lambda hub: hub.verify(REPO),
}


# The token


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", " {}", "\t{} \n"])
def test_white_space_around_a_token_is_no_part_of_it(
    around: str, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = around.format(server.token)
    assert Hub(f"hf+{server.endpoint}", token=token).whoami() == "me"
    monkeypatch.setenv("SOFTHUB_TOKEN", token)
    monkeypatch.setenv("SOFTHUB_HUB", f"hf+{server.endpoint}")
    assert Hub().whoami() == "me"


@pytest.mark.parametrize("token", ["hf_abc\ndef", "hf_abc def", "hf_ä" + "b" * 20, "hf_\x00b", 7])
def test_a_token_that_cannot_be_one_is_refused_unshown(token: Any, server: HubServer) -> None:
    with pytest.raises(HubAccessDenied, match="token=") as raised:
        Hub(f"hf+{server.endpoint}", token=token)
    assert str(token) not in str(raised.value) and "hf_" not in str(raised.value)


@pytest.mark.parametrize("route", CALLS)
def test_a_message_in_which_the_hub_repeats_the_token_does_not_show_it(
    route: str, server: HubServer, remote_hub: Hub
) -> None:
    server.seed(REPO, adapter_files(1))
    server.faults.status(route, 400, message=f"Bearer {server.token} is bad", times=None)
    with pytest.raises(HubError) as raised:
        CALLS[route](remote_hub)
    assert server.token not in str(raised.value)
    assert "is bad" in str(raised.value)


def test_softhubs_token_goes_to_hugging_face_when_that_is_the_named_hub(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOFTHUB_TOKEN", f"{HF_TOKEN}\n")
    assert connection.Connection("https://huggingface.co", None).token is False
    monkeypatch.setenv("SOFTHUB_HUB", "hf")
    assert connection.Connection("https://huggingface.co", None).token == HF_TOKEN
    assert connection.Connection("https://other.example", None).token is False


def test_hugging_faces_switch_for_implicit_tokens_is_honoured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", HF_TOKEN)
    assert connection.Connection("https://huggingface.co", None).token == HF_TOKEN
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    assert connection.Connection("https://huggingface.co", None).token is False
    assert connection.Connection("https://huggingface.co", HF_TOKEN).token == HF_TOKEN


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"])
def test_a_hub_on_this_machine_is_reached_without_a_proxy(
    variable: str, any_server: HubServer, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import close_session

    close_session()  # the client reads the proxies when it is made
    with _listener() as (address, connections):
        monkeypatch.setenv(variable, address)
        hub = hub_of(any_server)
        hub.push(make_adapter(1), REPO, tags=["v1"])
        assert hub.pull(REPO, revision="v1")
        assert hub.whoami() == "me"
        assert connections == []
    close_session()


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "nonsense://127.0.0.1:1"])
def test_a_proxy_that_cannot_be_used_is_named_as_the_reason(
    proxy: str, monkeypatch: pytest.MonkeyPatch, server: HubServer
) -> None:
    from huggingface_hub import close_session

    close_session()
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(HubUnavailable, match="ALL_PROXY"):
        Hub("hf+https://hub.invalid").pull(REPO)
    close_session()


def test_a_certificate_that_is_not_trusted_is_named_as_the_reason(
    server: HubServer, remote_hub: Hub
) -> None:
    client = Client(server.endpoint, server.token)

    def call(_: Any) -> None:
        raise ConnectionError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")

    with pytest.raises(HubUnavailable, match="SSL_CERT_FILE"):
        client.write(call, REPO)


@pytest.mark.parametrize("route", ["list_models", "commits"])
@pytest.mark.parametrize("host", ["elsewhere", "localhost", "http"])
def test_the_next_page_of_a_listing_is_on_the_same_hub(
    route: str, host: str, server: HubServer, remote_hub: Hub
) -> None:
    server.seed(REPO, adapter_files(1))
    port = server.endpoint.rpartition(":")[2]
    addresses = {
        "elsewhere": server.elsewhere,
        "localhost": f"http://localhost:{port}",
        "http": "http://example.invalid",
    }
    server.faults.next_page(route, f"{addresses[host]}/api/models", times=None)
    with pytest.raises(HubError, match="token is only for the hub"):
        CALLS[route](remote_hub)
    assert server.leaks() == []


def test_an_upload_is_verified_at_the_same_hub(make_adapter: MakeAdapter) -> None:
    from tests.hub.server.client import running

    with running("lfs") as server:

        def misdirect(body: bytes) -> bytes:
            return body.replace(
                f"{server.endpoint}/{REPO}.git".encode(), f"{server.elsewhere}/{REPO}.git".encode()
            )

        server.faults.replace("lfs_batch", misdirect, times=None)
        with pytest.raises(HubError):
            hub_of(server).push(make_adapter(1), REPO)
        assert server.leaks() == []


# Floods


@pytest.fixture
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_CALL_BYTES", 1 << 20)
    monkeypatch.setattr(transport.Call, "__init__", _limited(transport.Call.__init__))


@pytest.mark.parametrize("route", CALLS)
@pytest.mark.parametrize("flood", ["endless", "inflate", "error", "packed error"])
def test_no_answer_is_read_beyond_the_limit(
    route: str, flood: str, server: HubServer, remote_hub: Hub, low_limit: None
) -> None:
    server.seed(REPO, adapter_files(1))
    if "error" in flood:
        server.faults.add(route, after=lambda _, answer: _failed(answer), times=None)
    kind = server.faults.endless if flood in ("endless", "error") else server.faults.inflate
    kind(route, size=4 << 20, times=None)
    with pytest.raises(HubError, match="reading was stopped"):
        CALLS[route](remote_hub)


def test_the_limit_holds_for_all_pages_together(
    server: HubServer, remote_hub: Hub, low_limit: None
) -> None:
    server.seed(REPO, adapter_files(1))
    url = f"{server.endpoint}/api/models/{REPO}/commits/main"
    server.faults.next_page("commits", url, times=3_000)
    server.faults.replace("commits", lambda body: body + b" " * 10_000, times=3_000)
    with pytest.raises(HubError, match="reading was stopped"):
        remote_hub.log(REPO)
    assert len(server.sent_to("commits")) < 200


@pytest.mark.parametrize("packing", ["br", "zstd", "deflate", "gzip, gzip", "\x7f"])
def test_a_packing_that_was_not_asked_for_is_refused(
    packing: str, server: HubServer, remote_hub: Hub
) -> None:
    server.faults.header("whoami", "Content-Encoding", packing, times=None)
    with pytest.raises(HubError, match="expected gzip or none"):
        remote_hub.whoami()


def test_a_packed_answer_is_read(server: HubServer, remote_hub: Hub) -> None:
    import gzip

    server.faults.replace("whoami", gzip.compress)
    server.faults.header("whoami", "Content-Encoding", "gzip")
    assert remote_hub.whoami() == "me"
    server.faults.header("whoami", "Content-Encoding", "gzip")
    with pytest.raises(HubError, match="cannot be unpacked"):
        remote_hub.whoami()


def test_other_requests_of_the_process_are_not_limited(
    server: HubServer, remote_hub: Hub, low_limit: None
) -> None:
    from huggingface_hub import get_session

    remote_hub.whoami()
    server.faults.endless("whoami", size=4 << 20)
    assert len(get_session().get(f"{server.endpoint}/api/whoami-v2").content) == 4 << 20


# Nonsense


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e400", "-inf", "soon", ""])
def test_any_retry_after_is_a_short_pause(
    value: str, server: HubServer, remote_hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(connection, "time", SimpleNamespace(sleep=pauses.append))
    server.faults.unavailable("whoami", headers={"Retry-After": value})
    assert remote_hub.whoami() == "me"
    assert len(pauses) == 1 and 0 <= pauses[0] <= connection.MAX_PAUSE_SECONDS


@pytest.mark.parametrize("value", [None, 7, [], {}, 1e300, "\u202ehi\x1b[2J"])
@pytest.mark.parametrize("field", ["title", "authors"])
def test_any_history_is_shown_as_text(
    field: str, value: object, server: HubServer, remote_hub: Hub
) -> None:
    server.seed(REPO, adapter_files(1))
    shown = [{"user": value}] if field == "authors" else value

    def change(body: bytes) -> bytes:
        return json.dumps([{**entry, field: shown} for entry in json.loads(body)]).encode()

    server.faults.replace("commits", change, times=None)
    entry = remote_hub.log(REPO)[0]
    assert (entry.message + entry.author + remote_hub.info(REPO).message).isprintable()


@pytest.mark.parametrize("name", [None, 7, "main", "../../x", "0" * 39])
def test_a_history_of_no_commits_is_told(name: object, server: HubServer, remote_hub: Hub) -> None:
    server.seed(REPO, adapter_files(1))

    def change(body: bytes) -> bytes:
        return json.dumps([{**entry, "id": name} for entry in json.loads(body)]).encode()

    server.faults.replace("commits", change, times=None)
    for call in (remote_hub.log, remote_hub.verify):
        with pytest.raises(HubError, match="hash of a commit"):
            call(REPO)


def test_a_repository_that_is_deleted_under_a_reader_is_told_so(
    server: HubServer, remote_hub: Hub
) -> None:
    server.seed(REPO, adapter_files(1))
    server.faults.status(("resolve", "file"), 404, code="EntryNotFound", times=None)
    with pytest.raises(HubError, match="deleted in the meantime"):
        remote_hub.pull(REPO)


# Revisions


@pytest.mark.parametrize("branch", ["feature/x", "v1.0/rc", "a/b/c-d_e"])
def test_revisions_of_several_parts_are_read(
    branch: str, server: HubServer, remote_hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.seed(REPO, adapter_files(1))
    repo = server.store.repos[REPO]
    repo.branches[branch.split("/")[0]] = repo.branches[branch] = repo.branches["main"]
    for revision in (branch.split("/")[0], branch):
        folder = remote_hub.pull(REPO, revision=revision)
        assert remote_hub.info(REPO, revision=revision).task == "sentiment"
        assert len(remote_hub.log(REPO, revision=revision)) == 2
    monkeypatch.setenv("SOFTHUB_OFFLINE", "1")
    assert remote_hub.pull(REPO, revision=branch) == folder


def test_a_pull_request_is_read(server: HubServer, remote_hub: Hub) -> None:
    server.seed(REPO, adapter_files(1))
    repo = server.store.repos[REPO]
    repo.branches["refs/pr/1"] = repo.branches["main"]
    assert remote_hub.pull(REPO, revision="refs/pr/1") == remote_hub.pull(REPO)


@pytest.mark.parametrize(
    "revision", ["../x", "a/../b", "/a", "a/", "a//b", "a/.b", "a/b.lock", "ü/x"]
)
def test_what_can_be_no_revision_is_not_sent(
    revision: str, server: HubServer, remote_hub: Hub
) -> None:
    with pytest.raises(HubError, match="is not a revision"):
        remote_hub.pull(REPO, revision=revision)
    assert server.requests == []


def test_a_repository_without_main_is_listed_and_verified(
    server: HubServer, remote_hub: Hub
) -> None:
    server.seed(REPO, adapter_files(1))
    repo = server.store.repos[REPO]
    commit = repo.branches["dev"] = repo.branches["main"]
    server.faults.status(
        "model_info", 404, code="RevisionNotFound", path="/revision/main", times=None
    )
    assert [info.repo_id for info in remote_hub.list()] == [REPO]
    assert remote_hub.verify(REPO) == {commit: None}
    assert remote_hub.pull(REPO, revision="dev")


@contextmanager
def _listener() -> Iterator[tuple[str, list[Any]]]:
    """A proxy on the loopback that counts who comes, and answers nobody."""
    connections: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            try:
                while len(connections) < 100:
                    caller, address = listening.accept()
                    connections.append(address)
                    caller.close()
            except OSError:
                pass  # closed: the test is over

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", connections


def _failed(answer: Any) -> Any:
    answer.status = 400
    return answer


def _limited(make: Callable[..., None]) -> Callable[..., None]:
    def init(self: Any, endpoint: str, deadline: float) -> None:
        make(self, endpoint, deadline, transport.MAX_CALL_BYTES)

    return init
