"""Proposals for the texts of a task: label words, templates, metrics."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from softhub.errors import DatasetError
from softhub.tasks.drafting.columns import LONGEST_LABEL, NUMBER, Roles
from softhub.tasks.drafting.lengths import count_words
from softhub.tasks.drafting.rows import RowSet
from softhub.tasks.template import Template
from softhub.tasks.verbalizer import words_for

_SKEW = 10  # labels are imbalanced if one is at least this many times as frequent as another
_LISTED = 8
_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_FEW_WORDS = 4
_SAMPLED = 1000  # reference texts that tell in which script they are
_SCORED_BY_ROUGE = re.compile("[a-z0-9]")


@dataclass(frozen=True)
class Labels:
    """The labels of a task and their words."""

    words: Mapping[str, str]  # label to the word that the model scores
    spellings: Mapping[str, str] = field(default_factory=dict)  # where several are one label
    counts: Mapping[str, int] = field(default_factory=dict)  # training rows of each label

    @property
    def are_skewed(self) -> bool:
        """Whether one label is far more frequent than another."""
        counts = [count for count in self.counts.values() if count]
        return bool(counts) and max(counts) >= _SKEW * min(counts)


def find_labels(tables: Mapping[str, RowSet], roles: Roles) -> Labels:
    """Collect the labels of all splits."""
    column = roles.answer
    by_split = {
        split: Counter(label for row in table.rows for label in row.labels)
        for split, table in tables.items()
    }
    found = sum(by_split.values(), Counter[str]())
    long = next((value for value in found if len(value) > LONGEST_LABEL), None)
    if long is not None:
        raise DatasetError(
            f"{column!r} contains {long[:40]!r}…, a text of {len(long)} characters; expected "
            f"labels. If the model should generate these texts, use --target {column}"
        )
    spellings = _merged(found)
    labels = sorted(set(spellings.values()), key=_order)
    if len(labels) < 2:
        raise DatasetError(
            f"{column!r} contains {'a single label, ' + repr(labels[0]) if labels else 'no label'}"
            f"; expected two or more. Choose another column with --label"
        )
    counts = dict.fromkeys(labels, 0)
    for value, count in by_split["train"].items():
        counts[spellings[value]] += count
    end = "?" if roles.multilabel else ""  # each of several labels is a question of its own
    words = {label: f" {word}{end}" for label, word in words_for(labels)}
    merged = any(value != label for value, label in spellings.items())
    return Labels(words, spellings if merged else {}, counts)


def heading(column: str) -> str:
    """Return a column's name as people would write it: `reviewTitle` → `Review title`."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column)
    words = [word for word in re.split(r"[\s_.{}-]+", spaced.lower()) if word]
    return " ".join(words).capitalize() or "Answer"


def template_of(roles: Roles) -> str:
    """Return the template: each text after its heading, then the answer's heading."""
    lines = [f"{heading(column)}: {{{column}}}" for column in roles.texts]
    # Words of labels bring their space; a reference text begins on a line of its own.
    end = f"{heading(roles.answer)}:" + ("" if roles.kind == "classification" else "\n")
    return "\n".join([*lines, end])


def hard_templates_of(roles: Roles, labels: Labels | None) -> list[str]:
    """Return candidates for the zero-shot baseline, the template first."""
    template = template_of(roles)
    text, answer = heading(roles.text).lower(), heading(roles.answer).lower()
    body = template.rstrip("\n").rpartition("\n")[0]
    if roles.multilabel:
        return [template, f"{body}\nQuestion: Is this {text} about"]
    if labels is None:
        return [template, f"{body}\n\nWrite the {answer} of this {text}:\n"]
    words = [word.strip() for word in labels.words.values()]
    listed = f"{', '.join(words[:-1])} or {words[-1]}"
    if len(words) > _LISTED or Template(listed).columns:  # braces would be a column
        return [template, f"{body}\nQuestion: What is the {answer} of this {text}?\nAnswer:"]
    return [
        template,
        f"{body}\nQuestion: Is the {answer} of this {text} {listed}?\nAnswer:",
        f"Classify the {text} as {listed}.\n\n{template}",
    ]


def metrics_of(roles: Roles, labels: Labels | None, targets: Sequence[str]) -> tuple[str, ...]:
    """Return metrics, the main one first."""
    if roles.multilabel:
        return ("multilabel_macro_f1", "multilabel_micro_f1", "accuracy")
    if labels is not None:
        return ("macro_f1", "accuracy") if labels.are_skewed else ("accuracy", "macro_f1")
    words = sum(map(count_words, targets)) / max(1, len(targets))
    if words <= _FEW_WORDS:
        return ("exact_match", "chrf")
    characters = "".join("".join(target.split()) for target in targets[:_SAMPLED]).lower()
    # rouge-score drops all other characters.
    mostly_scored = len(_SCORED_BY_ROUGE.findall(characters)) > len(characters) / 2
    return ("chrf", "rougeL") if mostly_scored else ("chrf",)


def task_name(text: str) -> str:
    """Return a text as a task's name, which is a tag on a hub."""
    return _NAME.sub("-", text).strip("-.")[:96].rstrip("-.") or "task"


def _order(label: str) -> tuple[float, str]:
    """Sort numbers by size, and before words."""
    return (float(label) if NUMBER.fullmatch(label) else float("inf"), label)


def _merged(found: Counter[str]) -> dict[str, str]:
    """Map each value to the most frequent spelling, up to case and white space."""
    label_of: dict[str, str] = {}
    for value, _ in sorted(found.items(), key=lambda item: (-item[1], item[0])):
        label_of.setdefault(" ".join(value.split()).casefold(), " ".join(value.split()))
    return {value: label_of[" ".join(value.split()).casefold()] for value in found}
