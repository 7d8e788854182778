"""Does default training ever fail silently? Many seeds of one config, on sentiment.

    python benchmarks/many_seeds.py                       # resumable: finished seeds are skipped
    python benchmarks/many_seeds.py --seeds 0 2 4 6       # other seeds can run at the same time
    python benchmarks/many_seeds.py --summary             # only summarize the finished runs
    python benchmarks/many_seeds.py --init labels --steps 60 --test 300 --name many_seeds_short

Each run is `fit` with the settings of `recipes/configs/sentiment.yaml`, unless options change them.
Only the seed differs, and with it the order of the batches and the random part of initializations.
A run is a silent failure if its test accuracy is more than three points from the median and it was
neither restarted nor raised a warning.
"""

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
    command_line,
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
    parser = command_line(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(20)))
    parser.add_argument("--init", help="initialization; default: as in the config")
    parser.add_argument("--steps", type=int, help="steps; default: as in the config")
    parser.add_argument("--test", type=int, help="test examples; default: all")
    parser.add_argument("--name", default="many_seeds", help="name of the results")
    parser.add_argument("--summary", action="store_true", help="only summarize finished runs")
    return parser.parse_args()


def run(base, task, splits, config, args):
    train, dev, test = splits
    peft_config = PromptTuningConfig(task_type=base.task_type, **config.prompt_options)
    with warnings.catch_warnings():  # the result contains them
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
    if not rows:
        sys.exit(
            f"{path} has no run of {setting}; expected some. Give the --init, --steps and --test "
            "of the runs to summarize."
        )
    write(options.name, {"config": CONFIG, **setting, "summary": summary(rows), "runs": rows})


def rows_of(path, setting):
    """Return the rows with this setting; the file may have others."""
    return [row for row in read_rows(path) if setting.items() <= row.items()]


if __name__ == "__main__":
    main()
