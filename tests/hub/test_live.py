"""The whole road of an adapter on one remote hub: on the loopback always, on the real one if asked.

    SOFTHUB_LIVE=1 SOFTHUB_LIVE_TOKEN=… pytest tests/hub/test_live.py -m live

makes a private repository of a random name for the token's user on huggingface.co, and removes it.
(`HF_TOKEN` itself is kept from all tests.)
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from softhub.errors import HubError, PushConflict, RepositoryNotFound
from softhub.hub import Hub
from tests.hub.adapters import adapter_files, write
from tests.hub.conftest import hub_of
from tests.hub.server.client import online, running

LIVE = pytest.param("live", marks=pytest.mark.live)


@pytest.fixture(params=["loopback", LIVE])
def road(request: pytest.FixtureRequest) -> Iterator[Hub]:
    if request.param == "loopback":
        with running("xet") as server:
            yield hub_of(server)
        return
    token = os.environ.get("SOFTHUB_LIVE_TOKEN")
    if os.environ.get("SOFTHUB_LIVE") != "1" or not token:
        pytest.skip("needs SOFTHUB_LIVE=1 and SOFTHUB_LIVE_TOKEN")
    with online():
        yield Hub("hf", token=token)


def test_the_whole_road(road: Hub, tmp_path: Path) -> None:
    repo_id = f"{road.whoami()}/softhub-test-{secrets.token_hex(6)}"
    one, two = (write(tmp_path / str(n), adapter_files(n, score=n / 10)) for n in (1, 2))
    try:
        first = road.push(one, repo_id, private=True, message="first", tags=["v1"])
        assert not road.push(one, repo_id).created
        second = road.push(two, repo_id, message="second", parent_commit=first.revision)
        with pytest.raises(PushConflict):
            road.push(one, repo_id, parent_commit=first.revision)
        for revision, source in (("v1", one), ("main", two), (first.revision, one)):
            folder = road.pull(repo_id, revision=revision)
            for path in source.iterdir():
                assert (folder / path.name).read_bytes() == path.read_bytes()
        info = road.info(repo_id)
        assert (info.revision, info.tags, info.message) == (second.revision, ("v1",), "second")
        assert [entry.message for entry in road.log(repo_id)][:2] == ["second", "first"]
        assert road.diff(repo_id, "v1").metrics == {"accuracy (test)": (0.1, 0.2)}
        road.tag(repo_id, "v2")
        road.untag(repo_id, "v1")
        assert road.info(repo_id).tags == ("v2",)
        assert set(road.verify(repo_id).values()) == {None}
        road.deprecate(repo_id, reason="only a test")
        with pytest.warns(UserWarning, match="only a test"):
            road.pull(repo_id, revision="v2")
    finally:
        with suppress(HubError):
            road.delete(repo_id)
    with pytest.raises(RepositoryNotFound):
        road.pull(repo_id)
