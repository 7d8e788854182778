"""The conclusions of a comparison as sentences, no stronger than the intervals allow."""

from __future__ import annotations

from softhub.experiments.comparison.descriptions import LORA, METHODS, method_family
from softhub.experiments.comparison.formatting import (
    capitalized,
    count,
    difference,
    score_in_sentence,
    size,
)
from softhub.experiments.comparison.summary import Line, Summary
from softhub.metrics import find_metric
from softhub.metrics.intervals import Interval


def conclusions(summary: Summary) -> list[str]:
    """Return sentences that compare the soft prompt with the rest; none without a soft prompt."""
    soft = summary.soft_prompt
    if soft is None:
        return []
    score = score_in_sentence(summary.score(soft), summary.metric)
    sentences = [f"{capitalized(soft.name)}: {find_metric(summary.metric).heading} {score}."]
    for line in (summary.best_hard_prompt, summary.first(LORA), summary.fine_tuning):
        minus_soft = summary.difference(line, soft) if line else None
        if line is not None and minus_soft is not None:
            sentences.append(_comparison(line.name, minus_soft, summary.metric))
    return [*sentences, *_costs(summary, soft)]


def missing_runs(summary: Summary) -> list[str]:
    """Return sentences on methods and seeds that a reader might expect and that were not run."""
    present = {method_family(line.method) for line in summary.table}
    missing = [method for method in METHODS if method not in present]
    sentences = [f"Not run: {', '.join(missing)}."] if missing else []
    most = max(line.seeds for line in summary.table)
    for line in summary.table:
        if line.rows[0].seed is not None and line.seeds < most:
            seeds = "one seed" if line.seeds == 1 else f"{line.seeds} seeds"
            sentences.append(
                f"{capitalized(line.name)} has {seeds} where others have {most}, so its interval "
                "covers less of the variation between training runs."
            )
    return sentences


def _comparison(name: str, minus_soft: Interval, metric: str) -> str:
    amount = difference(minus_soft, metric)
    if find_metric(metric).unit == "%":
        amount = amount.replace(" (", " points (", 1)
    if minus_soft.low > 0:
        return f"{capitalized(name)} scores higher: {amount}."
    if minus_soft.high < 0:
        return f"{capitalized(name)} scores lower: {amount}."
    return f"{capitalized(name)} shows no clear difference: {amount}; the interval contains 0."


def _costs(summary: Summary, soft: Line) -> list[str]:
    full = summary.fine_tuning
    if full is None or not soft.bytes or not soft.trainable_parameters:
        return []
    ratio = full.trainable_parameters / soft.trainable_parameters
    return [
        f"The soft prompt has {count(soft.trainable_parameters)} trainable parameters and "
        f"fine-tuning {count(full.trainable_parameters)} ({count(ratio)} times as many). A task "
        f"takes {size(soft.bytes)} to store and ship as a soft prompt, and {size(full.bytes)} as "
        "a fine-tuned copy."
    ]
