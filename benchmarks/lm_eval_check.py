"""Does lm-evaluation-harness score a prompt as softhub does? A comparison text by text.

    python -m venv build/lm-eval          # a separate environment: it installs many packages
    build/lm-eval/bin/pip install -c constraints.txt -e '.[demo,lm-eval]'
    python benchmarks/lm_eval_check.py --limit 150 \\
        --task recipes/tasks/sentiment.yaml --adapter runs/compare-sentiment/adapters/p20-seed0

`--task` and `--adapter` take several values, in pairs. Each is converted to a task of the harness
(`multiple_choice`: the rendered template, followed by the label words) with the texts as a local
JSONL file. The harness runs twice: its own class loads the stock base model and the adapter
(`pretrained=…,peft=…`) and takes one row at a time; softhub's takes batches (`--batch-size`). It
never contacts the Hugging Face Hub. It does not support labels with several
words: each word is a choice there, and a label's score is the logsumexp over its words, computed
here from the samples that the harness logs. Its own accuracy, by the best single word, is recorded
as well.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from record import DEMO_BASE, DEMO_NAME, command_line, write

from softhub import PromptModel, Task, load_base
from softhub.evaluation.evaluate import evaluate

NAME = "softhub_check"
PACKAGES = ("lm_eval", "torch", "transformers", "peft", "datasets")


def parse():
    parser = command_line(__doc__)
    parser.add_argument("--task", nargs="+", required=True, help="task files")
    parser.add_argument("--adapter", nargs="+", required=True, help="adapter folders, one per task")
    parser.add_argument("--base", default=DEMO_BASE)
    parser.add_argument("--limit", type=int, help="test examples; default: all")
    parser.add_argument("--batch-size", type=int, default=16, help="rows, with softhub's class")
    parser.add_argument("--python", type=Path, default=Path("build/lm-eval/bin/python"))
    options = parser.parse_args()
    if len(options.task) != len(options.adapter):
        parser.error("expected as many adapters as tasks, because they are used in pairs")
    if not options.python.is_file():
        parser.error(f"{options.python} does not exist; --help shows how to install it")
    return options


def words_of(encoder, task):
    """Return pairs of label and word, one for each choice of the harness."""
    pairs = [(label, word) for label, words in task.verbalizer.words for word in words]
    plain = tuple(encoder.continuation(task.template, word) for _, word in pairs)
    if encoder.candidates_of(task).sequences != plain:
        sys.exit(
            f"The harness cannot score the words of {task.name}: the task is multi-label, or a "
            "word is a prefix of another, so that softhub appends the end-of-sequence token."
        )
    return pairs


def write_task(folder, task, examples, pairs):
    """Write the task and its texts in the format of the harness."""
    labels = [label for label, _ in pairs]
    single = len(set(labels)) == len(labels)
    with (folder / "test.jsonl").open("w") as file:
        for example in examples:
            right = [at for at, label in enumerate(labels) if label == example.label]
            row = {"rendered": task.template.render(example.row), "words": [w for _, w in pairs]}
            file.write(json.dumps({**row, "right": right[0] if single else right}) + "\n")
    record = {
        "task": NAME,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "test.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "rendered",
        "doc_to_choice": "words",
        "doc_to_target": "right",
        "target_delimiter": "",  # the words have their own space
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "num_fewshot": 0,
    }
    (folder / f"{NAME}.yaml").write_text(yaml.safe_dump(record))


def run_harness(options, base, model, arguments, folder, batch_size):
    """Run the harness; return its results, and its logged samples in the order of the texts."""
    output = folder / f"output-{model}"
    where = ["--include_path", folder, "--output_path", output, "--log_samples"]
    how = ["--model_args", arguments, "--batch_size", batch_size, "--device", base.device]
    module = ["-m", "softhub.evaluation.lm_eval", "run", "--model", model, "--tasks", NAME]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    subprocess.run(
        [str(part) for part in (options.python, *module, *how, *where)],
        check=True,
        env={**os.environ, **offline},
        stdout=sys.stderr,
    )
    (results,) = output.rglob("results_*.json")
    (samples,) = output.rglob("samples_*.jsonl")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    return json.loads(results.read_text()), sorted(rows, key=lambda row: row["doc_id"])


def label_scores(sample, pairs):
    """Return the log-probability of each label: the logsumexp over its words."""
    chances = {}
    for (label, _), (response,) in zip(pairs, sample["resps"], strict=True):
        chances[label] = chances.get(label, 0.0) + math.exp(float(response[0]))
    return {label: math.log(chance) for label, chance in chances.items()}


def compare(examples, ours, theirs):
    """Compare the answers of both sides, text by text."""
    best = [max(scores, key=scores.get) for scores in theirs]
    references = [example.label for example in examples]
    apart = [
        max(abs(mine.scores[label] - scores[label]) for label in scores)
        for mine, scores in zip(ours, theirs, strict=True)
    ]
    disagreements = [
        {"text": at, "right": references[at], "softhub": mine.scores, "lm_eval": theirs[at]}
        for at, mine in enumerate(ours)
        if mine.best != best[at]
    ]
    return {
        "texts": len(examples),
        "agreements": len(examples) - len(disagreements),
        "disagreements": disagreements,
        "softhub_accuracy": share([mine.best for mine in ours], references),
        "lm_eval_accuracy": share(best, references),
        "largest_difference_of_scores": max(apart),
    }


def share(answers, references):
    right = sum(a == b for a, b in zip(answers, references, strict=True))
    return right / len(references)


def check(options, base, path, adapter):
    task, model = Task.from_file(path), PromptModel(base)
    examples = task.load("test", limit=options.limit)
    name = model.load_prompt(adapter)
    own = model.task_of(name)
    pairs = words_of(model.encoder, own)
    evaluation = evaluate(model, task, examples, prompt=name)
    path_of_base, folder_of_adapter = base.model.config._name_or_path, Path(adapter).resolve()
    runs = {
        "hf": (f"pretrained={path_of_base},peft={folder_of_adapter}", 1),
        "softhub": (f"base={path_of_base},prompt={folder_of_adapter}", options.batch_size),
    }
    found = {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_task(folder, own, examples, pairs)
        for kind, (arguments, size) in runs.items():
            results, samples = run_harness(options, base, kind, arguments, folder, size)
            theirs = [label_scores(sample, pairs) for sample in samples]
            found[kind] = compare(examples, evaluation.details, theirs)
            found[kind]["batch_size"] = size
            found[kind]["lm_eval_own_accuracy"] = results["results"][NAME]["acc,none"]
    print(f"{adapter}: {json.dumps(found, indent=2)}", file=sys.stderr)
    return {"task": path, "adapter": adapter, "words": [word for _, word in pairs], **found}


def versions(python):
    """Return the versions of the packages in the environment of the harness."""
    code = "import importlib.metadata as m, json, sys; "
    code += "print(json.dumps({name: m.version(name) for name in sys.argv[1:]}))"
    return json.loads(subprocess.check_output([python, "-c", code, *PACKAGES]))


def main():
    options = parse()
    base = load_base(options.base, name=DEMO_NAME if options.base == DEMO_BASE else None)
    pairs = zip(options.task, options.adapter, strict=True)
    checks = [check(options, base, path, adapter) for path, adapter in pairs]
    write("lm_eval_check", {"harness": versions(options.python), "checks": checks})


if __name__ == "__main__":
    main()
