"""Does the default training ever fail silently? Many seeds of one config, on sentiment.

    python benchmarks/many_seeds.py                       # resumable: seeds that are there are kept
    python benchmarks/many_seeds.py --seeds 0 2 4 6       # others may run beside it
    python benchmarks/many_seeds.py --summary             # only the figures of what is there

Each run is `fit` with the settings of `recipes/configs/sentiment.yaml`; only the seed differs: the
order of the batches and the words that the prompt starts from. A run counts as silent failure if
its accuracy on test is more than three points from the median and it neither was begun again nor
warned.
"""

import argparse
import statistics
import sys
import tempfile
import warnings

from peft import PromptTuningConfig
from record import DEMO_BASE, DEMO_NAME, RESULTS, keep_row, read_rows, write

from softhub import PromptModel, Task, fit, load_base
from softhub.config import RunConfig, parse_config
from softhub.pipeline import evaluate
from softhub.training import PromptTrainingArguments

CONFIG = "recipes/configs/sentiment.yaml"
POINTS = 0.03


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(20)))
    parser.add_argument("--steps", type=int, help="those of the config if not given")
    parser.add_argument("--test", type=int, help="a fixed subset; the whole split if not given")
    parser.add_argument("--name", default="many_seeds", help="of the files in benchmarks/results")
    parser.add_argument("--summary", action="store_true")
    return parser.parse_args()


def run(options, base, config, args, seed):
    task = Task.from_file(config.task)
    train, dev = task.load("train"), task.load("dev", limit=config.max_dev_examples)
    test = task.load("test", limit=options.test)
    peft_config = PromptTuningConfig(task_type=base.task_type, **config.prompt_options)
    splits = {"train": train, "dev": dev}
    with warnings.catch_warnings():  # they are in the result
        warnings.simplefilter("ignore")
        result = fit(base, task, peft_config, **splits, args=args, init=config.init)
    model = PromptModel(base)
    model.load_prompt(result.prompt, name="prompt")
    found = evaluate(model, task, test, prompt="prompt")
    return {
        "seed": seed,
        "steps": args.max_steps,
        "test_examples": len(test),
        "dev_losses": {int(at["step"]): at["eval_loss"] for at in result.history if _dev(at)},
        "dev_accuracies": [at["eval_accuracy"] for at in result.history if _dev(at)],
        "best_step": result.best_step,
        "restarts": result.restarts,
        "warnings": result.warnings,
        "accuracy": found.metrics["accuracy"].value,
    }


def _dev(logs):
    return "eval_loss" in logs


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
    done = {row["seed"] for row in read_rows(path)}
    base = None
    for seed in [] if options.summary else options.seeds:
        if seed in done:
            continue
        base = base or load_base(DEMO_BASE, name=DEMO_NAME)
        steps = [f"--max_steps={options.steps}"] if options.steps else []
        with tempfile.TemporaryDirectory() as folder:
            own = [f"--config={CONFIG}", f"--seed={seed}", f"--output_dir={folder}", *steps]
            config, args = parse_config(RunConfig, PromptTrainingArguments, argv=own)
            row = run(options, base, config, args, seed)
        keep_row(path, row)
        print(f"seed {seed}: {row['accuracy']:.4f}", file=sys.stderr)
    rows = sorted(read_rows(path), key=lambda row: row["seed"])
    write(options.name, {"config": CONFIG, "summary": summary(rows), "runs": rows})


if __name__ == "__main__":
    main()
