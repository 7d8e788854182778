"""Which initialization, optimizer and learning rate train a soft prompt best? Successive halving.

    python benchmarks/bake_off.py                    # resumable: finished runs are not repeated
    python benchmarks/bake_off.py --task medical     # one task; others can run at the same time
    python benchmarks/bake_off.py --finalists "none labels 0.01" "none labels 0.005 adafactor"
    python benchmarks/bake_off.py --summary          # only summarize the finished runs

A variant is an initialization, an optimizer with its learning rate schedule, and a learning rate.
All variants are trained for a few steps of 8 examples on the demo base model. The best of them are
trained for twice as many steps, from scratch, so that each run decays its learning rate to the end;
those of the last rung are trained with three seeds. `--finalists` starts at the last rung with the
variants that are named, where there is no time for all rungs. Variants are compared by their lowest
dev loss, by which training also selects checkpoints.
"""

import re
import statistics
import sys
import tempfile
from dataclasses import dataclass, replace

from peft import PromptTuningConfig
from record import (
    DEMO_BASE,
    DEMO_NAME,
    RESULTS,
    command_line,
    cpu_seconds,
    dev_accuracies,
    dev_losses,
    keep_row,
    read_rows,
    write,
)

from softhub import Task, fit, load_base
from softhub.training import PromptTrainingArguments

TASKS = {
    "sentiment": ("recipes/tasks/sentiment.yaml", 20),
    "medical": ("recipes/tasks/medical_organ.yaml", 50),
    "translation": ("recipes/tasks/translation.yaml", 20),
}
DEV = 200


@dataclass(frozen=True)
class Way:
    """One variant of training."""

    init: str = "labels"
    rate: float = 0.01
    optim: str = "adamw_torch"
    decay: str = "linear"

    @property
    def name(self):
        # "none" means no reparameterization; the results also have rows of four that were removed.
        parts = ["none", self.init, f"{self.rate:g}", self.optim, self.decay]
        return " ".join(part for part in parts if part not in ("adamw_torch", "linear"))


PLAIN = Way()
ADAFACTOR = Way(optim="adafactor")
WAYS = [
    PLAIN,
    ADAFACTOR,
    replace(ADAFACTOR, rate=0.005),
    replace(ADAFACTOR, rate=0.0025),
    replace(ADAFACTOR, rate=0.02),
    replace(PLAIN, decay="cosine"),
    replace(PLAIN, rate=0.003),
    replace(PLAIN, rate=0.03),
    replace(PLAIN, init="vocabulary"),
    replace(PLAIN, init="text"),
]

RUNGS = ((40, len(WAYS), 1), (80, 4, 1), (160, 2, 3))  # steps, number of variants, seeds


def parse():
    parser = command_line(__doc__)
    parser.add_argument("--task", choices=TASKS, nargs="+", default=list(TASKS))
    parser.add_argument("--base", default=DEMO_BASE)
    parser.add_argument("--ways", type=int, default=len(WAYS), help="use only the first N variants")
    names = [way.name for way in WAYS]
    parser.add_argument("--finalists", nargs="+", choices=names, metavar="WAY")
    parser.add_argument("--summary", action="store_true", help="only summarize finished runs")
    return parser.parse_args()


class Bench:
    """One task, prepared for training."""

    def __init__(self, name, base):
        path, self.tokens = TASKS[name]
        self.base, self.task = base, Task.from_file(path)
        self.train, self.dev = self.task.load("train"), self.task.load("dev", limit=DEV)

    def run(self, way, steps, seed):
        text = re.sub(r"\{\w+\}", "", self.task.hard_templates[-1].text)
        init = "vocabulary" if (way.init, self.task.kind) == ("labels", "generation") else way.init
        config = PromptTuningConfig(
            task_type=self.base.task_type,
            num_virtual_tokens=self.tokens,
            prompt_tuning_init_text=text,
        )
        with tempfile.TemporaryDirectory() as folder:
            args = PromptTrainingArguments(
                output_dir=folder,
                max_steps=steps,
                eval_steps=steps // 2,
                save_steps=steps // 2,
                learning_rate=way.rate,
                optim=way.optim,
                lr_scheduler_type=way.decay,
                seed=seed,
                disable_tqdm=True,
            )
            before = cpu_seconds()
            data = {"train": self.train, "dev": self.dev}
            result = fit(self.base, self.task, config, data, args=args, init=init)
        cost, losses = cpu_seconds() - before, dev_losses(result)
        return {
            "dev_losses": losses,
            "dev_accuracies": dev_accuracies(result),
            "best": min(losses.values()),
            "cpu_seconds": cost,
        }


def standing(rows, steps):
    """Return the variants of this many steps with their mean lowest dev loss, best first."""
    losses = {}
    for row in rows:
        if row["steps"] == steps:
            losses.setdefault(row["way"], []).append(row["best"])
    means = {way: statistics.fmean(values) for way, values in losses.items()}
    return sorted(means.items(), key=lambda item: item[1])


def train_all(name, base, ways, rungs, path):
    bench = Bench(name, base)
    for steps, taking_part, seeds in rungs:
        done = {(row["way"], row["steps"], row["seed"]) for row in read_rows(path)}
        for seed in range(seeds):
            for way in ways[:taking_part]:
                if (way.name, steps, seed) in done:
                    continue
                row = {"way": way.name, "steps": steps, "seed": seed}
                row |= bench.run(way, steps, seed)
                keep_row(path, row)
                print(f"{name}: {way.name}, {steps} steps: {row['best']:.4f}", file=sys.stderr)
        order = [way for way, _ in standing(read_rows(path), steps)]
        ways = sorted(ways[:taking_part], key=lambda way: order.index(way.name))


def main():
    options = parse()
    RESULTS.mkdir(exist_ok=True)
    paths = {name: RESULTS / "bake-off" / f"{name}.jsonl" for name in TASKS}
    paths["sentiment"].parent.mkdir(exist_ok=True)
    if not options.summary:
        base = load_base(options.base, name=DEMO_NAME if options.base == DEMO_BASE else None)
        ways, rungs = WAYS[: options.ways], RUNGS
        if options.finalists:
            ways, rungs = [way for way in WAYS if way.name in options.finalists], RUNGS[-1:]
        for name in options.task:
            train_all(name, base, ways, rungs, paths[name])
    figures = {"examples_per_step": 8, "dev_examples": DEV}
    for name, path in paths.items():
        rows = read_rows(path)
        figures[name] = {
            "virtual_tokens": TASKS[name][1],
            "standing": {str(steps): standing(rows, steps) for steps, _, _ in RUNGS},
            "runs": rows,
        }
    write("bake_off", figures)


if __name__ == "__main__":
    main()
