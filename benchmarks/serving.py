"""Measure the server and the engine below it; each part writes `results/serving_<part>.json`.

    python benchmarks/serving.py right --requests 10000      # no wrong answer, none lost
    python benchmarks/serving.py classify generate first-token cliff resident page

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
resident: 1,000 loaded prompts: memory, loads per second, and first requests: to a prompt on the
hub, compared with a loaded one, of which the keys and values are computed as well.
page: bytes of the first page, and the time in Chromium from the engine's first answer to a try-out
until it is painted.
For the first token and the page the server is a thread of this process, so that both forward passes
use the same weights in memory, and both times one clock.
"""

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import httpx
import psutil
import torch
from record import DEMO_BASE, command_line, write
from serving_right import right
from serving_setup import (
    LABELS,
    client,
    in_parallel,
    megabytes,
    post,
    random_prompt,
    save_prompts,
    server,
    text_of,
)

from softhub import Hub, PromptModel, load_base
from softhub.model.prompt import SoftPrompt
from softhub.serving.builtin import BuiltInGeneration
from tests.serving.server import chromium, running
from tests.tiny import build_base

KINDS = ("labels", "texts")

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
    with running(model) as own, httpx.Client(base_url=own.url, timeout=60) as http:
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
    some = [f"p{seed}" for seed in range(args.prompts)][-64:]  # more than the budget keeps
    model.predict(["x"] * len(some), task=LABELS)
    before = held_megabytes()
    started = time.perf_counter()
    for seed in range(args.prompts):
        adapter = hub.read(f"me/p{seed}")
        model.load_prompt(SoftPrompt.from_adapter(adapter), name=f"p{seed}")
    loading = time.perf_counter() - started
    model.predict(["x"] * len(some), prompt=some)
    after = held_megabytes()
    return {
        "prompts": args.prompts,
        "megabytes_above_base": after - before,
        "prefix_megabytes": model.memory().prefix_bytes / 2**20,
        "loads_per_second": args.prompts / loading,
        **first_requests(args, base, folder, hub),
    }


def held_megabytes():
    """Return this process's memory without what was freed and not yet returned to the system."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return megabytes(psutil.Process())


def first_requests(args, base, folder, hub):
    """Milliseconds that first requests take longer: to a prompt on the hub, to one not used yet."""
    count = min(40, args.prompts)
    loaded = {
        f"loaded{seed}": random_prompt(base, LABELS, seed).save_pretrained(folder / f"loaded{seed}")
        for seed in range(count)
    }
    options = ("--hub", hub.uri, "--allow", "me/*")
    with server(args.base, loaded, *options) as (_, url, _), httpx.Client(base_url=url) as http:

        def seconds(name):
            started = time.perf_counter()
            http.post("/v1/classify", json={"model": name, "input": "x"}).raise_for_status()
            return time.perf_counter() - started

        seconds("loaded0")
        times = [
            [seconds(f"me/p{seed}"), seconds(f"loaded{seed}"), seconds(f"loaded{seed}")]
            for seed in range(1, count)
        ]
    on_hub, unused, used = (statistics.median(each) for each in zip(*times, strict=True))
    return {
        "first_request_more_milliseconds": 1000 * (on_hub - unused),
        "first_keys_milliseconds": 1000 * (unused - used),
    }


# --- page ---

WATCH = """() => {
    // When the first answer after the next click is painted, in milliseconds of the wall clock.
    window.painted = new Promise(resolve => {
        const answers = document.querySelector("#answers");
        const begun = text => text.firstChild && text.firstChild.nodeType === Node.TEXT_NODE;
        new MutationObserver((_, observer) => {
            const texts = [...answers.querySelectorAll(".text")];
            if (!answers.querySelector("meter") && !texts.some(begun)) return;
            observer.disconnect();
            const after = new MessageChannel();
            after.port1.onmessage = () => resolve(Date.now());
            requestAnimationFrame(() => after.port2.postMessage(null));
        }).observe(answers, {childList: true, subtree: true});
    });
}"""
CHOOSE = """names => document.querySelectorAll("input[name=model]").forEach(
    box => { box.checked = names.includes(box.value); })"""


@contextlib.contextmanager
def engine_times(engine):
    """Yield a list to which the wall-clock time of each answer of the engine is added."""
    found, classify, deliver = [], engine.classify, BuiltInGeneration.deliver

    async def timed(*args, **options):
        answer = await classify(*args, **options)
        found.append(time.time())
        return answer

    def delivered(self, text):
        found.append(time.time())
        deliver(self, text)

    engine.classify, BuiltInGeneration.deliver = timed, delivered
    yield found
    engine.classify, BuiltInGeneration.deliver = classify, deliver


def page(args, base, folder):
    prompts, hub = save_prompts(base, folder, 12), Hub(f"local:{folder / 'hub'}")
    for name, adapter in prompts.items():
        hub.push(adapter, f"me/{name}")
    model, options = loaded_model(base, prompts), {"hub": hub, "allow": ["me/*"]}
    names = {kind: [f"p{2 * i + odd}" for i in range(3)] for odd, kind in enumerate(KINDS)}
    found, hosts, sizes = {}, set(), []
    with running(model, batch_size=32, **options) as own, chromium() as browser:
        tab = browser.new_page()
        network = tab.context.new_cdp_session(tab)
        network.send("Network.enable")
        network.on("Network.loadingFinished", lambda each: sizes.append(each["encodedDataLength"]))
        tab.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        tab.goto(own.url, wait_until="networkidle")
        first_bytes = sum(sizes)
        with engine_times(own.engine) as times:
            for kind, chosen in names.items():
                found[kind] = [
                    milliseconds_to_paint(tab, chosen, times) for _ in range(args.rounds * 5)
                ]
    figures = {
        f"{kind}_milliseconds": {"median": statistics.median(each), "most": max(each)}
        for kind, each in found.items()
    }
    elsewhere = len(hosts - {own.url.split("/")[2]})
    return {"first_page_bytes": first_bytes, "other_hosts": elsewhere, **figures}


def milliseconds_to_paint(tab, names, times):
    """Return the time from the engine's first answer of a try-out until it is painted."""
    tab.evaluate(CHOOSE, names)
    tab.get_by_label("Text", exact=True).fill(text_of(random.Random(len(times))))
    tab.evaluate(WATCH)
    times.clear()
    tab.get_by_role("button", name="Ask").click()
    painted = tab.evaluate("window.painted")
    first = 1000 * min(times)
    tab.wait_for_selector(".columns[aria-busy=false]")
    return painted - first


PARTS = {
    "right": right,
    "classify": classify,
    "generate": generate,
    "first-token": first_token,
    "cliff": cliff,
    "resident": resident,
    "page": page,
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
