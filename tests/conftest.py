"""Fixtures for every test: tiny base models built on the spot, and a home far from the user's."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

# huggingface_hub and datasets read these when they are imported: set them before any test does.
_SANDBOX = Path(tempfile.mkdtemp(prefix="softhub-tests-"))
os.environ.update(
    HF_HOME=str(_SANDBOX / "huggingface"),
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    SOFTHUB_HUB=f"local:{_SANDBOX / 'hub'}",  # of fixtures that outlive a test; a test has its own
    TOKENIZERS_PARALLELISM="false",
)
# Tiny models lose more to threads that wait for each other than they gain.
os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_CACHE", "SOFTHUB_BASE"):
    os.environ.pop(_name, None)

import pytest  # noqa: E402

from tests.command import Command, make_command, make_recipe  # noqa: E402
from tests.tiny import build_base  # noqa: E402

if TYPE_CHECKING:
    from softhub.inference.engine import PromptModel
    from softhub.model.base import BaseModel


def pytest_unconfigure() -> None:
    """Remove the sandbox when the run is over."""
    shutil.rmtree(_SANDBOX, ignore_errors=True)


@pytest.fixture(autouse=True)
def softhub_home(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Give each test a softhub home and a local hub of its own.

    Tests marked `e2e` keep the user's home, where the converted demo base lies, but not the hub.
    """
    home = tmp_path / "softhub-home"
    if request.node.get_closest_marker("e2e"):
        monkeypatch.setenv("SOFTHUB_HUB", f"local:{home / 'hub'}")
    else:
        monkeypatch.setenv("SOFTHUB_HOME", str(home))
        monkeypatch.delenv("SOFTHUB_HUB")
    return home


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Return `tiny_base(kind)`: the folder of a tiny base model, built once per session.

    Kinds: llama, qwen2, qwen3, gpt2, opt, mistral (sliding window of 8), gemma2 (the same, and
    scaled embeddings) and t5. All have a hidden size of 32, two layers, float32 weights and the
    same tokenizer.
    """
    built: dict[str, Path] = {}

    def folder_of(kind: str) -> Path:
        if kind not in built:
            built[kind] = build_base(kind, tmp_path_factory.mktemp("bases") / f"tiny-{kind}")
        return built[kind]

    yield folder_of


@pytest.fixture(scope="session")
def bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a BART, whose encoder counts positions from the first index."""
    from tests.tiny import build_bart

    return build_bart(tmp_path_factory.mktemp("bases") / "tiny-bart")


@pytest.fixture
def folder_of(
    tiny_base: Callable[[str], Path], request: pytest.FixtureRequest
) -> Callable[[str], Path]:
    """Return `folder_of(kind)`: the folder of a tiny base, or of BART."""
    return lambda kind: request.getfixturevalue("bart") if kind == "bart" else tiny_base(kind)


@pytest.fixture(scope="session")
def loaded(tiny_base: Callable[[str], Path]) -> Callable[[str], "BaseModel"]:
    """Return `loaded(kind)`: the tiny base of that kind, loaded once; no test may change it."""
    from softhub.model.loading import load_base

    bases: dict[str, BaseModel] = {}

    def base_of(kind: str) -> "BaseModel":
        if kind not in bases:
            bases[kind] = load_base(tiny_base(kind), name=f"example/tiny-{kind}")
        return bases[kind]

    return base_of


@pytest.fixture
def model_of(
    folder_of: Callable[[str], Path], loaded: Callable[[str], "BaseModel"]
) -> Callable[[str], "PromptModel"]:
    """Return `model_of(kind)`: an engine with the prompts `mood`, `topic` and `summary`."""
    from softhub.inference.engine import PromptModel
    from softhub.model.loading import load_base
    from tests.prompts import PROMPTS, soft_prompt

    def make(kind: str) -> PromptModel:
        base = load_base(folder_of(kind)) if kind == "bart" else loaded(kind)
        model = PromptModel(base)
        for name, (task, rows, seed) in PROMPTS.items():
            model.load_prompt(soft_prompt(base, rows, task, seed=seed), name=name)
        return model

    return make


@pytest.fixture
def softhub(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run `softhub ARGUMENTS` and return its exit code, stdout and stderr, children's included."""
    return make_command(monkeypatch, capfd)


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run `recipe(name, *arguments)` in this process and return its exit code and output."""
    return make_recipe(monkeypatch, capfd)


@pytest.fixture
def ctrl_c_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """`with ctrl_c_at(5):` presses Ctrl-C when a training run logs that step."""

    @contextmanager
    def pressing(step: int) -> Iterator[None]:
        from softhub.training.callbacks import HistoryCallback

        original = HistoryCallback.on_log

        def press(self, args, state, control, logs=None, **kwargs):  # type: ignore[no-untyped-def]
            original(self, args, state, control, logs=logs, **kwargs)
            if state.global_step == step:
                os.kill(os.getpid(), signal.SIGINT)

        with monkeypatch.context() as patch:
            patch.setattr(HistoryCallback, "on_log", press)
            yield

    return pressing
