"""What the benchmarks of serving share: prompts, texts, a server of its own, and its clients."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time

import httpx
import psutil
import torch

from softhub.model.prompt import SoftPrompt
from softhub.tasks import Task, Template, Verbalizer
from tests.prompts import soft_prompt

WORDS = """the phone screen battery price sound camera is was very not good bad great slow and
""".split()  # noqa: SIM905
LABELS = Task(
    name="labels",
    kind="classification",
    template=Template("Review: {text}\nSentiment:"),
    verbalizer=Verbalizer.from_mapping({"good": " positive", "bad": " negative"}),
)
TEXTS = Task(
    name="texts",
    kind="generation",
    template=Template("{text} The answer is"),
    generation={"max_new_tokens": 16},
)
ADMIN = "benchmark-administrator"


def text_of(rng):
    return " ".join(rng.choices(WORDS, k=rng.randint(5, 40)))


def random_prompt(base, task, seed, tokens=20):
    """A prompt of vectors of the vocabulary."""
    rows = torch.randint(
        0, base.embedding.shape[0], (tokens,), generator=torch.Generator().manual_seed(seed)
    )
    manifest = soft_prompt(base, tokens, task, seed=seed).manifest
    return SoftPrompt(base.embed(rows), manifest)


def save_prompts(base, folder, count):
    """Write prompts that classify (even numbers) and that generate (odd numbers)."""
    found = {}
    for seed in range(count):
        task = (LABELS, TEXTS)[seed % 2]
        prompt = random_prompt(base, task, seed)
        found[f"p{seed}"] = prompt.save_pretrained(folder / f"p{seed}")
    return found


@contextlib.contextmanager
def server(base, prompts, *options):
    """Start `softhub serve`; yield its process and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    main = "from softhub.cli import main; main()"
    command = [sys.executable, "-c", main, "serve", str(base), "--port", str(port), *options]
    for name, folder in prompts.items():
        command += ["--prompts", f"{name}={folder}"]
    environment = {**os.environ, "SOFTHUB_ADMIN_KEY": ADMIN}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, env=environment, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            while not answers(url):
                if process.poll() is not None:
                    log.seek(0)
                    raise SystemExit(log.read())
                time.sleep(0.2)
            yield process, url, log
        finally:
            process.kill()
            process.wait()


def answers(url):
    try:
        return httpx.get(f"{url}/ready").status_code == 200
    except httpx.HTTPError:
        return False


def megabytes(process):
    return psutil.Process(process.pid).memory_info().rss / 2**20


async def post(http, path, body):
    """Send a request until the queue has room."""
    while True:
        answer = await http.post(path, json=body)
        if answer.status_code != 429:
            return answer
        await asyncio.sleep(0.05)


async def in_parallel(jobs, clients):
    """Run the coroutines of an iterator, at most `clients` at a time."""

    async def work():
        for job in jobs:
            await job

    await asyncio.gather(*(work() for _ in range(clients)))


def client(url):
    return httpx.AsyncClient(base_url=url, timeout=600, limits=httpx.Limits(max_connections=None))
