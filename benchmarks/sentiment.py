"""Is a soft prompt better than hard prompts and full fine-tuning? Sentiment, on the demo base.

    python benchmarks/sentiment.py            # resumable: finished rows are not run again
    python benchmarks/sentiment.py --summary  # only summarize the finished rows

The soft prompt is trained as in `recipes/configs/sentiment.yaml`, but initialized from the label
words, with three seeds. Full fine-tuning trains all weights of the same base model on the same
batches with the same loss, at a learning rate that suits it, and selects the checkpoint with the
best dev accuracy. All rows answer the full test split. Differences are paired over the same
sentences; intervals are from a bootstrap over reviews, crossed with the seeds.
"""

import sys
import tempfile
import time

import torch
from peft import PromptTuningConfig
from record import DEMO_BASE, DEMO_NAME, RESULTS, command_line, keep_row, read_rows, write
from torch import nn
from transformers import TrainerCallback, set_seed

from softhub import PromptModel, Task, fit, load_base
from softhub.evaluation.evaluate import evaluate
from softhub.evaluation.hard_prompts import choose_hard_prompts, evaluate_hard_prompts
from softhub.experiments.report import folder_bytes
from softhub.metrics.intervals import bootstrap_interval, paired_difference
from softhub.model.assembly import PaddedBatch
from softhub.model.scoring import encode_rows, label_scores
from softhub.training import PromptTrainingArguments
from softhub.training.data import encode_examples
from softhub.training.trainer import PromptTrainer

SEEDS = (0, 1, 2)
STEPS, TOKENS, DEV = 120, 16, 200
FINE_TUNING_RATE = 2e-5
ROWS = RESULTS / "sentiment.jsonl"


class FullTuner(nn.Module):
    """All weights of the base model, trained with the same loss as a prompt."""

    accepts_loss_kwargs = True

    def __init__(self, base, candidates):
        super().__init__()
        self.base, self.model, self.candidates = base, base.model, candidates
        self.model.requires_grad_(True)

    def train(self, mode=True):
        super().train(mode)
        self.model.eval()  # no dropout, as for the prompt
        return self

    def forward(self, input_ids, attention_mask, labels, num_items_in_batch=None):
        rows = PaddedBatch(input_ids, attention_mask)
        encoded = encode_rows(self.base, [None] * len(labels), rows, keep_cache=False)
        scores = label_scores(self.base, encoded, self.candidates)
        return {"loss": nn.functional.cross_entropy(scores, labels), "logits": scores}


class BestWeights(TrainerCallback):
    """Keep the weights with the best dev accuracy in memory."""

    best, weights = -1.0, None

    def on_evaluate(self, args, state, control, metrics, model, **kwargs):
        if metrics["eval_accuracy"] > self.best:
            self.best = metrics["eval_accuracy"]
            self.weights = {key: value.clone() for key, value in model.state_dict().items()}


def arguments(folder, seed, **changes):
    return PromptTrainingArguments(
        output_dir=folder, max_steps=STEPS, seed=seed, disable_tqdm=True, **changes
    )


def soft_prompt(base, task, splits, seed):
    train, dev, test = splits
    config = PromptTuningConfig(task_type=base.task_type, num_virtual_tokens=TOKENS)
    with tempfile.TemporaryDirectory() as folder:
        args = arguments(folder, seed)
        result = fit(base, task, config, {"train": train, "dev": dev}, args=args, init="labels")
        size = folder_bytes(result.prompt.save_pretrained(f"{folder}/adapter"))
    model = PromptModel(base)
    model.load_prompt(result.prompt, name="prompt")
    evaluation = evaluate(model, task, test, prompt="prompt")
    return evaluation, {
        "train_seconds": result.seconds,
        "trained_numbers": result.prompt.vectors.numel(),
        "bytes": size,
        "dev_loss": result.best_score,
        "best_step": result.best_step,
    }


