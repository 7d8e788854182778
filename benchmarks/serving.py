"""Measure the server and the engine below it; each part writes `results/serving_<part>.json`.

    python benchmarks/serving.py right --requests 10000      # no wrong answer, none lost
    python benchmarks/serving.py classify generate first-token cliff resident

The server runs as a process of its own, as users start it, with random prompts of 20 virtual
tokens made of the vocabulary's vectors. Times of the server and of `PromptModel` alternate in one
run. `--tiny` uses a base of random weights, to try the script itself.

right: clients send texts to classify and to continue, read slowly, leave, send bodies that are too
large or malformed, while one prompt is reloaded; SIGTERM comes with requests under way. Each answer
is compared with `PromptModel`; where two tokens are within 1e-3, either counts.
classify: throughput of single-row requests over that of `predict` at the same batch size.
generate: 32 simultaneous requests of 16 new tokens, 20 prompts, over `generate` in one batch.
first-token: time until the first text of a lone request, over a forward pass of the bare base.
cliff: throughput with working sets of 1, 2 and 10 times the budget of keys and values.
resident: 1,000 loaded prompts: memory, loads per second, and the first request to one on the hub.
"""

import asyncio
import contextlib
import gc
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx
import psutil
import torch
from record import DEMO_BASE, command_line, write

from softhub import Hub, PromptModel, load_base
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Task, Template, Verbalizer
from tests.prompts import soft_prompt
from tests.tiny import build_base

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
MARGIN = 1e-3


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


# --- the server ---


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


# --- right ---


class Checker:
    """Compares answers of the server with those of `PromptModel` alone."""

    def __init__(self, model):
        self.model = model
        self.counts = dict.fromkeys(
            ("right", "near_ties", "wrong", "lost", "left", "refused", "server_errors"), 0
        )

    def classified(self, name, text, row):
        expected = self.model.predict([text], prompt=name)[0]
        differences = [
            abs(row["probabilities"][label] - value)
            for label, value in expected.probabilities.items()
        ]
        return "right" if max(differences) < MARGIN else "wrong"

    def generated(self, name, text, found):
        expected, margins = "", []
        for piece in self.model.stream([text], prompt=name, logprobs=2):
            expected += piece.text
            margins += [token.top[0][1] - token.top[1][1] for token in piece.logprobs]
        if found == expected:
            return "right"
        return "near_ties" if min(margins) < MARGIN else "wrong"


async def one_request(http, url, number, checker, samples, rng):
    text, kind = text_of(rng), rng.random()
    name = f"p{rng.randrange(40)}"
    classifies = int(name[1:]) % 2 == 0
    body = {"model": name, "input" if classifies else "prompt": text}
    path = "/v1/classify" if classifies else "/v1/completions"
    try:
        if kind < 0.03:
            wrong = rng.choice([b"{", b"[]", b'{"model": 1}', b"x" * 2_000_000])
            answer = await http.post(path, content=wrong)
            key = "refused" if answer.status_code in (400, 413, 422) else "wrong"
            checker.counts[key] += 1
        elif kind < 0.10 and not classifies:
            await leave(http, body)
            checker.counts["left"] += 1
        elif kind < 0.14:
            answer = await post(http, "/v1/classify", {"model": "live", "input": text})
            samples.append(("live", text, answer.json()["data"][0]))
        elif classifies:
            answer = await post(http, path, body)
            samples.append((name, text, answer.json()["data"][0]))
        else:
            samples.append((name, text, await streamed(http, body, slow=kind > 0.97)))
    except (httpx.HTTPError, KeyError, ValueError):
        checker.counts["lost"] += 1


async def leave(http, body):
    async with http.stream("POST", "/v1/completions", json={**body, "stream": True}) as answer:
        async for _ in answer.aiter_lines():
            return


async def streamed(http, body, slow):
    text = ""
    while True:
        async with http.stream("POST", "/v1/completions", json={**body, "stream": True}) as answer:
            if answer.status_code == 429:
                await asyncio.sleep(0.05)
                continue
            async for line in answer.aiter_lines():
                if slow:
                    await asyncio.sleep(0.02)
                if line.startswith("data: {"):
                    text += "".join(c["text"] for c in json.loads(line[6:])["choices"])
                if line == "data: [DONE]":
                    return text
        raise ValueError("the stream has no end")


async def reload(http, folders, stop):
    turn = 0
    headers = {"Authorization": f"Bearer {ADMIN}"}
    while not stop.is_set():
        turn += 1
        body = {"prompt_name": "live", "prompt_path": str(folders[turn % 2])}
        (await http.post("/v1/load_prompt_adapter", json=body, headers=headers)).raise_for_status()
        await asyncio.sleep(0.2)
    return turn


