"""Two tries to give plain prompts the capacity of prefixes, each with a bar, on the medical task.

    python benchmarks/capacity_tries.py                   # resumable: finished rows are skipped
    python benchmarks/capacity_tries.py --tries whitened  # only one of them
    python benchmarks/capacity_tries.py --seeds 0         # only some seeds
    python benchmarks/capacity_tries.py --summary         # only summarize the finished rows

`long`: prompts of 200 and 400 virtual tokens that start from the embeddings of solved examples,
then distilled to 100. The bar is 84.5 % on test with three seeds, at most twice the time of a step
of 50 tokens (the rows `reference`).

`whitened`: the prompt of 50 tokens is trained in coordinates in which the embeddings of the
vocabulary have the same variance in every direction, so that a step of the optimizer follows their
covariance. The bar is a loss on training texts of 0.30 (mean of the last sixth of 240 steps) in
the CPU time of 240 plain steps.

All runs have 240 steps of 8 examples; the checkpoint with the lowest dev loss is evaluated.
"""

import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
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
from torch import nn
from torch.nn.utils.parametrize import register_parametrization
from transformers import set_seed

from softhub import PromptModel, SoftPrompt, Task, fit, load_base
from softhub.evaluation.evaluate import evaluate, references_of
from softhub.evaluation.few_shot import written_out
from softhub.experiments.comparison.fine_tuning import _BestWeights
from softhub.experiments.distillation import ModelTeacher, distill
from softhub.metrics.intervals import Resamples
from softhub.tasks import Splits
from softhub.tasks.sampling import choose_shots
from softhub.training import PromptTrainingArguments
from softhub.training.callbacks import HistoryCallback
from softhub.training.encoded_task import encode_task
from softhub.training.initialization import initial_vectors
from softhub.training.learning_rate import SHARE, frequent_rows
from softhub.training.module import PromptTuningModule
from softhub.training.provenance import manifest_of
from softhub.training.trainer import PromptTrainer

TASK, DEV = "recipes/tasks/medical_organ.yaml", 200
LONG, SHORT, REFERENCE = (200, 400), 100, 50
WHITENED_RATES = (SHARE / 2, SHARE, 2 * SHARE)  # in units of a coordinate's standard deviation
SHOTS = 100  # solved examples to draw, of which as many are used as there is room for
TRIES = ("reference", "long", "whitened")
END = 1 / 6  # of a run, over which the training loss is averaged


