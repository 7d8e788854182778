"""`softhub serve` as a process: what it refuses, its log, and SIGTERM."""

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from http.client import HTTPConnection

import httpx
import pytest
import uvicorn

from softhub.errors import SoftHubWarning
from softhub.hub import Hub
from softhub.inference.engine import PromptModel
from tests.prompts import MOOD, SUMMARY, TEXTS, soft_prompt


def _has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


HAS_IPV6 = _has_ipv6()


@pytest.fixture
def folders(tmp_path, loaded):
    base = loaded("llama")
    return {
        task.name: soft_prompt(base, 4, task, seed=seed).save_pretrained(tmp_path / task.name)
        for seed, task in enumerate((MOOD, SUMMARY))
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "can be reached from other machines"),
        (["--host", "example.com"], "can be reached from other machines"),
        (["--prompts", "me/mood"], "has no name"),
        (["--prompts", "mood=./nowhere"], "There is no adapter folder"),
        (["--prompts", "none.lock"], "there is no none.lock"),
        (["--prompts", "base=.", "--port", "0"], "'base' is the base model's name"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_line(arguments, message, softhub, tiny_base):
    done = softhub("serve", str(tiny_base("llama")), *arguments)
    assert done.code == 1 and message in done.err and len(done.err.strip().splitlines()) == 1


def test_a_prompt_may_not_be_called_as_the_base_is(softhub, tiny_base, folders, tmp_path):
    base = tmp_path / "mine"
    shutil.copytree(tiny_base("llama"), base)
    done = softhub("serve", base, "--prompts", f"mine={folders['mood']}", "--port", "0")
    assert done.code == 1 and "'mine' is the base model's name" in done.err


@pytest.mark.parametrize("host", ["127.0.0.1", "203.0.113.1", "a..b"])
def test_an_address_that_cannot_be_used_is_refused_before_the_base_is_loaded(
    host, softhub, monkeypatch
):
    """A port in use, an address of another machine, and what is no address."""
    monkeypatch.setattr(PromptModel, "from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    monkeypatch.setenv("SOFTHUB_API_KEY", "k" * 24)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = softhub("serve", "./base", "--host", host, "--port", port)
    assert done.code == 1 and len(done.err.strip().splitlines()) == 1
    assert f"cannot listen on {host}:{port}" in done.err and "--port" in done.err


def test_each_record_is_logged_once_as_json(softhub, tiny_base, monkeypatch):
    """With the real port, where a free one was asked for."""
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: None)
    for name in ("softhub", "uvicorn"):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
    done = softhub("serve", tiny_base("llama"), "--port", "0")
    (line,) = done.err.strip().splitlines()
    fields = json.loads(line)
    assert done.code == 0 and fields["message"] == "starting"
    assert not fields["address"].endswith(":0")


@pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6")
def test_the_address_that_is_logged_can_be_opened(softhub, tiny_base, monkeypatch):
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: None)
    for name in ("softhub", "uvicorn"):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
    done = softhub("serve", tiny_base("llama"), "--host", "::1", "--port", "0")
    address = json.loads(done.err.strip().splitlines()[-1])["address"]
    assert address.startswith("http://[::1]:") and httpx.URL(address).host == "::1"


def test_warnings_of_a_server_are_lines_of_its_log_each_once(softhub, tiny_base, monkeypatch):
    def run(*_, **__):
        for text in ("me/mood is deprecated: old", "me/mood is deprecated: old", "another"):
            warnings.warn_explicit(text, SoftHubWarning, "x.py", 1, registry={})
        warnings.warn_explicit("changes soon", FutureWarning, "x.py", 1, registry={})

    monkeypatch.setattr(uvicorn.Server, "run", run)
    for name in ("softhub", "uvicorn"):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = softhub("serve", tiny_base("llama"), "--port", "0")
    lines = [json.loads(line) for line in done.err.strip().splitlines()]
    assert [line["message"] for line in lines if line["level"] == "warning"] == [
        *("me/mood is deprecated: old", "another", "FutureWarning: changes soon")
    ]


def test_a_short_key_and_a_wrong_pin_are_refused(softhub, tiny_base, folders, monkeypatch):
    base = str(tiny_base("llama"))
    arguments = ["--prompts", f"mood={folders['mood']}", "--pin", "moo"]
    assert "did you mean 'mood'" in softhub("serve", base, *arguments).err
    monkeypatch.setenv("SOFTHUB_API_KEY", "short")
    done = softhub("serve", base)
    assert done.code == 1 and "at least 16" in done.err


