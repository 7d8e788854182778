"""Measure the local hub: the time of a push and a pull, and of searches over many adapters.

    python benchmarks/hub_local.py --adapters 100000

Push and pull move an adapter of 20 virtual tokens of width 576 (46 KB); the time spent in fsync,
which depends on the disk, is measured separately. Searches run over tiny adapters (P = 1, H = 8),
whose folders are written without fsync beforehand (on a slow disk, use `--search-in /dev/shm`).
"Warm" is the median of repeated queries in one process, "cold" the first query of a new process,
without imports.
"""

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import command_line, write

from softhub.hub import Hub
from softhub.hub.local.index import index_path
from softhub.hub.records import Commit, FileEntry
from tests.hub.adapters import adapter_files
from tests.hub.adapters import write as write_adapter

TASKS, BASES = 100, 20
QUERIES = {
    "task, best 50": {"task": "task7", "sort": "score", "limit": 50},
    "base and score, best 50": {
        "base_model": "org/base3",
        "min_score": 0.5,
        "sort": "score",
        "limit": 50,
    },
    "text, best 50": {"text": "task42", "sort": "score", "limit": 50},
    "task and language, newest 50": {
        "task": "task9",
        "language": "en",
        "sort": "date",
        "limit": 50,
    },
    "all of a task (1 % of the hub)": {"task": "task8"},
}
COLD = """
import json, sys, time
import sqlite3, yaml
from softhub.hub import Hub
import softhub.hub.local.local_hub
filters = json.loads(sys.argv[2])
start = time.perf_counter()
found = Hub(sys.argv[1]).list(**filters)
print(time.perf_counter() - start, len(found))
"""


class Flushes:
    """Measure the seconds spent in fsync."""

    def __init__(self):
        self.seconds, self._really = 0.0, os.fsync
        os.fsync = self

    def __call__(self, descriptor):
        start = time.perf_counter()
        self._really(descriptor)
        self.seconds += time.perf_counter() - start

    def take(self):
        seconds, self.seconds = self.seconds, 0.0
        return seconds


def median_ms(seconds):
    return round(1000 * statistics.median(seconds), 2)


def push_and_pull(folder, rounds):
    """Return median milliseconds of pushes to one repository and to new ones, and of pulls."""
    hub, flushes = Hub(f"local:{folder / 'hub'}"), Flushes()
    adapters = [
        write_adapter(folder / "a" / str(i), adapter_files(i, rows=20, width=576))
        for i in range(rounds)
    ]
    figures = {"rounds": rounds, "bytes": sum(p.stat().st_size for p in adapters[0].iterdir())}
    for name, repo in (("push", "me/one"), ("push, new repository", "me/r{}")):
        total, flushed = [], []
        for number, adapter in enumerate(adapters):
            flushes.take()
            start = time.perf_counter()
            hub.push(adapter, repo.format(number))
            total.append(time.perf_counter() - start)
            flushed.append(flushes.take())
        rest = [t - f for t, f in zip(total, flushed, strict=True)]
        figures[name] = {
            "ms": median_ms(total),
            "fsync_ms": median_ms(flushed),
            "beyond_fsync_ms": median_ms(rest),
        }
    pulls = []
    for number in range(rounds):
        start = time.perf_counter()
        hub.pull(f"me/r{number}")
        pulls.append(time.perf_counter() - start)
    figures["pull"] = {"ms": median_ms(pulls)}
    os.fsync = flushes._really
    return figures


def variants():
    """Yield the contents of the adapters that fill the hub, with repeating tasks and scores."""
    for number in range(1_000):
        yield adapter_files(
            number,
            task=f"task{number % TASKS}",
            base=f"org/base{number // 7 % BASES}",
            rows=1,
            width=8,
            score=(number * 7919 % 1000) / 1000,
        )


def fill(root, count):
    """Write `count` repositories as pushes would, but without fsync."""
    adapters = list(variants())
    for number in range(count):
        files = adapters[number % len(adapters)]
        entries = {name: FileEntry.of(data) for name, data in sorted(files.items())}
        commit = Commit(None, "bench", f"2026-01-01T00:{number % 60:02d}:00.000+00:00", "", entries)
        repo = root / f"models--user{number % 1000}--prompt-{number}"
        write_adapter(repo / "snapshots" / commit.id, files)
        for place, data in (
            (f"commits/{commit.id}.json", commit.to_bytes()),
            (f"refs/history/{commit.id}", commit.id.encode()),
            ("refs/main", commit.id.encode()),
        ):
            (repo / place).parent.mkdir(parents=True, exist_ok=True)
            (repo / place).write_bytes(data)
    (root / ".softhub").mkdir()


def search(root, count):
    """Measure the seconds to build the index, and the milliseconds of each query."""
    fill(root, count)
    figures = {"adapters": count, "folder": str(root.parents[1])}
    hub = Hub(f"local:{root}")
    start = time.perf_counter()
    hub.list(limit=1)  # builds the index
    built = time.perf_counter() - start
    index = index_path(root)
    figures["index"] = {
        "built_in_s": round(built, 1),
        "adapters_per_s": round(count / built),
        "megabytes": round(index.stat().st_size / 1e6, 1),
    }
    figures["queries"] = {name: query(hub, root, filters) for name, filters in QUERIES.items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures["peak_memory_mb"] = round(peak / 1024)
    return figures


def query(hub, root, filters):
    warm = []
    for _ in range(20):
        start = time.perf_counter()
        found = hub.list(**filters)
        warm.append(time.perf_counter() - start)
    command = [sys.executable, "-c", COLD, f"local:{root}", json.dumps(filters)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    cold, _ = done.stdout.split()
    return {"found": len(found), "warm_ms": median_ms(warm), "cold_ms": median_ms([float(cold)])}


def main():
    parser = command_line(__doc__)
    parser.add_argument("--adapters", type=int, default=100_000, help="adapters to search")
    parser.add_argument("--rounds", type=int, default=50, help="pushes and pulls")
    parser.add_argument("--search-in", help="folder of the adapters to search, such as /dev/shm")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="softhub-bench-") as folder:
        figures = {"push_and_pull": push_and_pull(Path(folder), arguments.rounds)}
    folder = tempfile.mkdtemp(prefix="softhub-bench-", dir=arguments.search_in)
    try:
        figures["search"] = search(Path(folder) / "hub", arguments.adapters)
        print(json.dumps(figures, indent=2))
        write("hub_local", figures)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
