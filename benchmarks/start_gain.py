"""What does the initialization `task` gain, and how far is it from trained weights?

    python benchmarks/start_gain.py     # reads committed rows and runs nothing

The medical task, 50 virtual tokens, 240 steps of 8 examples, all test definitions. Prompts that are
initialized from `task` are softhub's runs of against_peft.py; those that are initialized from
`labels`, full fine-tuning and LoRA are rows of the comparison (comparisons.py). Differences are
paired over the definitions; intervals are from a bootstrap over subtrees of the ontology, crossed
with the seeds.
"""

from record import RESULTS, command_line, read_rows, write

from softhub import Task
from softhub.metrics.intervals import Resamples

TASK = "recipes/tasks/medical_organ.yaml"
OURS = "soft prompt, P = 50, init task"
OTHERS = {
    "soft prompt, P = 50, init labels": ("soft prompt", "P = 50"),
    "full fine-tuning": ("full fine-tuning", ""),
    "LoRA, rank 8": ("LoRA", "rank 8"),
}


def runs_of(labels):
    """Return the answers of each method, by seed."""
    ours = {
        row["seed"]: [labels[index] for index in row["predictions"]]
        for row in read_rows(RESULTS / "against-peft" / "medical.jsonl")
        if row["side"] == "softhub" and (row["init"], row["steps"]) == ("task", 240)
    }
    compared = read_rows(RESULTS / "compare-medical" / "rows.jsonl")
    return {OURS: ours} | {
        name: {
            row["seed"]: row["predictions"]
            for row in compared
            if (row["method"], row["setting"]) == key
        }
        for name, key in OTHERS.items()
    }


def main():
    command_line(__doc__).parse_args()
    task = Task.from_file(TASK)
    test = task.load("test")
    references = [example.label for example in test]
    resamples = Resamples(len(test), [example.group for example in test])
    figures, scores = {"test_texts": len(test)}, {}
    for name, runs in runs_of(task.verbalizer.labels).items():
        scores[name] = resamples.score([*runs.values()], references, "accuracy")
        by_seed = {
            seed: sum(a == b for a, b in zip(answers, references, strict=True)) / len(test)
            for seed, answers in sorted(runs.items())
        }
        figures[name] = {"accuracy": list(scores[name].interval()), "by_seed": by_seed}
    for name in OTHERS:
        gain = scores[OURS] - scores[name]
        figures[f"{OURS} minus {name}"] = list(gain.interval())
    write("start_gain", figures)


if __name__ == "__main__":
    main()
