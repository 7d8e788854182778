"""Does a soft prompt learn more from a fine-tuned model than from the labels?

    python benchmarks/fine_tuned_teacher.py            # resumable: finished runs are not repeated
    python benchmarks/fine_tuned_teacher.py --summary  # only summarize the finished runs

For each seed, all weights are fine-tuned as in `recipes/compare.py` with its medical config. The
fine-tuned model classifies every training text, and a soft prompt is distilled from its answers,
with the steps, learning rate and length that the same config gives to a prompt trained on the
labels. The scores of that prompt and of the fine-tuned model are among the rows of the comparison,
seed by seed.
"""

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import yaml
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

from softhub import PromptModel, Task, load_base
from softhub.evaluation.evaluate import evaluate
from softhub.experiments.comparison.fine_tuning import fit_weights
from softhub.experiments.distillation import ModelTeacher, distill
from softhub.metrics.intervals import Resamples
from softhub.tasks import Splits
from softhub.training import PromptTrainingArguments

CONFIG = "recipes/configs/compare_medical.yaml"
TASK = "recipes/tasks/medical_organ.yaml"
ROWS = RESULTS / "fine_tuned_teacher.jsonl"
COMPARED = RESULTS / "compare-medical" / "rows.jsonl"
RIVALS = ("soft prompt", "full fine-tuning")


def parse():
    parser = command_line(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--summary", action="store_true", help="only summarize finished runs")
    return parser.parse_args()


def arguments(config, folder, seed):
    keys = ("max_steps", "eval_steps", "save_steps", "learning_rate")
    chosen = {key: config[key] for key in keys}
    return PromptTrainingArguments(output_dir=folder, seed=seed, disable_tqdm=True, **chosen)


def fine_tuned(task, train, dev, args, rate):
    """Return a teacher whose weights were fine-tuned on the labels."""
    base = load_base(DEMO_BASE, name=DEMO_NAME)
    args = replace(args, learning_rate=rate, save_strategy="no", load_best_model_at_end=False)
    fit_weights(base, task, Splits(train, dev, []), args=args)
    base.model.requires_grad_(False)
    return ModelTeacher(PromptModel(base), task, source={"from": "fine-tuned model"})


def run(config, task, splits, seed):
    train, dev, test = splits
    base = load_base(DEMO_BASE, name=DEMO_NAME)
    tokens = config["virtual_tokens"][0]
    peft_config = PromptTuningConfig(task_type=base.task_type, num_virtual_tokens=tokens)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        args = arguments(config, folder, seed)
        teacher = fine_tuned(task, train, dev, args, float(config["fine_tuning_rate"]))
        teacher.classify([*train, *dev])
        teaching = time.perf_counter() - start
        data = Splits(train, dev, [])
        result = distill(
            base, task, peft_config, data, teacher=teacher, args=args, init=config["init"]
        )
    model = PromptModel(base)
    model.load_prompt(result.prompt, name="student")
    found = evaluate(model, task, test, prompt="student")
    said = teacher.classify(train)
    right = sum(one.best == example.label for one, example in zip(said, train, strict=True))
    return {
        "seed": seed,
        "steps": result.steps,
        "best_step": result.best_step,
        "divergence on dev": dev_losses(result),
        "teacher's accuracy on train": right / len(train),
        "seconds": {"teacher": teaching, "student": result.seconds},
        "metrics": {name: interval.value for name, interval in found.metrics.items()},
        "predictions": list(found.predictions),
    }


def summary(test, rows):
    """Return the scores of the student and its rivals for equal seeds, and paired differences."""
    references = [example.label for example in test]
    resamples = Resamples(len(test), [example.group for example in test])
    student = {row["seed"]: row["predictions"] for row in rows}
    figures = {"student": resamples.score(list(student.values()), references, "accuracy")}
    for rival in RIVALS:
        runs = {row["seed"]: row["predictions"] for row in compared(rival)}
        seeds = sorted(set(student) & set(runs))
        if seeds:
            theirs = resamples.score([runs[seed] for seed in seeds], references, "accuracy")
            mine = resamples.score([student[seed] for seed in seeds], references, "accuracy")
            figures[rival], figures[f"student minus {rival}"] = theirs, mine - theirs
    return {name: list(score.interval()) for name, score in figures.items()}


def compared(method):
    return [row for row in read_rows(COMPARED) if row["method"] == method]


def main():
    options = parse()
    config = yaml.safe_load(Path(CONFIG).read_text())
    task = Task.from_file(TASK)
    train, test = task.load("train"), task.load("test")
    splits = (train, task.load("dev", limit=config["max_dev_examples"]), test)
    done = {row["seed"] for row in read_rows(ROWS)}
    for seed in [] if options.summary else options.seeds:
        if seed not in done:
            row = run(config, task, splits, seed)
            keep_row(ROWS, row)
            print(f"seed {seed}: {row['metrics']}", file=sys.stderr)
    rows = read_rows(ROWS)
    kept = [{key: row[key] for key in row if key != "predictions"} for row in rows]
    scores = summary(test, rows)
    write("fine_tuned_teacher", {"base": DEMO_NAME, "accuracy": scores, "runs": kept})


if __name__ == "__main__":
    main()
