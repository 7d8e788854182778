"""The hubs that the conformance tests run on, and adapters to put on them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from softhub.hub import Hub
from tests.hub.adapters import adapter_files, write
from tests.hub.server import HubServer
from tests.hub.server.client import running

MakeAdapter = Callable[..., Path]


@pytest.fixture(autouse=True)
def quick_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk: a kill, unlike a power cut, loses nothing that was written."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def make_adapter(tmp_path: Path) -> MakeAdapter:
    """`make_adapter(seed, **fields)`: a new folder with an adapter of its own."""
    count = iter(range(10_000))

    def make(seed: int = 0, **fields: Any) -> Path:
        return write(tmp_path / "adapters" / str(next(count)), adapter_files(seed, **fields))

    return make


@pytest.fixture(params=["local", "regular", "lfs", "xet"])
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hub]:
    """A new, empty hub: local, or on the loopback with one of three ways to store weights."""
    if request.param == "local":
        yield Hub(f"local:{tmp_path / 'hub'}")
        return
    with running(request.param) as server:
        member = server.add_user("me", organizations=("you", "a", "b", "c"))
        yield hub_of(server, member)


@pytest.fixture
def server() -> Iterator[HubServer]:
    with running() as server:
        yield server


@pytest.fixture(params=["regular", "lfs", "xet"])
def any_server(request: pytest.FixtureRequest) -> Iterator[HubServer]:
    """A hub for each way of storing weights."""
    with running(request.param) as server:
        yield server


@pytest.fixture
def remote_hub(server: HubServer) -> Hub:
    return hub_of(server)


def hub_of(server: HubServer, token: str | None = None) -> Hub:
    """A client of a loopback server, as its one user unless another token is given."""
    return Hub(f"hf+{server.endpoint}", token=token or server.token)


@pytest.fixture
def local_hub(tmp_path: Path) -> Hub:
    return Hub(f"local:{tmp_path / 'hub'}")