def test_vllm_is_started_with_the_prompts_or_refused_in_one_line(softhub, folders, monkeypatch):
    missing = softhub("serve", "./base", "--engine", "vllm")
    assert missing.code == 1 and "pip install 'softhub[vllm]'" in missing.err
    started = []
    monkeypatch.setattr("os.execve", lambda *command: started.append(command) or sys.exit(0))
    monkeypatch.setattr("softhub.serving.vllm.launch._installed", lambda: "0.32.0")
    prompts = ["--prompts", f"mood={folders['mood']}", "--allow", "me/*"]
    done = softhub("serve", "./base", "--engine", "vllm", *prompts, "--port", "9000")
    ((program, command, environment),) = started
    assert program == sys.executable and command[command.index("--model") + 1] == "./base"
    assert command[command.index("--port") + 1] == "9000"
    assert environment["SOFTHUB_PROMPTS"] == f"mood={folders['mood']},me/*"
    assert done.code == 0 and "VLLM_PLUGINS=softhub" in done.err
    refused = softhub("serve", "./base", "--engine", "vllm", "--batch-size", "8")
    assert refused.code == 1 and "does not take --batch-size" in refused.err
    assert len(started) == 1


def test_vllm_gets_the_key_of_clients_and_is_not_opened_to_a_network_without_one(
    softhub, monkeypatch
):
    started = []
    monkeypatch.setattr("os.execve", lambda *command: started.append(command) or sys.exit(0))
    monkeypatch.setattr("softhub.serving.vllm.launch._installed", lambda: "0.32.0")
    command = ("serve", "./base", "--engine", "vllm", "--host", "0.0.0.0")
    refused = softhub(*command)
    assert refused.code == 1 and "SOFTHUB_API_KEY" in refused.err and not started
    monkeypatch.setenv("SOFTHUB_API_KEY", "k" * 24)
    done = softhub(*command)
    ((_, words, environment),) = started
    assert environment["VLLM_API_KEY"] == "k" * 24
    assert "k" * 24 not in done.err and "k" * 24 not in words
    monkeypatch.setenv("SOFTHUB_ADMIN_KEY", "a" * 24)
    both = softhub(*command)
    assert both.code == 1 and "--api-key" in both.err and len(started) == 1


@pytest.mark.slow
def test_a_locked_deployment_serves_until_sigterm_and_finishes_what_it_accepted(
    tmp_path, tiny_base, loaded, folders, softhub_home
):
    hub = Hub()
    for name, folder in folders.items():
        hub.push(folder, f"me/{name}")
    hub.lock(tmp_path / "softhub.lock", {"mood": "me/mood", "short": "me/summary"})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    key = "k" * 20
    main = "from softhub.cli import main; main()"
    command = [sys.executable, "-c", main, "serve", str(tiny_base("llama"))]
    command += ["--prompts", str(tmp_path / "softhub.lock"), "--port", str(port)]
    command += ["--prefix-budget", "1", "--pin", "mood", "--allow", "me/*"]
    environment = {**os.environ, "SOFTHUB_API_KEY": key}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    opened = contextlib.ExitStack()
    try:
        headers = {"Authorization": f"Bearer {key}"}
        http = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60)
        opened.enter_context(http)
        wait_until_ready(http, process)
        names = [each["id"] for each in http.get("/v1/models").json()["data"]]
        assert names[1:] == ["base", "mood", "short"]
        with contextlib.closing(HTTPConnection("127.0.0.1", port)) as idle:
            for pause in (6, 0):  # the official clients keep a connection for 5 seconds
                idle.request("GET", "/health")
                assert idle.getresponse().read()
                time.sleep(pause)
        body = {"model": "me/mood", "input": TEXTS}
        assert len(http.post("/v1/classify", json=body).json()["data"]) == len(TEXTS)
        body = {"model": "short", "prompt": "The answer", "max_tokens": 400, "stream": True}
        with http.stream("POST", "/v1/completions", json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            assert list(lines)[-2] == "data: [DONE]"
        error = process.communicate(timeout=60)[1]
    finally:
        opened.close()
        process.kill()
        process.stderr.close()
    assert process.returncode in (0, -signal.SIGTERM)
    lines = [json.loads(line) for line in error.splitlines()]
    starting = next(line for line in lines if line["message"] == "starting")
    assert starting["prefix_budget_mib"] == 1 and starting["prompts"] == 2
    assert [line["route"] for line in lines if line["message"] == "request"][
        -1
    ] == "/v1/completions"


def wait_until_ready(http, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        try:
            if http.get("/ready").status_code == 200:
                return
        except httpx.ConnectError:
            time.sleep(0.1)
    raise AssertionError("the server did not start")
