"""What a comparison shows, in sentences: with intervals, and no stronger than they allow."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from softhub.experiments.comparison.summary import FEW_SHOT, Line, Summary, method_family
from softhub.experiments.comparison.wording import count, in_words, metric_name, points, size
from softhub.metrics.intervals import Interval

MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "majority label": "Always answers the commonest label of the training split.",
        "zero-shot": "The base with the best of the task's hard templates, chosen on dev.",
        "zero-shot, bias-corrected": "The same, with each label's mean log-probability over the "
        "dev texts taken off its score; the template is again the best on dev.",
        FEW_SHOT: "The base with solved examples before each text; the seed draws and orders "
        "them; dev says whether the scores of labels are bias-corrected.",
        "soft prompt": "P learned vectors before the text; the base stays as it is.",
        "soft-prompt ensemble": "Several soft prompts of one length answer, and their "
        "probabilities are averaged.",
        "LoRA": "Learned low-rank matrices beside the base's weights, which stay as they are.",
        "full fine-tuning": "All weights of the base are trained; each task is a copy of it.",
    }
)


def meaning(method: str) -> str:
    """What a method does, in a sentence; empty if it is not one of ours."""
    return MEANINGS.get(method_family(method), "")


def findings(summary: Summary) -> list[str]:
    """Sentences about the soft prompt against the rest; none without a soft prompt."""
    soft = summary.soft_prompt
    if soft is None:
        return []
    score = in_words(summary.score(soft))
    sentences = [f"{_capital(soft.name)}: {metric_name(summary.metric)} {score}."]
    for line in (summary.best_hard_prompt, summary.first("LoRA"), summary.fine_tuning):
        if line is not None and line.to_soft_prompt is not None:
            sentences.append(_against(line, line.to_soft_prompt))
    return [*sentences, *_costs(summary, soft)]


def left_out(summary: Summary) -> list[str]:
    """What a reader might look for and does not find: methods not run, and missing seeds."""
    present = {line.method for line in summary.table}
    present |= set(map(method_family, present))
    missing = [method for method in MEANINGS if method not in present]
    sentences = [f"Not run: {', '.join(missing)}."] if missing else []
    most = max(line.seeds for line in summary.table)
    for line in summary.table:
        if line.rows[0].seed is not None and line.seeds < most:
            sentences.append(
                f"{_capital(line.name)} has {_runs(line.seeds)}, others have {most}: "
                "its interval holds less of the spread of training."
            )
    return sentences


def _against(line: Line, difference: Interval) -> str:
    """How a line stands to the soft prompt; "no difference" only as far as can be told."""
    amount = points(difference).replace(" (", " points (")
    if difference.low > 0:
        return f"{_capital(line.name)} is above it: {amount}."
    if difference.high < 0:
        return f"{_capital(line.name)} is below it: {amount}."
    return f"{_capital(line.name)} cannot be told from it: {amount}; the interval holds 0."


def _costs(summary: Summary, soft: Line) -> list[str]:
    full = summary.fine_tuning
    if full is None or not soft.bytes or not soft.trainable_parameters:
        return []
    share = full.trainable_parameters / soft.trainable_parameters
    return [
        f"It trains {count(soft.trainable_parameters)} numbers where fine-tuning trains "
        f"{count(full.trainable_parameters)} ({count(share)} times as many), and a task is "
        f"{size(soft.bytes)} to store and ship where a fine-tuned copy is {size(full.bytes)}."
    ]


def _runs(number: int) -> str:
    return "one seed" if number == 1 else f"{number} seeds"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
