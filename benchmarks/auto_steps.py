"""Does `max_steps: auto` end at the right time? Against the best number of steps in hindsight.

    python benchmarks/auto_steps.py                     # resumable: finished runs are not repeated
    python benchmarks/auto_steps.py --tasks medical --seeds 0    # only a part
    python benchmarks/auto_steps.py --prompt-type prefix         # prefixes instead of prompts
    python benchmarks/auto_steps.py --summary           # only summarize the finished runs

For each task and seed there are two runs of the same prompt. The long one has a number of steps
that is larger than the task needs, and a linear decay. Its best step is the best fixed number in
hindsight: the step of its lowest dev loss, whose prompt is evaluated on test. The other run has
`max_steps="auto"`. The share of extra steps is that of auto over the best step; scores on test are
compared by a paired bootstrap over the groups of test texts, crossed with the seeds.
"""

import statistics
import sys
import tempfile

from peft import PrefixTuningConfig, PromptTuningConfig
from record import (
    DEMO_BASE,
    DEMO_NAME,
    RESULTS,
    command_line,
    cpu_seconds,
    dev_losses,
    keep_row,
    read_rows,
    write,
)

from softhub import PromptModel, Task, fit, load_base
from softhub.evaluation.evaluate import evaluate, leading_metric, references_of
from softhub.metrics.intervals import Resamples
from softhub.training import PromptTrainingArguments

TASKS = {  # task file, virtual tokens, steps of the long run, test examples
    "sentiment": ("recipes/tasks/sentiment.yaml", 20, 360, 714),
    "medical": ("recipes/tasks/medical_organ.yaml", 50, 720, None),
    "translation": ("recipes/tasks/translation.yaml", 20, 480, 80),
}
CONFIGS = {"prompt": PromptTuningConfig, "prefix": PrefixTuningConfig}
DEV = {"sentiment": 200, "medical": 200, "translation": 80}
MOST_EXTRA = 0.1  # share of extra steps that the bar allows


def parse():
    parser = command_line(__doc__)
    parser.add_argument("--tasks", choices=TASKS, nargs="+", default=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--prompt-type", choices=CONFIGS, default="prompt")
    parser.add_argument("--long", type=int, help="steps of the long run; default: by task")
    parser.add_argument("--test", type=int, help="test examples; default: by task")
    parser.add_argument("--every", type=int, default=20, help="steps between evaluations on dev")
    parser.add_argument("--base", default=DEMO_BASE)
    parser.add_argument("--name", default="auto_steps", help="name of the results")
    parser.add_argument("--summary", action="store_true", help="only summarize finished runs")
    return parser.parse_args()


class Bench:
    """One task, prepared for both runs."""

    def __init__(self, options, name):
        path, self.tokens, self.long, test = TASKS[name]
        self.long, self.test_size = options.long or self.long, options.test or test
        self.name, self.options, self.task = name, options, Task.from_file(path)

    @property
    def test(self):
        return self.task.load("test", limit=self.test_size)

    def setting(self, kind, seed):
        """What identifies a row."""
        steps = "auto" if kind == "auto" else self.long
        prompt = f"{self.options.prompt_type}, P = {self.tokens}"
        return {
            "task": self.name,
            "prompt": prompt,
            "kind": kind,
            "seed": seed,
            "max_steps": steps,
            "test_texts": self.test_size,
        }

    def run(self, base, kind, seed):
        config = CONFIGS[self.options.prompt_type](
            task_type=base.task_type, num_virtual_tokens=self.tokens
        )
        data = {"train": self.task.load("train")}
        data["dev"] = self.task.load("dev", limit=DEV[self.name])
        setting = self.setting(kind, seed)
        with tempfile.TemporaryDirectory() as folder:
            args = PromptTrainingArguments(
                output_dir=folder,
                max_steps=setting["max_steps"],
                eval_steps=self.options.every,
                save_steps=self.options.every,
                seed=seed,
                disable_tqdm=True,
            )
            before = cpu_seconds()
            result = fit(base, self.task, config, data, args=args, init="task")
        model = PromptModel(base)
        model.load_prompt(result.prompt, name="prompt")
        found = evaluate(model, self.task, self.test, prompt="prompt")
        return {
            **setting,
            "steps": result.steps,
            "best_step": result.best_step,
            "ended": result.ended,
            "restarts": result.restarts,
            "dev_losses": dev_losses(result),
            "cpu_seconds": cpu_seconds() - before,
            "score": {name: interval.value for name, interval in found.metrics.items()},
            "predictions": list(found.predictions),
        }


def first_as_good(row, margin=0.01):
    """Return the first step whose dev loss is nearly the lowest of the run."""
    losses = {int(step): loss for step, loss in row["dev_losses"].items()}
    most = (1 + margin) * min(losses.values())
    return min(step for step, loss in losses.items() if loss <= most)


def summary(bench, rows):
    """Return the figures of one task over the seeds that have both runs."""
    pairs = []
    for seed in bench.options.seeds:
        both = [
            next((r for r in rows if bench.setting(kind, seed).items() <= r.items()), None)
            for kind in ("long", "auto")
        ]
        pairs += [both] if all(both) else []
    if not pairs:
        return {"seeds": []}
    metric, test = leading_metric(bench.task).name, bench.test
    references = references_of(bench.task, test)
    resamples = Resamples(len(test), [example.group for example in test])
    long, auto = (
        resamples.score([pair[side]["predictions"] for pair in pairs], references, metric)
        for side in (0, 1)
    )
    extra = [auto["steps"] / long["best_step"] - 1 for long, auto in pairs]
    best = [min(pair[0]["dev_losses"].values()) for pair in pairs]
    return {
        "seeds": [pair[0]["seed"] for pair in pairs],
        "metric": metric,
        "best_step_in_hindsight": [long["best_step"] for long, _ in pairs],
        "first_step_within_1_percent_of_it": [first_as_good(long) for long, _ in pairs],
        "auto_steps": [auto["steps"] for _, auto in pairs],
        "share_of_extra_steps": extra,
        "mean_share_of_extra_steps": statistics.fmean(extra),
        "within_the_allowed_share": statistics.fmean(extra) <= MOST_EXTRA,
        "auto_best_dev_loss": [min(auto["dev_losses"].values()) for _, auto in pairs],
        "long_best_dev_loss": best,
        "ended": [auto["ended"] for _, auto in pairs],
        "long_score": list(long.interval()),
        "auto_score": list(auto.interval()),
        "auto_minus_long": list((auto - long).interval()),
    }


def main():
    options = parse()
    path = RESULTS / f"{options.name}.jsonl"
    base = None
    for name in [] if options.summary else options.tasks:
        bench = Bench(options, name)
        for seed in options.seeds:
            for kind in ("auto", "long"):
                wanted = bench.setting(kind, seed)
                if any(wanted.items() <= row.items() for row in read_rows(path)):
                    continue
                base = base or load_base(
                    options.base, name=DEMO_NAME if options.base == DEMO_BASE else None
                )
                row = bench.run(base, kind, seed)
                keep_row(path, row)
                print(f"{wanted}: {row['steps']} steps, best {row['best_step']}", file=sys.stderr)
    rows = read_rows(path)
    figures = {name: summary(Bench(options, name), rows) for name in options.tasks}
    write(options.name, {"prompt_type": options.prompt_type, "tasks": figures})


if __name__ == "__main__":
    main()
