"""The part `right` of `serving.py`: requests of all kinds, of which no answer may be wrong."""

import asyncio
import json
import random
import signal
import time
from collections import Counter

import httpx
from serving_setup import (
    ADMIN,
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

from softhub import PromptModel

MARGIN = 1e-3


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


async def one_request(http, checker, samples, rng):
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
    model = PromptModel(base)
    for name, path in prompts.items():
        model.load_prompt(path, name=name)
    versions = [prompts.pop("p40"), random_prompt(base, LABELS, 99).save_pretrained(folder / "v2")]
    model.load_prompt(versions[1], name="v2")
    checker, samples = Checker(model), []
    with server(args.base, prompts) as (process, url, log):
        started = time.perf_counter()
        figures = asyncio.run(run(args, process, url, versions, checker, samples))
        seconds = time.perf_counter() - started
        process.wait(60)
        figures["statuses_after_sigterm"] = statuses_after_shutdown(log)
    for name, text, found in samples:
        checker.counts[verdict(checker, name, text, found)] += 1
    counted = {"requests": args.requests, "clients": args.clients, **checker.counts}
    return {**counted, **figures, "seconds": seconds}


async def run(args, process, url, versions, checker, samples):
    """Send all requests while a prompt is reloaded, and SIGTERM with the last ones."""
    rng, memory, stop = random.Random(0), [], asyncio.Event()
    async with client(url) as http:
        body = {"prompt_name": "live", "prompt_path": str(versions[0])}
        headers = {"Authorization": f"Bearer {ADMIN}"}
        await http.post("/v1/load_prompt_adapter", json=body, headers=headers)
        reloads = asyncio.ensure_future(reload(http, versions, stop))
        tenth = max(1, args.requests // 10)
        for start in range(0, args.requests, tenth):
            count = min(tenth, args.requests - start)
            jobs = (one_request(http, checker, samples, rng) for _ in range(count))
            await in_parallel(jobs, args.clients)
            memory.append(round(megabytes(process), 1))
        stop.set()
        turns = await reloads
        text = (await http.get("/metrics")).text
        checker.counts["server_errors"] = text.count('status="5')
        finished = await shut_down_under_way(args, process, http)
    return {
        "reloads": turns,
        "answered_after_sigterm": finished,
        "server_megabytes_by_tenth": memory,
    }


async def shut_down_under_way(args, process, http):
    """Send SIGTERM while requests are under way; return how many of them are answered."""
    body = {"model": "p1", "prompt": "x"}
    last = [
        asyncio.ensure_future(http.post("/v1/completions", json=body)) for _ in range(args.clients)
    ]
    while "softhub_running_rows 0" in (await http.get("/metrics")).text:
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    found = await asyncio.gather(*last, return_exceptions=True)
    return sum(getattr(each, "status_code", 0) == 200 for each in found)


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