def right(args, base, folder):
    prompts = save_prompts(base, folder, 42)
    model, rng = PromptModel(base), random.Random(0)
    for name, path in prompts.items():
        model.load_prompt(path, name=name)
    versions = [prompts.pop("p40"), random_prompt(base, LABELS, 99).save_pretrained(folder / "v2")]
    model.load_prompt(versions[1], name="v2")
    checker, samples, memory = Checker(model), [], []

    async def run(process, url):
        stop = asyncio.Event()
        async with client(url) as http:
            body = {"prompt_name": "live", "prompt_path": str(versions[0])}
            headers = {"Authorization": f"Bearer {ADMIN}"}
            await http.post("/v1/load_prompt_adapter", json=body, headers=headers)
            reloads = asyncio.ensure_future(reload(http, versions, stop))
            tenth = max(1, args.requests // 10)
            for start in range(0, args.requests, tenth):
                numbers = range(start, min(start + tenth, args.requests))
                jobs = (one_request(http, url, n, checker, samples, rng) for n in numbers)
                await in_parallel(jobs, args.clients)
                memory.append(round(megabytes(process), 1))
            stop.set()
            turns = await reloads
            text = (await http.get("/metrics")).text
            checker.counts["server_errors"] = text.count('status="5')
            last = [
                asyncio.ensure_future(
                    http.post("/v1/completions", json={"model": "p1", "prompt": "x"})
                )
                for _ in range(args.clients)
            ]
            while "softhub_running_rows 0" in (await http.get("/metrics")).text:
                await asyncio.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            found = await asyncio.gather(*last, return_exceptions=True)
            return turns, sum(getattr(each, "status_code", 0) == 200 for each in found)

    with server(args.base, prompts) as (process, url, log):
        started = time.perf_counter()
        turns, finished = asyncio.run(run(process, url))
        seconds = time.perf_counter() - started
        process.wait(60)
        after = statuses_after_shutdown(log)
    for name, text, found in samples:
        checker.counts[verdict(checker, name, text, found)] += 1
    return {
        "requests": args.requests,
        "clients": args.clients,
        **checker.counts,
        "reloads": turns,
        "answered_after_sigterm": finished,
        "statuses_after_sigterm": after,
        "seconds": seconds,
        "server_megabytes_by_tenth": memory,
    }


def statuses_after_shutdown(log):
    """Return how often each status was answered after the server began to shut down."""
    log.seek(0)
    lines = [json.loads(line) for line in log if line.startswith("{")]
    begun = next(i for i, line in enumerate(lines) if line["message"] == "Shutting down")
    return Counter(str(line["status"]) for line in lines[begun:] if "status" in line)


def verdict(checker, name, text, found):
    if name == "live":
        both = [checker.classified(each, text, found) for each in ("p40", "v2")]
        return "right" if "right" in both else "wrong"
    if isinstance(found, str):
        return checker.generated(name, text, found)
    return checker.classified(name, text, found)


# --- fast ---


def paired(first, second, rounds):
    """Return the medians of the seconds of two functions, which run alternately."""
    first(), second()
    times = ([], [])
    for _ in range(rounds):
        for function, found in zip((first, second), times, strict=True):
            started = time.perf_counter()
            function()
            found.append(time.perf_counter() - started)
    return [statistics.median(found) for found in times]


def loaded_model(base, prompts):
    model = PromptModel(base)
    for name, path in prompts.items():
        model.load_prompt(path, name=name)
    return model


def classify(args, base, folder):
    prompts = save_prompts(base, folder, 40)
    model, rng = loaded_model(base, prompts), random.Random(1)
    names = [f"p{2 * rng.randrange(20)}" for _ in range(args.rows)]
    texts = [text_of(rng) for _ in names]

    async def ask(url):
        async with client(url) as http:
            jobs = (
                post(http, "/v1/classify", {"model": name, "input": text})
                for name, text in zip(names, texts, strict=True)
            )
            await in_parallel(jobs, args.clients)

    with server(args.base, prompts, "--batch-size", "32") as (_, url, _):
        ours, alone = paired(
            lambda: asyncio.run(ask(url)),
            lambda: model.predict(texts, prompt=names, batch_size=32),
            args.rounds,
        )
    return {
        "rows": args.rows,
        "server_rows_per_second": args.rows / ours,
        "predict_rows_per_second": args.rows / alone,
        "ratio": alone / ours,
    }


def generate(args, base, folder):
    prompts = save_prompts(base, folder, 40)
    model, rng = loaded_model(base, prompts), random.Random(2)
    names = [f"p{2 * (index % 20) + 1}" for index in range(32)]
    texts = [text_of(rng) for _ in names]

    async def ask(url):
        async with client(url) as http:
            await asyncio.gather(
                *(
                    post(http, "/v1/completions", {"model": name, "prompt": text})
                    for name, text in zip(names, texts, strict=True)
                )
            )

    with server(args.base, prompts) as (_, url, _):
        ours, alone = paired(
            lambda: asyncio.run(ask(url)),
            lambda: model.generate(texts, prompt=names, batch_size=32),
            args.rounds,
        )
    return {"server_seconds": ours, "generate_seconds": alone, "ratio": alone / ours}


def first_token(args, base, folder):
    prompts = save_prompts(base, folder, 2)
    model = loaded_model(base, prompts)
    text = text_of(random.Random(3))
    ids = torch.tensor([model.requests.generation(text, model.find("p1"), None, {}).text.ids])
    body = {"model": "p1", "prompt": text, "stream": True}

    def bare():
        with torch.no_grad():
            base.model(input_ids=ids, logits_to_keep=1)

    found, forwards = [], []
    with server(args.base, prompts) as (_, url, _), httpx.Client(base_url=url, timeout=60) as http:
        for _ in range(args.rounds * 5):
            started = time.perf_counter()
            with http.stream("POST", "/v1/completions", json=body) as answer:
                lines = answer.iter_lines()
                next(lines)
                found.append(time.perf_counter() - started)
                list(lines)
            started = time.perf_counter()
            bare()
            forwards.append(time.perf_counter() - started)
    first, forward = statistics.median(found[1:]), statistics.median(forwards[1:])
    return {"first_text_seconds": first, "forward_seconds": forward, "ratio": first / forward}


# --- budget ---


def cliff(args, base, folder):
    model = PromptModel(base)
    for seed in range(80):
        model.load_prompt(random_prompt(base, LABELS, seed), name=f"p{seed}")
    model.predict(["x"], prompt="p0")
    size = model.memory().prefix_bytes
    rates = {}
    for times in (1, 2, 10):
        tight = PromptModel(base, prefix_budget=8 * size)
        for seed in range(80):
            tight.load_prompt(random_prompt(base, LABELS, seed), name=f"p{seed}")
        rng = random.Random(times)
        names = [f"p{rng.randrange(8 * times)}" for _ in range(args.rows)]
        texts = [text_of(random.Random(index)) for index in range(args.rows)]
        tight.predict(texts, prompt=names)
        started = time.perf_counter()
        for _ in range(args.rounds):
            tight.predict(texts, prompt=names)
        rates[times] = args.rows * args.rounds / (time.perf_counter() - started)
    return {
        "budget_bytes": 8 * size,
        "rows_per_second_by_working_set": rates,
        "ratio_at_10": rates[10] / rates[1],
    }


def resident(args, base, folder):
    hub = Hub(f"local:{folder / 'hub'}")
    for seed in range(args.prompts):
        prompt = random_prompt(base, LABELS, seed)
        hub.push(prompt.save_pretrained(folder / "one"), f"me/p{seed}")
    model = PromptModel(base, prefix_budget=32 * 2**20)
    model.predict(["x"], task=LABELS)
    gc.collect()
    before = megabytes(psutil.Process())
    started = time.perf_counter()
    for seed in range(args.prompts):
        model.load_prompt(hub.pull(f"me/p{seed}"), name=f"p{seed}")
    loading = time.perf_counter() - started
    for seed in range(args.prompts):
        model.predict(["x"], prompt=f"p{seed}")
    gc.collect()
    after = megabytes(psutil.Process())
    options = ("--hub", hub.uri, "--allow", "me/*")
    with server(args.base, {}, *options) as (_, url, _), httpx.Client(base_url=url) as http:
        http.post("/v1/classify", json={"model": "me/p0", "input": "x"})
        cold, warm = [], []
        for seed in range(1, min(40, args.prompts)):
            for times in (cold, warm):
                started = time.perf_counter()
                http.post("/v1/classify", json={"model": f"me/p{seed}", "input": "x"})
                times.append(time.perf_counter() - started)
    return {
        "prompts": args.prompts,
        "megabytes_above_base": after - before,
        "prefix_megabytes": model.memory().prefix_bytes / 2**20,
        "loads_per_second": args.prompts / loading,
        "first_request_more_milliseconds": 1000
        * statistics.median(a - b for a, b in zip(cold, warm, strict=True)),
    }


PARTS = {
    "right": right,
    "classify": classify,
    "generate": generate,
    "first-token": first_token,
    "cliff": cliff,
    "resident": resident,
}


def main():
    parser = command_line(__doc__)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--base", default=DEMO_BASE)
    parser.add_argument("--tiny", action="store_true", help="a base of random weights")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=1000)
    args = parser.parse_args()
    for part in args.parts:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            if args.tiny:
                args.base = build_base("llama", folder / "tiny-base")
            load = os.getloadavg()[0]
            figures = PARTS[part](args, load_base(args.base), folder)
        figures = {"base": Path(args.base).name, "load_before": load, **figures}
        write(f"serving_{part.replace('-', '_')}", figures)
        print(part, json.dumps(figures, indent=2), flush=True)


if __name__ == "__main__":
    main()
