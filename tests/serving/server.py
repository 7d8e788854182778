"""A real server on a loopback port, in a thread of this process, and a browser for its page."""

import contextlib
import inspect
import json
import shutil
import threading
import time
from dataclasses import dataclass, field

import httpx
import uvicorn

from softhub.serving.app import create_app
from softhub.serving.builtin import BuiltInEngine

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


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
    """Serve a model with the options of `create_app` while the context lasts."""
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


@contextlib.contextmanager
def chromium():
    """Run the system's Chromium without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class SlowModel:
    """Lets the engine's thread wait in each forward pass after `free` ones until it may go on."""

    def __init__(self, monkeypatch, model, *, free=0):
        self.passes = 0
        self.gate = threading.Event()
        self.entered = threading.Event()
        forward = model.base.model.forward

        def waiting(*args, **kwargs):
            self.entered.set()
            self.passes += 1
            assert self.passes <= free or self.gate.wait(60)
            return forward(*args, **kwargs)

        waiting.__signature__ = inspect.signature(forward)
        monkeypatch.setattr(model.base.model, "forward", waiting)


def joined(events):
    records = [line[6:] for line in events.splitlines() if line.startswith("data: {")]
    return "".join(c["text"] for record in records for c in json.loads(record)["choices"])
