"""A vLLM server as its own process, and a client of it."""

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from softhub.serving.vllm.launch import vllm_launch

ADMIN_KEY = "a-key-for-administration"
_SECONDS = 300


class Answer(NamedTuple):
    """Status and JSON of an answer."""

    status: int
    body: dict[str, Any]


class Client:
    """Sends requests to a server; `process` is the one that holds the prompts."""

    def __init__(self, url: str, process: int) -> None:
        self.url = url
        self.process = process

    def get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, *, key: str | None = None, **body: Any) -> Answer:
        try:
            with self._open(path, body, key) as answer:
                return Answer(answer.status, json.load(answer))
        except urllib.error.HTTPError as error:
            return Answer(error.code, json.loads(error.read()))

    def stream(self, path: str, **body: Any) -> list[dict[str, Any]]:
        with self._open(path, {**body, "stream": True}, None) as answer:
            lines = [line.decode().strip() for line in answer]
        events = [line.removeprefix("data: ") for line in lines if line]
        assert events.pop() == "[DONE]"
        return [json.loads(event) for event in events]

    def load(self, name: str, path: Path) -> Answer:
        body = {"prompt_name": name, "prompt_path": str(path)}
        return self.post("/v1/load_prompt_adapter", key=ADMIN_KEY, **body)

    def _open(self, path: str, body: dict[str, Any], key: str | None) -> Any:
        headers = {"content-type": "application/json"}
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        return urllib.request.urlopen(request, timeout=_SECONDS)


@contextmanager
def running_server(
    base: Path, prompts: list[str], log: Path, *options: str, **environment: str
) -> Iterator[Client]:
    """Start vLLM with the plug-in, and stop it and its processes at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--dtype", "float32", "--enforce-eager", "--served-model-name", "base", *options]
    launch = vllm_launch(str(base), prompts, port=port, admin_key=ADMIN_KEY, options=flags)
    variables = {
        **os.environ,
        **launch.environment,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        **environment,
    }
    with log.open("wb") as output:
        server = subprocess.Popen(
            launch.command, env=variables, stdout=output, stderr=output, start_new_session=True
        )
        try:
            client = Client(f"http://127.0.0.1:{port}", server.pid)
            _wait(client, server, log)
            yield client
        finally:
            _stop(server)


def _wait(client: Client, server: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            raise AssertionError(f"vLLM ended with {server.returncode}:\n{log.read_text()[-8000:]}")
        try:
            urllib.request.urlopen(f"{client.url}/health", timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"vLLM did not start:\n{log.read_text()[-8000:]}")


def _stop(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    try:
        server.wait(60)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
