"""Words for what was found: the labels' words, templates and metrics to begin with."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from softhub.errors import DatasetError
from softhub.tasks.drafting.columns import Roles
from softhub.tasks.drafting.sources import Table
from softhub.tasks.verbalizer import words_for

_LONGEST_LABEL = 100
_LISTED = 8
_NAME = re.compile(r"[^A-Za-z0-9._-]+")
# What a reference text is, by a word of its column's name, and the metrics that judge it.
_JUDGES: Mapping[str, tuple[str, ...]] = {
    "translation": ("chrf", "sacrebleu"),
    "summary": ("rougeL", "rouge1"),
    "highlights": ("rougeL", "rouge1"),
    "headline": ("rougeL", "rouge1"),
    "title": ("rougeL", "rouge1"),
    "code": ("exact_match", "chrf"),
}
_FEW_WORDS = 4


@dataclass(frozen=True)
class Labels:
    """The labels of a task, and what each is called.

    Attributes:
        words: Label to the word that the model scores.
        spellings: Value in the data to its label, where several spellings are one label.
        counts: Training rows of each label.
    """

    words: Mapping[str, str]
    spellings: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def numbers(self) -> bool:
        """Whether all labels are numbers, which say little to a model."""
        return all(re.fullmatch(r"[+-]?\d+(\.\d+)?", label) for label in self.words)


def labels_in(value: Any) -> tuple[str, ...]:
    """Return the labels of one row: one, several, or none."""
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (str(value),)


def find_labels(tables: Mapping[str, Table], roles: Roles) -> Labels:
    """Collect the labels of all splits.

    Args:
        tables: The rows of each split.
        roles: Which column holds labels.

    Raises:
        DatasetError: If there are fewer than two, or they are no labels but texts.
    """
    column = roles.answer
    by_split = {
        split: Counter(label for cell in table.columns[column] for label in labels_in(cell))
        for split, table in tables.items()
    }
    found = sum(by_split.values(), Counter[str]())
    long = next((value for value in found if len(value) > _LONGEST_LABEL), None)
    if long is not None:
        raise DatasetError(
            f"{column!r} holds {long[:40]!r}…, a text of {len(long)} characters; expected labels. "
            f"If it is what the model shall write, say --target {column}"
        )
    spellings = _merged(found)
    labels = sorted(set(spellings.values()), key=_order)
    if len(labels) < 2:
        raise DatasetError(
            f"{column!r} holds {'a single label, ' + repr(labels[0]) if labels else 'no label'}; "
            f"expected two or more. Choose another column with --label"
        )
    train: Counter[str] = Counter()
    for value, count in by_split["train"].items():
        train[spellings[value]] += count
    merged = len(labels) < len(found) or any(value != label for value, label in spellings.items())
    counts = {label: train[label] for label in labels}
    # With several labels a row, each is asked for by itself.
    end = "?" if roles.multilabel else ""
    words = {label: f" {word}{end}" for label, word in words_for(labels)}
    return Labels(words, spellings if merged else {}, counts)


def heading(column: str) -> str:
    """Return a column's name as people would write it: `reviewTitle` → `Review title`."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column)
    words = [word for word in re.split(r"[\s_.-]+", parted.lower()) if word]
    if len(words) > 1 and words[-1] in ("text", "label"):  # which says nothing more
        words.pop()
    return " ".join(words).capitalize() or "Answer"


def template_of(roles: Roles) -> str:
    """Return the template: each text behind its heading, then the answer's."""
    lines = [f"{heading(column)}: {{{column}}}" for column in roles.texts]
    # Words of labels bring their space; a reference text begins on a line of its own.
    end = f"{heading(roles.answer)}:" + ("" if roles.kind == "classification" else "\n")
    return "\n".join([*lines, end])


def hard_templates_of(roles: Roles, labels: Labels | None) -> tuple[str, ...]:
    """Return candidates for the zero-shot baseline, the template first."""
    template = template_of(roles)
    what, asked = heading(roles.text).lower(), heading(roles.answer).lower()
    body = template.rpartition("\n")[0] if labels else template[:-1].rpartition("\n")[0]
    if roles.multilabel:
        return (template, f"{body}\nQuestion: Is this {what} about")
    if labels is None:
        return (template, f"{body}\n\nWrite the {asked} of this {what}:\n")
    if len(labels.words) > _LISTED:
        return (template, f"{body}\nQuestion: What is the {asked} of this {what}?\nAnswer:")
    words = [word.strip() for word in labels.words.values()]
    listed = f"{', '.join(words[:-1])} or {words[-1]}"
    return (
        template,
        f"{body}\nQuestion: Is the {asked} of this {what} {listed}?\nAnswer:",
        f"Classify the {what} as {listed}.\n\n{template}",
    )


def metrics_of(roles: Roles, *, skewed: bool, target_words: float = 0) -> tuple[str, ...]:
    """Return metrics, the main one first.

    Args:
        roles: What the columns are.
        skewed: Whether one label is far commoner than another.
        target_words: Words of a reference text, on average.
    """
    if roles.multilabel:
        return ("multilabel_macro_f1", "multilabel_micro_f1", "accuracy")
    if roles.kind == "classification":
        return ("macro_f1", "accuracy") if skewed else ("accuracy", "macro_f1")
    named = heading(roles.answer).lower().split()
    wanted = next((judges for word, judges in _JUDGES.items() if word in named), None)
    if wanted is None:
        wanted = ("exact_match", "chrf") if target_words <= _FEW_WORDS else ("chrf", "rougeL")
    return wanted


def task_name(text: str) -> str:
    """Return a text as a task's name, which is a tag on a hub."""
    return _NAME.sub("-", text).strip("-.")[:96].rstrip("-.") or "task"


def _order(label: str) -> tuple[float, str]:
    """Numbers by size, and before words."""
    try:
        return (float(label), label)
    except ValueError:
        return (float("inf"), label)


def _merged(found: Counter[str]) -> dict[str, str]:
    """Each value with its label: the commonest of the spellings that differ in case or space."""
    label_of: dict[str, str] = {}
    for value, _ in sorted(found.items(), key=lambda item: (-item[1], item[0])):
        label_of.setdefault(" ".join(value.split()).casefold(), " ".join(value.split()))
    return {value: label_of[" ".join(value.split()).casefold()] for value in found}