def parse():
    parser = command_line(__doc__)
    parser.add_argument("--tries", choices=TRIES, nargs="+", default=list(TRIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--every", type=int, default=40, help="steps between evaluations on dev")
    parser.add_argument("--test", type=int, help="test examples; default: all")
    parser.add_argument("--base", default=DEMO_BASE)
    parser.add_argument("--name", default="capacity_tries", help="name of the results")
    parser.add_argument("--summary", action="store_true", help="only summarize finished rows")
    return parser.parse_args()


class Whitening(nn.Module):
    """Coordinates of the vocabulary's embeddings: mean 0, covariance 1."""

    def __init__(self, rows):
        super().__init__()
        self.register_buffer("mean", rows.mean(0))  # [H]
        values, axes = torch.linalg.eigh(torch.cov(rows.T.double()))  # [H], [H, H]
        # Directions in which the vocabulary hardly varies would need huge coordinates.
        deviations = values.clamp_min(1e-4 * values.max()).sqrt()
        self.register_buffer("root", ((axes * deviations) @ axes.T).float())  # [H, H]
        self.register_buffer("inverse", ((axes / deviations) @ axes.T).float())

    def forward(self, coordinates):
        return self.mean + coordinates @ self.root

    def right_inverse(self, vectors):
        return (vectors - self.mean) @ self.inverse


class Bench:
    """The task and the base, prepared for all runs."""

    def __init__(self, options):
        self.options, self.task = options, Task.from_file(TASK)
        self.train, self.dev = self.task.load("train"), self.task.load("dev", limit=DEV)
        self.test = self.task.load("test", limit=options.test)
        self.base = load_base(options.base, name=DEMO_NAME if options.base == DEMO_BASE else None)
        self.prompts = Path("runs") / options.name

    def config(self, tokens):
        return PromptTuningConfig(task_type=self.base.task_type, num_virtual_tokens=tokens)

    def arguments(self, folder, seed, **changes):
        every = self.options.every
        settings = {"eval_steps": every, "save_steps": every, "logging_steps": min(every, 10)}
        return PromptTrainingArguments(
            output_dir=folder,
            max_steps=self.options.steps,
            seed=seed,
            disable_tqdm=True,
            **{**settings, **changes},
        )

    def fitted(self, tokens, init, seed, teacher=None):
        """Return the row of a prompt that `fit` or `distill` trains, and the prompt."""
        config = self.config(tokens)
        # A teacher answers only as many texts as are learned from.
        most = None if teacher is None else 8 * self.options.steps
        train = self.train if most is None else self.task.load("train", limit=most)
        data = Splits(train, self.dev, [])
        with tempfile.TemporaryDirectory() as folder:
            args = self.arguments(folder, seed)
            before = cpu_seconds()
            if teacher is None:
                result = fit(self.base, self.task, config, data, args=args, init=init)
            else:
                result = distill(
                    self.base, self.task, config, data, teacher=teacher, args=args, init=init
                )
            spent = cpu_seconds() - before
        return self.row(result.prompt, result.history, spent), result.prompt

    def whitened(self, rate, seed):
        """Return the row of a prompt of 50 tokens that is trained in whitened coordinates."""
        set_seed(seed)
        base, before = self.base, cpu_seconds()
        encoded = encode_task(base, self.task, self.train, self.dev, virtual_tokens=REFERENCE)
        vectors = initial_vectors(base, self.config(REFERENCE), "task", [encoded], seed=seed)
        module = PromptTuningModule(base, vectors, encoded.candidates, encoded.label_weights)
        whitening = Whitening(frequent_rows(base).cpu())
        register_parametrization(module, "prompt", whitening)
        best, history = _BestWeights(), HistoryCallback()
        unsaved = {"save_strategy": "no", "load_best_model_at_end": False}
        with tempfile.TemporaryDirectory() as folder:
            args = self.arguments(folder, seed, learning_rate=rate, **unsaved)
            splits = (encoded.train, encoded.dev)
            PromptTrainer(module, encoded.task, args, *splits, [best, history]).train()
        spent = cpu_seconds() - before
        module.load_state_dict(best.weights, strict=False)
        found = module.prompt.detach().cpu()
        manifest = manifest_of(base, found, task=encoded.task, provenance={})
        return self.row(SoftPrompt(found, manifest), history.history, spent)

    def row(self, prompt, history, spent):
        model = PromptModel(self.base)
        model.load_prompt(prompt, name="prompt")
        found = evaluate(model, self.task, self.test, prompt="prompt")
        logs = [each for each in history if "loss" in each and "eval_loss" not in each]
        last = [each["loss"] for each in logs if each["step"] > (1 - END) * logs[-1]["step"]]
        return {
            "train_loss_at_end": statistics.fmean(last),
            "dev_losses": {int(e["step"]): e["eval_loss"] for e in history if "eval_loss" in e},
            "cpu_seconds": spent,
            "accuracy": found.metrics["accuracy"].value,
            "predictions": list(found.predictions),
        }

    def solved(self, tokens, seed):
        """Return a prompt of the embeddings of solved examples: the last tokens of their text."""
        shots = choose_shots(self.task, self.train, SHOTS, seed)
        ids = self.base.encoder.tokens(written_out(self.task, self.task.template, shots))
        if len(ids) < tokens:
            sys.exit(f"{SHOTS} solved examples have {len(ids)} tokens; {tokens} are needed")
        with torch.no_grad():
            vectors = self.base.embed(torch.tensor(ids[-tokens:])).float().cpu()
        return SoftPrompt(vectors, manifest_of(self.base, vectors, task=self.task, provenance={}))

    def plain(self, seed):
        return self.fitted(REFERENCE, "task", seed)[0]

    def long(self, tokens, seed):
        """Return the row of a long prompt, which is kept for its distillation."""
        row, prompt = self.fitted(tokens, self.solved(tokens, seed), seed)
        prompt.save_pretrained(self.prompts / f"p{tokens}-seed{seed}")
        return row

    def distilled(self, tokens, seed):
        """Return the row of a short prompt that is distilled from a long one."""
        folder = self.prompts / f"p{tokens}-seed{seed}"
        if not folder.is_dir():
            sys.exit(f"{folder} is missing: delete the row of that prompt, and run this again")
        prompt = SoftPrompt.from_pretrained(folder)
        teacher = ModelTeacher(PromptModel(self.base), self.task, prompt=prompt)
        return self.fitted(SHORT, "task", seed, teacher)[0]


def runs(options):
    """Yield the name and seed of each row, and the method of `Bench` that computes it."""
    for seed in options.seeds:
        if "reference" in options.tries:
            yield f"P = {REFERENCE}, plain", seed, partial(Bench.plain, seed=seed)
        for rate in WHITENED_RATES if "whitened" in options.tries else ():
            name = f"P = {REFERENCE}, whitened {rate:g}"
            yield name, seed, partial(Bench.whitened, rate=rate, seed=seed)
        for tokens in LONG if "long" in options.tries else ():
            solved, short = f"P = {tokens} from solved examples", f"distilled to {SHORT}"
            yield solved, seed, partial(Bench.long, tokens=tokens, seed=seed)
            yield f"{solved}, {short}", seed, partial(Bench.distilled, tokens=tokens, seed=seed)


def summary(rows, options):
    """Return the figures of each name over its seeds."""
    task = Task.from_file(TASK)
    test = task.load("test", limit=options.test)
    resamples = Resamples(len(test), [example.group for example in test])
    references, figures = references_of(task, test), {}
    for name in dict.fromkeys(row["name"] for row in rows):
        own = sorted((row for row in rows if row["name"] == name), key=lambda row: row["seed"])
        score = resamples.score([row["predictions"] for row in own], references, "accuracy")
        figures[name] = {
            "seeds": [row["seed"] for row in own],
            "accuracy": list(score.interval()),
            "by_seed": [row["accuracy"] for row in own],
            "train_loss_at_end": [row["train_loss_at_end"] for row in own],
            "lowest_dev_loss": [min(row["dev_losses"].values()) for row in own],
            "cpu_seconds": [row["cpu_seconds"] for row in own],
        }
    return figures


def main():
    options = parse()
    path = RESULTS / f"{options.name}.jsonl"
    setting = {"steps": options.steps, "test": options.test}
    bench = None
    for name, seed, compute in [] if options.summary else runs(options):
        if (name, seed) in {(row["name"], row["seed"]) for row in rows_at(path, setting)}:
            continue
        bench = bench or Bench(options)
        row = compute(bench)
        keep_row(path, {"name": name, "seed": seed, **setting, **row})
        print(f"{name}, seed {seed}: {row['accuracy']:.4f}", file=sys.stderr)
    write(options.name, {**setting, "tries": summary(rows_at(path, setting), options)})


def rows_at(path, setting):
    """Return the rows with this setting; the file may have others."""
    return [row for row in read_rows(path) if setting.items() <= row.items()]


if __name__ == "__main__":
    main()
