"""A real server on a loopback port, in a thread of this process."""

import contextlib
import threading
import time
from dataclasses import dataclass, field

import httpx
import pytest
import uvicorn

from softhub.serving.app import create_app
from softhub.serving.builtin import BuiltInEngine
from tests.prompts import soft_prompt


@dataclass
class Server:
    url: str
    model: object
    engine: object
    uvicorn: object
    thread: threading.Thread
    http: httpx.Client = field(init=False)

    def __post_init__(self):
        self.http = httpx.Client(base_url=self.url, timeout=60)

    def post(self, path, **body):
        return self.http.post(path, json=body)

    def stop(self):
        self.uvicorn.should_exit = True
        self.thread.join(60)
        assert not self.thread.is_alive()


@contextlib.contextmanager
def running(model, *, batch_size=8, queue=512, **options):
    engine = BuiltInEngine(model, batch_size=batch_size, queue=queue)
    app = create_app(engine, **options)
    config = uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=30)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    found = Server(f"http://127.0.0.1:{port}", model, engine, server, thread)
    try:
        yield found
    finally:
        found.http.close()
        found.stop()


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
