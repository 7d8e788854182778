"""Clients against the server: curl and OpenAI's as the pages show them, and a chat program."""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from softhub.hub import Hub
from tests.prompts import MOOD, TEXTS
from tests.serving.test_service import ADMIN, keys

DOCS = Path(__file__).parents[2] / "docs"
ADDRESS = r"(http://)?(127\.0\.0\.1|localhost):8000"


def blocks(page, language):
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def curl_lines(page):
    whole = (block.replace("\\\n", " ") for block in blocks(page, "bash"))
    return [line for block in whole for line in block.splitlines() if line.startswith("curl ")]


CURL = [(page, line) for page in ("serving.md", "vllm.md") for line in curl_lines(page)]


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_lines_of_curl_are_answered(serve, adapter):
    """In the order of the pages, on a server with the prompts that they name."""
    hub, folder = Hub(), adapter("sentiment", 4, MOOD)
    hub.push(folder, "me/sentiment", tags=["v2"])
    server = serve(hub=hub, allow=("me/*",), admin_keys=keys(ADMIN))
    server.model.load_prompt(folder, name="sentiment")
    environment = {**os.environ, "SOFTHUB_ADMIN_KEY": ADMIN, "no_proxy": "*"}
    assert len(CURL) >= 5
    for page, line in CURL:
        line = re.sub(ADDRESS, server.url, line).replace("/prompts/sentiment-2", str(folder))
        done = subprocess.run(
            ["bash", "-c", line.replace("curl ", "curl -sS --fail-with-body ", 1)],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (page, line, done.stdout, done.stderr)
        answer = json.loads(done.stdout)
        if "/v1/classify" in line:
            assert {row["label"] for row in answer["data"]} <= {"good", "bad"}
    assert "sentiment" not in server.model.prompts  # the last line has unloaded it


def test_openais_client_runs_as_the_page_shows_it(serve):
    server = serve()
    code = next(block for block in blocks("serving.md", "python") if "import OpenAI" in block)
    assert len(code.strip().splitlines()) <= 12
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        exec(compile(re.sub(ADDRESS, server.url, code), "serving.md", "exec"), {})
    model = server.model
    text = model.generate(["Worth every penny."], prompt="mood", max_new_tokens=5)[0]
    chat = model.generate([[{"role": "user", "content": "Hello"}]])[0]
    served = [model.base.name, "base", *model.prompts]
    assert shown.getvalue() == "\n".join([*served, text, chat])


# --- llm, a chat in a terminal with a client library of its own: pip install llm ---


@pytest.fixture
def llm(serve, tmp_path):
    """`llm(*arguments)`: its command, which knows the server's models as its own."""
    pytest.importorskip("llm")
    server = serve()
    known = [
        {"model_id": f"my-{name}", "model_name": name, "api_base": f"{server.url}/v1"}
        for name in ("summary", "base", "mood")
    ]
    (tmp_path / "extra-openai-models.yaml").write_text(yaml.safe_dump(known))
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "unused"}

    def run(*arguments, **options):
        return subprocess.run(
            [sys.executable, "-m", "llm", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            **options,
        )

    return server.model, run


@pytest.mark.slow
def test_llm_streams_and_waits(llm):
    model, run = llm
    chat = [{"role": "user", "content": TEXTS[0]}]
    for name, prompt in [("summary", "summary"), ("base", None)]:
        expected = model.generate([chat], prompt=prompt, max_new_tokens=12)[0]
        for how in ([], ["--no-stream"]):
            done = run("-m", f"my-{name}", "-o", "max_tokens", "12", *how, TEXTS[0])
            assert done.returncode == 0, done.stderr
            assert done.stdout == expected + "\n"


@pytest.mark.slow
def test_llm_continues_a_chat_with_a_system_text(llm):
    model, run = llm
    options = ["-m", "my-base", "-o", "max_tokens", "6", "-s", "Answer with one word."]
    done = run("chat", *options, input=f"{TEXTS[0]}\n{TEXTS[1]}\nquit\n")
    assert done.returncode == 0, done.stderr
    chat = [{"role": "system", "content": "Answer with one word."}]
    for text in TEXTS[:2]:
        chat.append({"role": "user", "content": text})
        answer = model.generate([chat], max_new_tokens=6)[0]
        chat.append({"role": "assistant", "content": answer})
        assert answer in done.stdout


@pytest.mark.slow
def test_llm_shows_why_a_model_cannot_chat(llm):
    _, run = llm
    done = run("-m", "my-mood", TEXTS[0])
    assert done.returncode != 0 and "/v1/classify" in done.stderr
