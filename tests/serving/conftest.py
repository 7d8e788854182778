"""A server on a loopback port, adapters and a hub for it, and a browser."""

import contextlib

import pytest

from softhub.adapter import layout
from softhub.hub import Hub
from tests.prompts import MOOD, SUMMARY, TOPIC, soft_prompt
from tests.serving.server import CHROMIUM, chromium, running

HOSTILE = (
    "<script>alert(1)</script> [x](javascript:alert(1)) ![i](https://example.com/i.png) "
    "<img src=x onerror=alert(1)>\n\n| a | b |\n|---|---|\n| 1 | **2** |\n"
)


@pytest.fixture
def serve(model_of):
    """`serve(kind="llama", **options)`: a server of the tiny base and its three prompts."""
    with contextlib.ExitStack() as stack:

        def start(kind="llama", **options):
            return stack.enter_context(running(model_of(kind), **options))

        yield start


@pytest.fixture
def adapter(tmp_path, loaded):
    """`adapter(name, tokens, task, seed)`: the folder of a random prompt of the tiny Llama."""

    def make(name, tokens, task, seed=0, kind="llama"):
        prompt = soft_prompt(loaded(kind), tokens, task, seed=seed)
        return prompt.save_pretrained(tmp_path / "adapters" / name)

    return make


@pytest.fixture
def page(serve, adapter):
    """A server with a hub of four adapters, of which three may be requested."""
    hub = Hub()
    for name, task in [("me/mood", MOOD), ("me/topic", TOPIC), ("other/summary", SUMMARY)]:
        hub.push(adapter(name.replace("/", "-"), 4, task), name, tags=["v1"])
    folder = adapter("hostile", 4, MOOD, seed=5)
    card = (folder / layout.CARD).read_text()
    (folder / layout.CARD).write_text(card + HOSTILE)
    hub.push(folder, "me/hostile")
    return serve(hub=hub, allow=["me/*"])


@pytest.fixture
def browser():
    pytest.importorskip("playwright")
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    with chromium() as found:
        yield found
