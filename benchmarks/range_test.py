"""Which learning rate does a range test choose, and which does the default rule?

    python benchmarks/range_test.py                  # resumable: finished tests are not repeated
    python benchmarks/range_test.py --case medical   # one of the cases

A case is a task and a base model, with the prompt's length and initialization. The figures are the
learning rate that `--learning-rate-rule auto` would use, the scaled rate (the default), and every
step of the test.
"""

import sys
import tempfile
from dataclasses import asdict

from peft import PromptTuningConfig
from record import (
    DEMO_BASE,
    DEMO_NAME,
    RESULTS,
    command_line,
    cpu_seconds,
    keep_row,
    read_rows,
    write,
)
from transformers import set_seed

from softhub import Task, load_base
from softhub.training import PromptTrainingArguments
from softhub.training.encoded_task import encode_task
from softhub.training.initialization import choose_initialization
from softhub.training.learning_rate import embedding_scale, scaled_rate
from softhub.training.lr_finder import range_test

DEMO_T5 = "recipes/data/files/flan-t5-small-title"
CASES = {  # task file, base, its name, virtual tokens, init
    "sentiment": ("recipes/tasks/sentiment.yaml", DEMO_BASE, DEMO_NAME, 20, "labels"),
    "medical": ("recipes/tasks/medical_organ.yaml", DEMO_BASE, DEMO_NAME, 50, "labels"),
    "translation": ("recipes/tasks/translation.yaml", DEMO_BASE, DEMO_NAME, 20, "vocabulary"),
    "translation, T5": ("recipes/tasks/translation_t5.yaml", DEMO_T5, None, 20, "vocabulary"),
}


def parse():
    parser = command_line(__doc__)
    parser.add_argument("--case", choices=CASES, nargs="+", default=list(CASES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    return parser.parse_args()


def run(case, seed):
    path, base, name, tokens, init = CASES[case]
    base, task = load_base(base, name=name), Task.from_file(path)
    set_seed(seed)
    dev = task.load("dev", limit=8)  # not used by the range test
    encoded = encode_task(base, task, task.load("train"), dev, virtual_tokens=tokens)
    config = PromptTuningConfig(task_type=base.task_type, num_virtual_tokens=tokens)
    start = choose_initialization(base, config, [encoded], init, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        args = PromptTrainingArguments(output_dir=folder, seed=seed, disable_tqdm=True)
        before = cpu_seconds()
        test = range_test(base, encoded, start.vectors, args)
        cost = cpu_seconds() - before
    return {
        "case": case,
        "seed": seed,
        "chosen": test.chosen,
        "scaled": scaled_rate(base),
        "embedding_rms": embedding_scale(base),
        "cpu_seconds": cost,
        "test": asdict(test),
    }


def main():
    options = parse()
    path = RESULTS / "range_test.jsonl"
    done = {(row["case"], row["seed"]) for row in read_rows(path)}
    for case in options.case:
        for seed in options.seeds:
            if (case, seed) not in done:
                row = run(case, seed)
                keep_row(path, row)
                print(f"{case}, seed {seed}: {row['chosen']:.3g}", file=sys.stderr)
    write("range_test", {"runs": read_rows(path)})


if __name__ == "__main__":
    main()
