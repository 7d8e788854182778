"""How much sooner does softhub's default training reach the quality of plain PEFT prompt tuning?

    python benchmarks/against_peft.py                  # resumable: finished runs are not repeated
    python benchmarks/against_peft.py --task medical --sides peft     # only a part
    python benchmarks/against_peft.py --sides softhub --steps 80      # a shorter run of softhub
    python benchmarks/against_peft.py --sides softhub --init task     # another initialization
    python benchmarks/against_peft.py --sides prefix --steps 60       # a prefix by softhub
    python benchmarks/against_peft.py --summary        # only summarize the finished runs

PEFT is used as its documentation shows: `get_peft_model`, the stock Trainer, batches padded on the
right, the loss on the tokens of the label's (first) word, linear decay, weight decay 0. With seed 0
it is trained in six variants, RANDOM and TEXT init at three learning rates each (a variant whose
lowest dev loss after a quarter or half of the steps is higher than what another variant had reached
by then is stopped); with the other seeds, only the variant with the lowest dev loss is trained.
softhub is `fit` with all its defaults, or with another initialization if one is given; a prefix has
as many virtual tokens, and is compared with the same prompts of PEFT. All sides train the same base
model in one process, in turn, on the same texts in batches of 8 and with the same number of virtual
tokens. The checkpoint with the lowest dev loss is evaluated on the test split.

On dev, the vectors of both sides are evaluated by the same scores of the same label words. A step
is a step of any optimizer. The CPU seconds are those of the process, from before the texts are
tokenized: trials of initializations and restarts count; evaluation on dev does not, on
either side.
"""

import math
import statistics
import sys
import tempfile
from contextlib import contextmanager
from unittest import mock

import torch
from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model
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
from stock_peft import padded_on_the_right
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from softhub import PromptModel, SoftPrompt, Task, fit, load_base
from softhub.evaluation.evaluate import evaluate, predict_examples
from softhub.experiments import RunConfig
from softhub.metrics.intervals import Resamples
from softhub.training import PromptTrainingArguments
from softhub.training.data import encode_examples
from softhub.training.provenance import manifest_of
from softhub.training.trainer import PromptTrainer

TASKS = {  # task file, virtual tokens, PEFT's init text
    "sentiment": (
        "recipes/tasks/sentiment.yaml",
        20,
        "Classify if the review is negative or positive:",
    ),
    "medical": (
        "recipes/tasks/medical_organ.yaml",
        50,
        "Classify the medical finding by its organ system: nervous, metabolic, urinary, "
        "reproductive, musculoskeletal, cardiovascular, eye, immune, skin, digestive, respiratory:",
    ),
}
OURS = {"softhub": PromptTuningConfig, "prefix": PrefixTuningConfig}
FIRST_SEED, BATCH = 0, 8
RATES, INITS = (0.01, 0.03, 0.003), ("TEXT", "RANDOM")
WAYS = [(init, rate) for init in INITS for rate in RATES]


