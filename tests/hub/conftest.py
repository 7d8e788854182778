"""The hubs that the conformance tests run on, and adapters to put on them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from softhub.hub import Hub
from tests.hub.adapters import adapter_files, write

MakeAdapter = Callable[..., Path]


@pytest.fixture
def make_adapter(tmp_path: Path) -> MakeAdapter:
    """`make_adapter(seed, **fields)`: a new folder with an adapter of its own."""
    count = iter(range(10_000))

    def make(seed: int = 0, **fields: Any) -> Path:
        return write(tmp_path / "adapters" / str(next(count)), adapter_files(seed, **fields))

    return make


@pytest.fixture(params=["local"])
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hub]:
    """A new, empty hub of each kind."""
    yield Hub(f"local:{tmp_path / 'hub'}")


@pytest.fixture
def local_hub(tmp_path: Path) -> Hub:
    return Hub(f"local:{tmp_path / 'hub'}")
