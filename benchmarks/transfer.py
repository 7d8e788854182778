"""Does a prompt that was trained on several tasks help with a new one? Steps and scores.

    accelerate launch recipes/multitask.py --shared-steps 240 --output-dir runs/multitask-shared
    python benchmarks/transfer.py            # resumable: finished runs are not repeated
    python benchmarks/transfer.py --summary  # only summarize the finished runs

The new task is Spanish to English from few examples, on the demo base model; the related task
French to English is among those of the shared prompt. It is trained with three seeds from words of
its own texts, from the shared prompt, and from the prompts of the tasks that were trained from the
shared prompt. For another new task: --task recipes/tasks/medical_terms.yaml --name
transfer_medical.

The speed of an initialization is the first step at which its dev loss is no higher than the best
that the same seed reaches from words. Differences of scores are paired over the same test texts;
intervals are from a bootstrap over groups, crossed with the seeds.
"""

import sys
import tempfile
from pathlib import Path

from peft import PromptTuningConfig
from record import (
    DEMO_BASE,
    DEMO_NAME,
    RESULTS,
    command_line,
    dev_losses,
    keep_row,
    read_rows,
    write,
)

from softhub import PromptModel, SoftPrompt, Task, fit, load_base
from softhub.evaluation.evaluate import evaluate
from softhub.metrics.intervals import Resamples
from softhub.training import PromptTrainingArguments

SCRATCH = "words of its texts"


def parse():
    parser = command_line(__doc__)
    parser.add_argument("--task", default="recipes/tasks/translation_small.yaml")
    parser.add_argument("--prompts", type=Path, default=Path("runs/multitask-shared"))
    parser.add_argument("--base", default=DEMO_BASE)
    parser.add_argument("--train", type=int, default=64, help="training examples")
    parser.add_argument("--dev", type=int, default=60)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--every", type=int, default=10, help="steps between evaluations on dev")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--name", default="transfer", help="name of the results")
    parser.add_argument("--summary", action="store_true", help="only summarize finished runs")
    return parser.parse_args()


def starts(folder):
    """Return the prompts that recipes/multitask.py saved in a folder, by name."""
    found = sorted(path.parent for path in folder.glob("*/adapter/softhub.json"))
    if not found:
        sys.exit(f"No prompts in {folder}: run recipes/multitask.py with --shared-steps first.")
    return {adapter.parent.name: SoftPrompt.from_pretrained(adapter) for adapter in found}


def run(options, base, task, splits, start, seed):
    train, dev, test = splits
    with tempfile.TemporaryDirectory() as folder:
        args = PromptTrainingArguments(
            output_dir=folder,
            max_steps=options.steps,
            eval_steps=options.every,
            save_steps=options.every,
            eval_on_start=True,
            seed=seed,
            disable_tqdm=True,
        )
        tokens = start.num_virtual_tokens if isinstance(start, SoftPrompt) else options.tokens
        config = PromptTuningConfig(task_type=base.task_type, num_virtual_tokens=tokens)
        result = fit(base, task, config, {"train": train, "dev": dev}, args=args, init=start)
    model = PromptModel(base)
    model.load_prompt(result.prompt, name="prompt")
    evaluation = evaluate(model, task, test, prompt="prompt")
    return {
        "dev_losses": dev_losses(result),
        "best_step": result.best_step,
        "train_seconds": result.seconds,
        "metrics": {name: interval.value for name, interval in evaluation.metrics.items()},
        "predictions": list(evaluation.predictions),
    }


def train_all(options, task, splits, path):
    base = load_base(options.base, name=DEMO_NAME if options.base == DEMO_BASE else None)
    prompts = starts(options.prompts)
    options.tokens = next(iter(prompts.values())).num_virtual_tokens
    done = {(row["start"], row["seed"]) for row in read_rows(path)}
    for seed in options.seeds:
        for name, start in {SCRATCH: "vocabulary", **prompts}.items():
            if (name, seed) in done:
                continue
            row = {"start": name, "seed": seed}
            row |= run(options, base, task, splits, start, seed)
            keep_row(path, row)
            print(f"{name}, seed {seed}: {row['metrics']}", file=sys.stderr)


def steps_to(losses, loss):
    """Return the first step at which the dev loss is no higher; None if it never is."""
    return next((int(step) for step, found in losses.items() if found <= loss), None)


def summary(task, test, rows):
    metric = task.metrics[0]
    references = [example.target for example in test]
    resamples = Resamples(len(test), [example.group for example in test])
    by_start = {}
    for row in rows:
        by_start.setdefault(row["start"], {})[row["seed"]] = row
    scratch = by_start[SCRATCH]
    scores, figures = {}, {}
    for name, seeds in by_start.items():
        runs = [seeds[seed]["predictions"] for seed in sorted(seeds)]
        scores[name] = resamples.score(runs, references, metric)
        best = {seed: min(scratch[seed]["dev_losses"].values()) for seed in seeds}
        figures[name] = {
            "seeds": sorted(seeds),
            metric: list(scores[name].interval()),
            f"{metric} minus from scratch": list((scores[name] - scores[SCRATCH]).interval()),
            "dev loss before training": [s["dev_losses"]["0"] for s in seeds.values()],
            "best dev loss": [min(s["dev_losses"].values()) for s in seeds.values()],
            "steps to the best dev loss from scratch": [
                steps_to(s["dev_losses"], best[seed]) for seed, s in seeds.items()
            ],
        }
    return figures


def main():
    options = parse()
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{options.name}.jsonl"
    task = Task.from_file(options.task)
    limits = {"train": options.train, "dev": options.dev, "test": options.test}
    splits = [task.load(split, limit=limit) for split, limit in limits.items()]
    if not options.summary:
        train_all(options, task, splits, path)
    rows = read_rows(path)
    kept = [{key: row[key] for key in row if key != "predictions"} for row in rows]
    figures = {"task": task.name, "examples": dict(zip(limits, map(len, splits), strict=True))}
    figures |= {"steps": options.steps, "starts": summary(task, splits[2], rows), "runs": kept}
    write(options.name, figures)


if __name__ == "__main__":
    main()
