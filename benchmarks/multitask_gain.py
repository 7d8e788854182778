"""Are the prompts of the multi-task recipe better than the best hard prompt, over all seeds?

    accelerate launch recipes/multitask.py --seed 0 --output-dir runs/multitask-seed0   # and 1, 2
    python benchmarks/multitask_gain.py runs/multitask-seed0 runs/multitask-seed1 …     # resumable
    python benchmarks/multitask_gain.py --summary

The report of each run names the hard prompt that was best on dev. This hard prompt and the adapters
of the run answer the same test texts again. Differences are paired over the texts; intervals are
from a bootstrap over groups, crossed with the seeds.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from record import DEMO_BASE, DEMO_NAME, RESULTS, command_line, keep_row, read_rows, write

from softhub import PromptModel, SoftPrompt, Task, load_base
from softhub.evaluation.evaluate import evaluate
from softhub.metrics import find_metric
from softhub.metrics.intervals import Resamples
from softhub.tasks import Template

TASKS = ("translation", "summarization", "code")
HARD = "best zero-shot prompt"
NAME = "multitask_gain"


def parse():
    parser = command_line(__doc__)
    parser.add_argument("runs", nargs="*", type=Path, help="output folders of the seeds")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--test", type=int, default=150)
    parser.add_argument("--base", default=DEMO_BASE)
    parser.add_argument("--summary", action="store_true", help="only summarize finished runs")
    return parser.parse_args()


def load_task(name):
    return Task.from_file(f"recipes/tasks/{name}.yaml")


def answer(model, name, folder, limit):
    """Yield the rows to evaluate, a run's prompt and its hard prompt, each with its evaluation."""
    task = load_task(name)
    test = task.load("test", limit=limit)
    report = json.loads((folder / name / "report.json").read_text())
    prompt = SoftPrompt.from_pretrained(folder / name / "adapter")
    seed = prompt.manifest.provenance["seed"]
    yield (
        {"task": name, "way": "soft prompt", "seed": seed},
        lambda: evaluate(
            model, task, test, prompt=model.load_prompt(prompt, name=f"{name} {seed}")
        ),
    )
    template = report["hard_prompts"][0]["template"]["text"]
    yield (
        {"task": name, "way": HARD, "template": template},
        lambda: evaluate(model, replace(task, template=Template(template)), test),
    )


def answer_all(options, path):
    model = PromptModel(load_base(options.base, name=DEMO_NAME))
    for name in options.tasks:
        for folder in options.runs:
            for row, run in answer(model, name, folder, options.test):
                done = [{key: old.get(key) for key in row} for old in read_rows(path)]
                if row not in done:
                    found = run()
                    judged = {"answers": found.predictions, "code": found.programs}
                    keep_row(path, {**row, "judged": judged})
                    print(row, found.metrics, file=sys.stderr)


def summary(name, rows, limit):
    """Return the scores and differences of a task for each metric."""
    task = load_task(name)
    test = task.load("test", limit=limit)
    references = [example.target for example in test]
    resamples = Resamples(len(test), [example.group for example in test])
    ways = {way: [row for row in rows if row["way"] == way] for way in (HARD, "soft prompt")}
    figures = {"seeds": [row["seed"] for row in ways["soft prompt"]], "test_texts": len(test)}
    for metric in task.metrics:
        kind = find_metric(metric).input_kind
        scores = {
            way: resamples.score([row["judged"][kind] for row in of_way], references, metric)
            for way, of_way in ways.items()
        }
        figures[metric] = {way: list(score.interval()) for way, score in scores.items()}
        gain = scores["soft prompt"] - scores[HARD]
        figures[metric]["soft prompt minus hard prompt"] = list(gain.interval())
    return figures


def main():
    options = parse()
    path = RESULTS / f"{NAME}.jsonl"
    if not options.summary:
        answer_all(options, path)
    rows = read_rows(path)
    there = [name for name in TASKS if any(row["task"] == name for row in rows)]
    write(
        NAME,
        {
            name: summary(name, [row for row in rows if row["task"] == name], options.test)
            for name in there
        },
    )


if __name__ == "__main__":
    main()