def parse():
    parser = command_line(__doc__)
    parser.add_argument("--task", choices=TASKS, nargs="+", default=list(TASKS))
    parser.add_argument("--sides", choices=("peft", *OURS), nargs="+", default=["peft", "softhub"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--init", help="softhub's initialization")
    parser.add_argument("--every", type=int, default=20, help="steps between evaluations on dev")
    parser.add_argument("--dev", type=int, default=200, help="dev examples")
    parser.add_argument("--test", type=int, help="test examples; default: all")
    parser.add_argument("--base", default=DEMO_BASE)
    parser.add_argument("--name", default="against-peft", help="name of the results")
    parser.add_argument("--summary", action="store_true", help="only summarize finished runs")
    return parser.parse_args()


class Meter:
    """Count the steps and CPU seconds of a run, and record its evaluations, which do not count."""

    def __init__(self):
        self.steps, self.evaluating, self.points = 0, 0.0, []

    def __enter__(self):
        self.start = cpu_seconds()
        self.hook = register_optimizer_step_post_hook(self.count)
        return self

    def __exit__(self, *error):
        self.hook.remove()
        self.seconds = cpu_seconds() - self.start - self.evaluating

    def count(self, *args):
        self.steps += 1

    @contextmanager
    def evaluation(self):
        """Record an evaluation on dev: the block fills it in, and its time does not count."""
        began = cpu_seconds()
        point = {"step": self.steps, "cpu_seconds": began - self.start - self.evaluating}
        yield point
        self.points.append(point)
        self.evaluating += cpu_seconds() - began


class PeftEvaluator(TrainerCallback):
    """Evaluate PEFT's vectors on dev every N steps, and remember the best.

    A run is stopped early if it is behind `rivals`, the rows of variants that ran before.
    """

    def __init__(self, bench, meter, rivals):
        self.bench, self.meter = bench, meter
        self.to_beat = {}
        for step in (bench.options.steps // 4, bench.options.steps // 2):
            there = [p["loss"] for row in rivals for p in row["dev"] if p["step"] <= step]
            self.to_beat[step] = min(there, default=math.inf)
        self.lowest, self.best = math.inf, None

    def on_step_end(self, args, state, control, model, **kwargs):
        if state.global_step % self.bench.options.every:
            return
        with self.meter.evaluation() as point:
            prompt = self.bench.folded(model.get_prompt_embedding_to_save("default"))
            point |= self.bench.on_dev(prompt)
        if point["loss"] < self.lowest:
            self.lowest, self.best = point["loss"], prompt
        if self.lowest > self.to_beat.get(state.global_step, math.inf):
            control.should_training_stop = True


class Bench:
    """One task, prepared for training by either side."""

    def __init__(self, options, name, base):
        path, self.tokens, self.text = TASKS[name]
        self.options, self.base, self.task = options, base, Task.from_file(path)
        self.model = PromptModel(base)
        self.train = self.task.load("train")
        self.dev = self.task.load("dev", limit=options.dev)
        self.test = self.task.load("test", limit=options.test)

    def folded(self, vectors):
        """Return PEFT's vectors as a soft prompt."""
        vectors = vectors.float()
        manifest = manifest_of(self.base, vectors, task=self.task, provenance={})
        return SoftPrompt(vectors, manifest)

    def on_dev(self, prompt):
        """Return loss and accuracy on dev over the label words, as `fit` does."""
        self.base.model.eval()
        self.model.load_prompt(prompt, name="prompt")
        found = predict_examples(self.model, self.task, self.dev, prompt="prompt")
        pairs = list(zip(found, self.dev, strict=True))
        return {
            "loss": statistics.fmean(loss_of(p.scores, e.label) for p, e in pairs),
            "accuracy": statistics.fmean(p.best == e.label for p, e in pairs),
        }

    def on_test(self, prompt):
        self.base.model.eval()
        self.model.load_prompt(prompt, name="prompt")
        found = evaluate(self.model, self.task, self.test, prompt="prompt")
        labels = self.task.verbalizer.labels
        return {
            "test_accuracy": found.metrics["accuracy"].value,
            "predictions": [labels.index(label) for label in found.predictions],
        }

    def peft(self, init, rate, seed, rivals):
        with Meter() as meter:
            set_seed(seed)
            evaluator = PeftEvaluator(self, meter, rivals)
            model = get_peft_model(self.base.model, self.peft_config(init))
            with tempfile.TemporaryDirectory() as folder:
                args = TrainingArguments(
                    output_dir=folder,
                    max_steps=self.options.steps,
                    learning_rate=rate,
                    per_device_train_batch_size=BATCH,
                    seed=seed,
                    save_strategy="no",
                    logging_strategy="no",
                    report_to="none",
                    disable_tqdm=True,
                    use_cpu=not torch.cuda.is_available(),
                )
                Trainer(
                    model,
                    args,
                    data_collator=padded_on_the_right,
                    train_dataset=self.rows_with_labels(),
                    callbacks=[evaluator],
                ).train()
        return self.row(meter, evaluator.best)

    def peft_config(self, init):
        text = {
            "prompt_tuning_init_text": self.text,
            "tokenizer_name_or_path": self.base.tokenizer.name_or_path,
        }
        return PromptTuningConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=self.tokens,
            prompt_tuning_init=init,
            **(text if init == "TEXT" else {}),
        )

    def rows_with_labels(self):
        """Return each text followed by its label's first word, the only part with a loss."""
        encoder = self.model.encoder
        candidates = encoder.candidates_of(self.task)
        room = self.base.max_positions - self.tokens
        rows = encode_examples(encoder, self.task, self.train, candidates, room)
        data = []
        for text, label in zip(rows.inputs, rows.answers, strict=True):
            word = candidates.sequences[candidates.owners.index(label)]
            labels = [-100] * len(text) + list(word)
            data.append({"input_ids": [*text, *word], "labels": labels})
        return data

    def softhub(self, side, init, seed):
        original = PromptTrainer.evaluate
        config = OURS[side](task_type=self.base.task_type, num_virtual_tokens=self.tokens)

        def measured(trainer, *args, **kwargs):
            with meter.evaluation() as point:
                found = original(trainer, *args, **kwargs)
                point |= {"loss": found["eval_loss"], "accuracy": found["eval_accuracy"]}
            return found

        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.object(PromptTrainer, "evaluate", measured),
            Meter() as meter,
        ):
            args = PromptTrainingArguments(
                output_dir=folder,
                max_steps=self.options.steps,
                eval_steps=self.options.every,
                save_steps=self.options.every,
                seed=seed,
                disable_tqdm=True,
            )
            data = {"train": self.train, "dev": self.dev}
            init = init or (RunConfig.init if side == "softhub" else None)
            result = fit(self.base, self.task, config, data, args=args, init=init)
        provenance = result.prompt.manifest.provenance
        return self.row(meter, result.prompt) | {
            "started_from": provenance["init"],
            "training": provenance["training"],
            "warnings": result.warnings,
        }

    def row(self, meter, prompt):
        return {
            "dev": meter.points,
            "steps_in_all": meter.steps,
            "cpu_seconds": meter.seconds,
            "threads": torch.get_num_threads(),
            **self.on_test(prompt),
        }


def loss_of(scores, label):
    """Return the negative log-probability of a label among all labels."""
    highest = max(scores.values())
    total = math.fsum(math.exp(score - highest) for score in scores.values())
    return highest + math.log(total) - scores[label]


def way_of(row):
    return (row["side"], row["init"], row["rate"], row["steps"])


def best_point(row):
    """Return the evaluation with the lowest dev loss."""
    return min(row["dev"], key=lambda point: point["loss"])


def best_way(rows):
    """Return PEFT's variant with the lowest dev loss with the first seed."""
    own = [row for row in rows if (row["side"], row["seed"]) == ("peft", FIRST_SEED)]
    if not own:
        sys.exit(
            f"PEFT's best variant is not known yet: run --sides peft with seed {FIRST_SEED} first."
        )
    return way_of(min(own, key=lambda row: best_point(row)["loss"]))


def runs_in_order(options, path):
    """Yield the requested runs: for each seed both sides, all of PEFT's variants with the first."""
    for seed in options.seeds:
        if "peft" in options.sides:
            ways = WAYS if seed == FIRST_SEED else [best_way(read_rows(path))[1:3]]
            for init, rate in ways:
                yield ("peft", init, rate, options.steps), seed
        for side in set(options.sides) & OURS.keys():
            yield (side, options.init, None, options.steps), seed


def train_all(options, name, base, path):
    bench = Bench(options, name, base)
    for way, seed in runs_in_order(options, path):
        if (way, seed) in {(way_of(row), row["seed"]) for row in read_rows(path)}:
            continue
        side, init, rate, steps = way
        row = {"side": side, "init": init, "rate": rate, "steps": steps, "seed": seed}
        if side in OURS:
            row |= bench.softhub(side, init, seed)
        else:
            others = [r for r in read_rows(path) if (r["side"], r["seed"]) == (side, seed)]
            row |= bench.peft(init, rate, seed, rivals=others)
        keep_row(path, row)
        print(f"{name}: {way}, seed {seed}: {best_point(row)}", file=sys.stderr)


def first_to_reach(row, goal, key):
    """Return the first evaluation that is as good as the goal in `loss` or `accuracy`, or None."""
    sign = 1 if key == "loss" else -1
    return next((p for p in row["dev"] if sign * p[key] <= sign * goal[key]), None)


def race(ours, theirs):
    """Return when softhub reaches PEFT's best, and the shares of steps and CPU time.

    Threads that wait use CPU time, so it is compared only for equal numbers of threads.
    """
    goal, figures = best_point(theirs), {"seed": ours["seed"]}
    alike = ours["threads"] == theirs["threads"]
    figures["peft"] = goal
    figures["softhub_best"] = best_point(ours)
    for key in ("loss", "accuracy"):
        there = first_to_reach(ours, goal, key)
        figures[f"softhub_by_{key}"] = there and {
            **there,
            "share_of_steps": there["step"] / goal["step"],
            "share_of_cpu_seconds": there["cpu_seconds"] / goal["cpu_seconds"] if alike else None,
        }
    return figures


def summary(options, rows, task):
    """Return all figures of one task."""
    by_way = {}
    for row in rows:
        by_way.setdefault(way_of(row), {})[row["seed"]] = row
    figures = {"peft": [described(way, runs) for way, runs in by_way.items() if way[0] == "peft"]}
    if not figures["peft"]:
        return figures
    test = task.load("test", limit=options.test)
    best = best_way(rows)
    theirs = by_way[best]
    figures["best of peft"] = described(best, theirs)
    figures |= {side: [] for side in OURS}
    for way, ours in by_way.items():
        seeds = sorted(set(ours) & set(theirs))
        if way[0] in OURS and seeds:
            against = {
                "races": [race(ours[seed], theirs[seed]) for seed in seeds],
                "test": final_scores(task, test, ours.values(), theirs.values()),
            }
            figures[way[0]].append(described(way, ours) | against)
    return figures


def described(way, runs):
    """Return the figures of one variant, as lists over its seeds."""
    _, init, rate, steps = way
    return {
        **({"init": init, "rate": rate} if init else {}),
        "steps": steps,
        "seeds": list(runs),
        "best_dev": [best_point(row) for row in runs.values()],
        "cpu_seconds": [row["cpu_seconds"] for row in runs.values()],
        "test_accuracy": [row["test_accuracy"] for row in runs.values()],
    }


def final_scores(task, test, ours, theirs):
    """Return test accuracies and their difference, with intervals over groups and seeds."""
    right = [task.verbalizer.labels.index(example.label) for example in test]
    resamples = Resamples(len(test), [example.group for example in test])

    def accuracy(rows):
        runs = [[a == b for a, b in zip(row["predictions"], right, strict=True)] for row in rows]
        return resamples.mean(runs)

    scores = {"softhub": accuracy(ours), "peft": accuracy(theirs)}
    scores["softhub minus peft"] = scores["softhub"] - scores["peft"]
    return {name: list(score.interval()) for name, score in scores.items()}


def main():
    options = parse()
    paths = {name: RESULTS / options.name / f"{name}.jsonl" for name in TASKS}
    paths["sentiment"].parent.mkdir(parents=True, exist_ok=True)
    if not options.summary:
        base = load_base(options.base, name=DEMO_NAME if options.base == DEMO_BASE else None)
        _ = base.fingerprint  # computed once, so that it counts for neither side
        for name in options.task:
            train_all(options, name, base, paths[name])
    figures = {"examples_per_step": BATCH, "dev_examples": options.dev}
    for name, path in paths.items():
        if rows := read_rows(path):
            task = Task.from_file(TASKS[name][0])
            details = {"virtual_tokens": TASKS[name][1]}
            figures[name] = details | summary(options, rows, task)
    write(options.name.replace("-", "_"), figures)


if __name__ == "__main__":
    main()
