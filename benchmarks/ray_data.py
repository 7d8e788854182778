"""Answer a Ray Data set with one `Predictor` in several actors, and compare it with one process.

    pip install ray
    python benchmarks/ray_data.py        # a minute

Needs the folder of the repository on PYTHONPATH, for the tiny base of the tests. The base is a tiny
one with random weights, made on the spot: what is shown is that the answers of several actors are
those of one process.
"""

import os
import tempfile
import time
from pathlib import Path

import ray
from record import write

from softhub import Predictor, load_base
from tests.prompts import MOOD, TEXTS, TOPIC, soft_prompt
from tests.tiny import build_base

ACTORS = 2
ROWS = 600


class Worker:
    """An actor's predictor, which says in which process it answered."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def __call__(self, columns: dict) -> dict:
        answered = self.predictor(columns)
        return {**answered, "process": [os.getpid()] * len(answered["error"])}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = build_base("llama", Path(folder) / "tiny-llama")
        loaded = load_base(base)
        prompts = {
            "mood": soft_prompt(loaded, 5, MOOD, seed=0),
            "topic": soft_prompt(loaded, 12, TOPIC, seed=1),
        }
        predictor = Predictor(base, prompts, prompt_column="task")
        names = [*prompts]
        rows = [
            {"id": n, "text": "" if n % 100 == 7 else f"{TEXTS[n % 5]} {n}", "task": names[n % 2]}
            for n in range(ROWS)
        ]
        alone = predictor({name: [row[name] for row in rows] for name in rows[0]})

        ray.init(num_cpus=ACTORS, include_dashboard=False)
        start = time.perf_counter()
        answered = ray.data.from_items(rows, override_num_blocks=8).map_batches(
            Worker,
            fn_constructor_args=(predictor,),
            compute=ray.data.ActorPoolStrategy(size=ACTORS),
            batch_size=64,
        )
        found = sorted(answered.take_all(), key=lambda row: row["id"])
        seconds = time.perf_counter() - start
        ray.shutdown()

    columns = ("predicted_label", "abstained", "error")
    different = sum(any(row[name] != alone[name][row["id"]] for name in columns) for row in found)
    chances = [name for name in alone if name.startswith("probabilities.")]
    largest = max(
        abs(row[name] - alone[name][row["id"]])
        for row in found
        for name in chances
        if row[name] == row[name]  # NaN of the other prompt's labels
    )
    figures = {
        "ray": ray.__version__,
        "rows": len(found),
        "actors": len({row["process"] for row in found}),
        "rows_with_an_error": sum(row["error"] != "" for row in found),
        "rows_that_differ_from_one_process": different,
        "largest_difference_of_a_probability": largest,
        "seconds_with_start": round(seconds, 1),
    }
    write("ray_data", figures)


if __name__ == "__main__":
    main()
