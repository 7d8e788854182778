"""The task file as text: every key with the reason for its value."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from softhub.tasks.dataset import DatasetSource
from softhub.tasks.drafting.columns import Roles
from softhub.tasks.drafting.templates import Labels

_WIDE = 2**31


@dataclass(frozen=True)
class Proposal:
    """All that goes into a task file.

    Attributes:
        name: The task's name.
        origin: What it was drafted from, for the first line.
        dataset: Where the data is.
        roles: What the columns are.
        labels: The labels, for classification.
        template: The template.
        hard_templates: Candidates for the zero-shot baseline.
        metrics: Metrics, the main one first.
        skewed: Whether one label is far commoner than another.
        max_length: Most text tokens; None for the model's own limit.
        new_tokens: Most tokens of a generated text.
    """

    name: str
    origin: str
    dataset: DatasetSource
    roles: Roles
    labels: Labels | None
    template: str
    hard_templates: Sequence[str]
    metrics: Sequence[str]
    skewed: bool
    max_length: int | None
    new_tokens: int


def write_document(proposal: Proposal, folder: Path) -> str:
    """Return the task file.

    Args:
        proposal: What goes into it.
        folder: Where it will lie; data files are named relative to it.
    """
    roles = proposal.roles
    lines = [
        f"# Drafted by softhub init-task from {_comment(proposal.origin)}. Read it through: all",
        "# that was guessed says why, and every line is yours to change.",
        f"name: {quoted(proposal.name)}",
        f"kind: {roles.kind}{_why(roles, 'kind')}",
        "# description: What the task is, in a sentence; training starts from it.",
        "# language: en  # of the texts, as an ISO 639-1 code",
        "",
        *_dataset_lines(proposal.dataset, folder),
        f"text_column: {quoted(roles.text)}{_why(roles, 'text_column')}",
        *_answer_lines(proposal),
        *_group_lines(roles),
        _length_line(proposal.max_length),
        "",
        *_template_lines(proposal),
        "",
        "# The zero-shot baseline is the best of these on dev: put in your own prompts.",
        "hard_templates:",
        *(f"  - {quoted(template)}" for template in proposal.hard_templates),
        "",
        f"metrics: [{', '.join(proposal.metrics)}]  # the first one is the main one",
    ]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """Return a text as YAML in double quotes, on one line: any text, whatever it looks like."""
    dumped = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=_WIDE)
    return str(dumped).removesuffix("\n")


def _comment(text: str) -> str:
    """Return a text that cannot end a comment, nor hold what YAML refuses."""
    kept = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(kept.split())


def _why(roles: Roles, key: str) -> str:
    return f"  # {_comment(roles.reasons[key])}" if key in roles.reasons else ""


def _dataset_lines(dataset: DatasetSource, folder: Path) -> Iterable[str]:
    yield "dataset:"
    if dataset.path is None:
        yield "  data_files:  # relative to this file"
        for split, file in dataset.data_files.items():
            yield f"    {split}: {quoted(_relative(file, folder))}"
    else:
        keys: Mapping[str, str | None] = {
            "path": dataset.path,
            "name": dataset.name,
            "revision": dataset.revision,
        }
        yield from (f"  {key}: {quoted(value)}" for key, value in keys.items() if value)
        yield "  splits:  # ours: the dataset's"
        yield from (f"    {ours}: {quoted(theirs)}" for ours, theirs in dataset.splits.items())
    if "dev" not in dataset.split_names:
        yield "  # There is no dev: a tenth of train is held out to choose the best checkpoint by."
    if dataset.drop_incomplete:
        yield "  drop_incomplete: true  # some rows lack a value; without this they are an error"
    yield "  # license: What the data may be used for."
    yield "  # source: Who made the data, and where."


def _relative(file: str, folder: Path) -> str:
    try:
        return Path(os.path.relpath(file, folder.resolve())).as_posix()
    except ValueError:  # another drive
        return Path(file).as_posix()


def _answer_lines(proposal: Proposal) -> Iterable[str]:
    key = "label_column" if proposal.labels else "target_column"
    yield f"{key}: {quoted(proposal.roles.answer)}{_why(proposal.roles, key)}"
    if proposal.roles.multilabel:
        yield "multilabel: true  # each label is a question of its own, answered by yes or no"
    spellings = proposal.labels.spellings if proposal.labels else {}
    if spellings:
        yield "label_map:  # as it is spelt in the data: the label"
        yield from (f"  {quoted(value)}: {quoted(label)}" for value, label in spellings.items())


def _group_lines(roles: Roles) -> Iterable[str]:
    if roles.group is None:
        yield "# group_column: review_id  # rows that belong together: never on both sides"
    else:
        yield f"group_column: {quoted(roles.group)}{_why(roles, 'group_column')}"


def _length_line(max_length: int | None) -> str:
    if max_length is None:
        return "# max_length: 512  # tokens at which a text is cut; without it the model's limit"
    return f"max_length: {max_length}  # tokens at which a text is cut"


def _template_lines(proposal: Proposal) -> Iterable[str]:
    labels = proposal.labels
    if labels is None:
        yield "# What the model reads; it goes on with the reference text, on a line of its own."
        yield f"template: {quoted(proposal.template)}"
        yield "generation:"
        yield f"  max_new_tokens: {proposal.new_tokens}"
        return
    yield "# What the model reads. It ends without a space, so the space belongs to the words."
    yield f"template: {quoted(proposal.template)}"
    what = "question that asks for" if proposal.roles.multilabel else "word that stands for"
    yield f"# Label: the {what} it (or a list of such)."
    yield "verbalizer:"
    for label, word in labels.words.items():
        yield f"  {quoted(label)}: {quoted(word)}  # {labels.counts[label]} training rows"
    if proposal.skewed:
        yield "class_weights: balanced  # rare labels count more in training; remove it to compare"
