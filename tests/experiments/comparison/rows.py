"""Rows of a made-up comparison, with answers that are right as often as they should be."""

from dataclasses import replace

import numpy as np

from softhub.experiments.comparison.store import ComparedRow
from softhub.metrics import compute

LABELS = ("bad", "good")
SIZE = 120
GROUPS = [f"review {number // 4}" for number in range(SIZE)]
REFERENCES = [LABELS[number % 3 > 0] for number in range(SIZE)]


def answers(share: float, seed: int = 0) -> list[str]:
    """Answers of which about `share` are right."""
    right = np.random.default_rng([seed, round(1000 * share)]).random(SIZE) < share
    return [
        reference if hit else LABELS[1 - LABELS.index(reference)]
        for reference, hit in zip(REFERENCES, right, strict=True)
    ]


def row(method: str, predictions: list[str], **fields) -> ComparedRow:
    """A row with the metrics of its answers."""
    metrics = {n: compute(n, predictions, REFERENCES) for n in ("accuracy", "macro_f1")}
    return ComparedRow(method=method, metrics=metrics, predictions=predictions, **fields)


def history(start: float) -> list[dict[str, float]]:
    """Dev scores of a run."""
    return [
        {"step": step, "loss": start / step, "accuracy": 0.9 - 1 / step} for step in (10, 20, 30)
    ]


def trained(seed: int) -> list[ComparedRow]:
    """The rows of one seed."""
    fields = {"seed": seed, "steps": 30, "best_step": 20, "history": history(10 + seed)}
    small = row("soft prompt", answers(0.8, seed), setting="P = 5", bytes=20_000, **fields)
    return [
        replace(small, trainable_parameters=160, prompt_tokens=5, train_seconds=10.0),
        row(
            "soft prompt",
            answers(0.9, seed),
            setting="P = 20",
            bytes=55_000 + 2 * seed,
            trainable_parameters=640,
            prompt_tokens=20,
            train_seconds=20.0 + 2 * seed,
            predict_seconds=0.05,
            **fields,
        ),
        row("prefix", answers(0.9, seed), setting="P = 5", bytes=125_000, **fields),
        row("IA3", answers(0.88, seed), setting="rate searched", bytes=230_000, **fields),
        row(
            "full fine-tuning",
            answers(0.92, seed),
            bytes=4_000_000,
            trainable_parameters=1_000_000,
            train_seconds=130.0,
            predict_seconds=0.06,
            **fields,
        ),
    ]


def rows() -> list[ComparedRow]:
    """A whole comparison, in the order in which it is run: cheap rows first, then by seed."""
    return [
        row("majority label", ["good"] * SIZE),
        row("zero-shot", answers(0.7), prompt_tokens=7, details={"template": "<b>{text}"}),
        *(row("optimized hard prompt", answers(0.75, s), bytes=180, seed=s) for s in (0, 1, 2)),
        *(row(f"{k}-shot", answers(0.6, s), seed=s) for k in (8, 4) for s in (0, 1, 2)),
        *(row for seed in (2, 0, 1) for row in trained(seed)),
    ]
