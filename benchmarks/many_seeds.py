"""Does the default training ever fail silently? Many seeds of one config, on sentiment.

    python benchmarks/many_seeds.py                       # resumable: seeds that are there are kept
    python benchmarks/many_seeds.py --seeds 0 2 4 6       # others may run beside it
    python benchmarks/many_seeds.py --summary             # only the figures of what is there
    python benchmarks/many_seeds.py --init labels --steps 60 --test 300 --name many_seeds_short

Each run is `fit` with the settings of `recipes/configs/sentiment.yaml`, but for what is asked for;
only the seed differs: the order of the batches, and what is drawn for starts. A run counts as
silent failure if its accuracy on test is more than three points from the median and it neither was
begun again nor warned.
"""

import argparse
import statistics
import sys
import tempfile
import warnings
from dataclasses import replace

from peft import PromptTuningConfig
from record import (
    DEMO_BASE,
    DEMO_NAME,
    RESULTS,
    dev_accuracies,
    dev_losses,
    keep_row,
    read_rows,
    write,
)

from softhub import PromptModel, Task, fit, load_base
from softhub.config import parse_config
from softhub.evaluation.evaluate import evaluate
from softhub.experiments import RunConfig
from softhub.training import PromptTrainingArguments

CONFIG = "recipes/configs/sentiment.yaml"
POINTS = 0.03


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(20)))
    parser.add_argument("--init", help="the start of every run; that of the config if not given")
    parser.add_argument("--steps", type=int, help="those of the config if not given")
    parser.add_argument("--test", type=int, help="a fixed subset; the whole split if not given")
    parser.add_argument("--name", default="many_seeds", help="of the files in benchmarks/results")
    parser.add_argument("--summary", action="store_true")
    return parser.parse_args()


def run(base, task, splits, config, args):
    train, dev, test = splits
    peft_config = PromptTuningConfig(task_type=base.task_type, **config.prompt_options)
    with warnings.catch_warnings():  # they are in the result
        warnings.simplefilter("ignore")
        result = fit(
            base, task, peft_config, {"train": train, "dev": dev}, args=args, init=config.init
        )
    model = PromptModel(base)
    model.load_prompt(result.prompt, name="prompt")
    found = evaluate(model, task, test, prompt="prompt")
    return {
        "started_from": result.prompt.manifest.provenance["init"],
        "dev_losses": dev_losses(result),
        "dev_accuracies": dev_accuracies(result),
        "best_step": result.best_step,
        "restarts": result.restarts,
        "warnings": result.warnings,
        "accuracy": found.metrics["accuracy"].value,
    }


def summary(rows):
    scores = [row["accuracy"] for row in rows]
    median = statistics.median(scores)
    far = [row for row in rows if abs(row["accuracy"] - median) > POINTS]
    return {
        "seeds": len(rows),
        "median": median,
        "lowest": min(scores),
        "highest": max(scores),
        "standard_deviation": statistics.stdev(scores) if len(scores) > 1 else None,
        "begun_again": sum(bool(row["restarts"]) for row in rows),
        "more_than_three_points_from_the_median": [row["seed"] for row in far],
        "silent_failures": [row["seed"] for row in far if not (row["restarts"] or row["warnings"])],
    }


def main():
    options = parse()
    path = RESULTS / f"{options.name}.jsonl"
    asked = {"max_steps": options.steps, "init": options.init}
    flags = [f"--{key}={value}" for key, value in asked.items() if value]
    config, args = parse_config(
        RunConfig, PromptTrainingArguments, argv=[f"--config={CONFIG}", *flags]
    )
    task = Task.from_file(config.task)
    limits = {"train": None, "dev": config.max_dev_examples, "test": options.test}
    splits = [task.load(split, limit=limit) for split, limit in limits.items()]
    setting = {"init": config.init, "steps": args.max_steps, "test_examples": len(splits[2])}
    done = {row["seed"] for row in rows_of(path, setting)}
    wanted = [] if options.summary else [seed for seed in options.seeds if seed not in done]
    base = load_base(DEMO_BASE, name=DEMO_NAME) if wanted else None
    for seed in wanted:
        with tempfile.TemporaryDirectory() as folder:
            own = replace(args, seed=seed, output_dir=folder)
            row = {"seed": seed, **setting, **run(base, task, splits, config, own)}
        keep_row(path, row)
        print(f"seed {seed}: {row['accuracy']:.4f}", file=sys.stderr)
    rows = sorted(rows_of(path, setting), key=lambda row: row["seed"])
    write(options.name, {"config": CONFIG, **setting, "summary": summary(rows), "runs": rows})


def rows_of(path, setting):
    """Rows of this start, these steps and test examples; the file may hold others."""
    return [row for row in read_rows(path) if setting.items() <= row.items()]


if __name__ == "__main__":
    main()