def fine_tuning(task, splits, seed):
    train, dev, test = splits
    base = load_base(DEMO_BASE, name=DEMO_NAME)  # a separate copy, because all weights change
    encoder = PromptModel(base).encoder
    candidates = encoder.candidates(task.template, task.verbalizer)
    set_seed(seed)
    rows = [encode_examples(encoder, task, part, candidates, None) for part in (train, dev)]
    best, start = BestWeights(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        off = {"save_strategy": "no", "load_best_model_at_end": False}
        args = arguments(folder, seed, learning_rate=FINE_TUNING_RATE, **off)
        tuner = FullTuner(base, candidates)
        PromptTrainer(tuner, task, args, *rows, [best]).train()
    seconds = time.perf_counter() - start
    tuner.load_state_dict(best.weights)
    evaluation = evaluate(PromptModel(base), task, test)
    numbers = sum(parameter.numel() for parameter in base.model.parameters())
    return evaluation, {
        "train_seconds": seconds,
        "trained_numbers": numbers,
        "bytes": 4 * numbers,
        "dev_accuracy": best.best,
    }


def hard_prompt(base, task, splits):
    """Evaluate the hard prompt that is best on dev, with or without bias correction."""
    _, dev, test = splits
    model = PromptModel(base)
    best = max(choose_hard_prompts(model, task, dev), key=lambda hard: hard.dev_score)
    (evaluation,) = evaluate_hard_prompts(model, task, [best], test).values()
    return evaluation, {
        "template": best.template.text,
        "calibrated": best.bias is not None,
        "dev_accuracy": best.dev_score,
    }


def add(method, seed, evaluation, details):
    row = {
        "method": method,
        "seed": seed,
        "accuracy": evaluation.metrics["accuracy"].value,
        "macro_f1": evaluation.metrics["macro_f1"].value,
        "predict_seconds": evaluation.seconds,
        **details,
        "predictions": [int(label == "positive") for label in evaluation.predictions],
    }
    keep_row(ROWS, row)
    print(f"{method}, seed {seed}: {row['accuracy']:.4f}", file=sys.stderr)


def run(task, splits):
    base = load_base(DEMO_BASE, name=DEMO_NAME)
    done = {(row["method"], row["seed"]) for row in read_rows(ROWS)}
    if ("hard prompt", None) not in done:
        add("hard prompt", None, *hard_prompt(base, task, splits))
    for seed in SEEDS:
        if ("soft prompt", seed) not in done:
            add("soft prompt", seed, *soft_prompt(base, task, splits, seed))
    for seed in SEEDS:
        if ("full fine-tuning", seed) not in done:
            add("full fine-tuning", seed, *fine_tuning(task, splits, seed))


def summary(test):
    references = [example.label for example in test]
    groups = [example.group for example in test]
    right = [int(label == "positive") for label in references]
    rows, correct = read_rows(ROWS), {}
    for row in rows:
        hits = [int(p == r) for p, r in zip(row["predictions"], right, strict=True)]
        correct.setdefault(row["method"], []).append(hits)
    majority = [["positive"] * len(test)]
    figures = {"majority label": bootstrap_interval(*majority, references, "accuracy", groups)}
    for method, hits in correct.items():
        nothing = [[0] * len(test)]
        figures[method] = paired_difference(hits, nothing, groups)
    soft = correct["soft prompt"]
    return {
        "base": DEMO_NAME,
        "test_sentences": len(test),
        "test_reviews": len(set(groups)),
        "steps": STEPS,
        "virtual_tokens": TOKENS,
        "seeds": {method: len(hits) for method, hits in correct.items()},
        "accuracy": {name: list(interval) for name, interval in figures.items()},
        "soft prompt minus hard prompt": list(
            paired_difference(soft, correct["hard prompt"], groups)
        ),
        "full fine-tuning minus soft prompt": list(
            paired_difference(correct.get("full fine-tuning", soft), soft, groups)
        ),
        "rows": [{k: v for k, v in row.items() if k != "predictions"} for row in rows],
    }


def main():
    parser = command_line(__doc__)
    parser.add_argument("--summary", action="store_true", help="only summarize finished runs")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    torch.manual_seed(0)
    task = Task.from_file("recipes/tasks/sentiment.yaml")
    splits = (task.load("train"), task.load("dev", limit=DEV), task.load("test"))
    if not options.summary:
        run(task, splits)
    write("sentiment", summary(splits[2]))


if __name__ == "__main__":
    main()
