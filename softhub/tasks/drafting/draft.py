"""From data to a task file: guess, propose, warn, and write only when asked."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from softhub.errors import DatasetError, TaskError
from softhub.tasks.dataset import SPLITS, DatasetSource
from softhub.tasks.drafting.columns import Choices, Roles, guess_roles, look_at
from softhub.tasks.drafting.data_checks import Finding, find_all, is_skewed, missing_rows
from softhub.tasks.drafting.document import Proposal, write_document
from softhub.tasks.drafting.lengths import Lengths, Ruler, WordRuler, measure
from softhub.tasks.drafting.sources import Source, Table
from softhub.tasks.drafting.splitting import divide
from softhub.tasks.drafting.templates import (
    find_labels,
    hard_templates_of,
    labels_in,
    metrics_of,
    task_name,
    template_of,
)
from softhub.tasks.task import Task
from softhub.tasks.task_file import parse_task

_SAMPLES = 3
_WORDS_TO_TOKENS = 2  # generously
_LEAST_NEW_TOKENS, _MOST_NEW_TOKENS = 16, 512


@dataclass(frozen=True)
class Sample:
    """One training example as the model reads it.

    Attributes:
        text: The rendered template.
        answer: What shall come behind it.
        length: Length of the text, in the ruler's unit.
    """

    text: str
    answer: str
    length: int


@dataclass(frozen=True)
class Draft:
    """A task file that is not yet written.

    Attributes:
        path: Where it will be.
        text: What it will hold.
        task: The same as a task; its data files are relative.
        reasons: For each key that was guessed, its value and why.
        samples: Rendered training examples.
        lengths: How long the training texts are.
        findings: What to know of the data.
        sizes: Rows of each split.
        data: Files to write beside it, by name; empty unless the data is divided.
    """

    path: Path
    text: str
    task: Task
    reasons: Mapping[str, tuple[str, str]]
    samples: Sequence[Sample]
    lengths: Lengths
    findings: Sequence[Finding]
    sizes: Mapping[str, int]
    data: Mapping[str, str] = field(default_factory=dict)

    def write(self, *, force: bool = False) -> list[Path]:
        """Write the data files and, last, the task file.

        Args:
            force: Replace what is there.

        Returns:
            The files.

        Raises:
            TaskError: A file is there already, or the folder cannot be written to.
        """
        folder = self.path.parent
        contents = {folder / name: text for name, text in self.data.items()}
        contents[self.path] = self.text
        there = next((path for path in contents if path.exists()), None)
        if there is not None and there.is_dir():
            raise TaskError(f"{there}: is a folder; name a file, e.g. {there / 'task.yaml'}")
        if there is not None and not force:
            raise TaskError(f"{there}: is there already; name another file, or replace it: --force")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path, text in contents.items():
                _replace(path, text)
        except OSError as error:
            raise TaskError(f"{self.path}: cannot be written ({error.strerror})") from error
        return [*contents]


def draft_task(
    source: Source,
    path: str | Path,
    *,
    choices: Choices | None = None,
    name: str | None = None,
    max_length: int | None = None,
    ruler: Ruler | None = None,
    split: bool = False,
    seed: int = 0,
) -> Draft:
    """Draft a task file; nothing is written yet.

    Args:
        source: The data, from `find_source`.
        path: Where the task file shall be.
        choices: What a person has said about the columns; the rest is guessed.
        name: The task's name; the default is the source's.
        max_length: Most text tokens.
        ruler: Measures texts; the default counts words.
        split: Divide the training rows into train, dev and test files beside the task file.
        seed: Chooses that division.

    Raises:
        DatasetError: If the columns cannot be told, or the rows not divided.
        TaskError: If no sound task comes of it.
    """
    path, ruler = Path(path), ruler or WordRuler()
    roles = guess_roles(look_at(source.table), choices or Choices())
    sets = roles.answer if roles.multilabel else None
    tables = {
        key: Table.read(rows, roles.columns, sets=sets, blanks=roles.side_texts)
        for key, rows in source.rows.items()
    }
    prepared = (
        _divided(source, tables, roles, path, seed) if split else _labelled(source, tables, roles)
    )
    proposal = _propose(source, prepared, roles, name=name, max_length=max_length)
    text = write_document(proposal, path.parent)
    task = _parsed(text, path)
    train = prepared.tables["train"]
    lengths = measure(train, roles, task.template, ruler, max_length=max_length)
    found = find_all(prepared.tables, roles, proposal.labels, lengths)
    return Draft(
        path=path,
        text=text,
        task=task,
        reasons={key: (str(getattr(task, key)), reason) for key, reason in roles.reasons.items()},
        samples=_samples(train, roles, task, ruler),
        lengths=lengths,
        findings=[*prepared.findings, *found, *_word_problems(task, ruler)],
        sizes={key: table.size for key, table in prepared.tables.items()},
        data=prepared.data,
    )


@dataclass(frozen=True)
class _Prepared:
    """The data as the task will have it.

    Attributes:
        dataset: Where it will be.
        tables: Its rows.
        findings: What was seen on the way.
        data: Files to write.
    """

    dataset: DatasetSource
    tables: Mapping[str, Table]
    findings: Sequence[Finding]
    data: Mapping[str, str] = field(default_factory=dict)


def _divided(
    source: Source, tables: Mapping[str, Table], roles: Roles, path: Path, seed: int
) -> _Prepared:
    if len(tables) > 1:
        raise DatasetError(
            f"the data has {' and '.join(tables)} already; --split divides a single table"
        )
    table = tables["train"]
    parts = divide(table, roles, seed=seed)
    names = {split: f"{split}.jsonl" for split in SPLITS}
    files = {split: str(path.parent.resolve() / name) for split, name in names.items()}
    if set(files.values()) & set(source.dataset.data_files.values()):
        raise DatasetError(
            f"dividing would replace the data itself ({', '.join(names.values())} beside the task "
            f"file); put the task file into another folder"
        )
    left_out = len(table.whole) - sum(map(len, parts.values()))
    findings = [*missing_rows(tables)]
    if left_out:
        findings.append(
            Finding(
                "left-out",
                f"{left_out} rows are left out of dev and test, because their text is in train",
            )
        )
    plain = [column for column in source.plain_columns if column not in roles.columns]
    others = Table.read(source.rows["train"], plain)
    everything = replace(table, columns={**table.columns, **others.columns})
    return _Prepared(
        dataset=DatasetSource(data_files=files),
        tables={split: table.take(rows) for split, rows in parts.items()},
        findings=findings,
        data={names[split]: _json_lines(everything, rows) for split, rows in parts.items()},
    )


def _json_lines(table: Table, rows: Sequence[int]) -> str:
    lines = (json.dumps(table.row(row), ensure_ascii=False) for row in rows)
    return "".join(f"{line}\n" for line in lines)


def _labelled(source: Source, tables: Mapping[str, Table], roles: Roles) -> _Prepared:
    """Do without a test split that has no labels, as many on the Hub: dev serves as test."""
    findings = [*missing_rows(tables)]
    kept, dataset = dict(tables), source.dataset
    if "test" in kept and not any(
        value is not None for value in kept["test"].columns[roles.answer]
    ):
        places = dict(dataset.splits or dataset.data_files)
        del kept["test"], places["test"]
        findings = [*missing_rows(kept)]
        if "dev" in kept:
            kept["test"], places["test"] = kept.pop("dev"), places.pop("dev")
        findings.append(
            Finding(
                "unlabelled",
                "the test split has no labels"
                + ("; dev serves as test, and a tenth of train as dev" if "test" in kept else ""),
            )
        )
        if dataset.path is None:
            dataset = replace(dataset, data_files=places)
        else:
            dataset = replace(dataset, splits=places)
    if any(len(table.whole) < table.size for table in kept.values()):
        dataset = replace(dataset, drop_incomplete=True)
    return _Prepared(dataset, kept, findings)


def _propose(
    source: Source,
    prepared: _Prepared,
    roles: Roles,
    *,
    name: str | None,
    max_length: int | None,
) -> Proposal:
    labels, targets = None, list[str]()
    if roles.kind == "classification":
        labels = find_labels(prepared.tables, roles)
    else:
        answers = prepared.tables["train"].columns[roles.answer]
        targets = [str(answer) for answer in answers if answer is not None]
    words = sorted(len(target.split()) for target in targets)
    skewed = labels is not None and is_skewed(labels)
    return Proposal(
        name=name or task_name(source.name),
        origin=source.origin,
        dataset=prepared.dataset,
        roles=roles,
        labels=labels,
        template=template_of(roles),
        hard_templates=hard_templates_of(roles, labels),
        metrics=metrics_of(roles, skewed=skewed, target_words=sum(words) / max(1, len(words))),
        skewed=skewed,
        max_length=max_length,
        new_tokens=_new_tokens(words),
    )


def _new_tokens(words: Sequence[int]) -> int:
    """Room for all but the longest reference texts."""
    most = words[int(0.95 * (len(words) - 1))] if words else 0
    return max(_LEAST_NEW_TOKENS, min(_MOST_NEW_TOKENS, _WORDS_TO_TOKENS * most))


def _parsed(text: str, path: Path) -> Task:
    """Read what is to be written, so that nothing unsound ever is."""
    try:
        return Task(**parse_task(yaml.safe_load(text), [item.name for item in fields(Task)]))
    except TaskError as error:
        raise TaskError(f"the draft of {path} is not sound: {error}") from error


def _samples(table: Table, roles: Roles, task: Task, ruler: Ruler) -> list[Sample]:
    """Render rows of different labels, the first of each; else just the first rows."""
    answers = table.columns[roles.answer]
    firsts: dict[Any, int] = {}
    for row in table.whole:
        firsts.setdefault(answers[row] if task.verbalizer else row, row)
    others = (row for row in table.whole if row not in firsts.values())
    chosen = [*firsts.values(), *others][:_SAMPLES]
    return [_sample(table.row(row), roles, task, ruler) for row in chosen]


def _sample(row: Mapping[str, Any], roles: Roles, task: Task, ruler: Ruler) -> Sample:
    answer = row[roles.answer]
    words = str(answer)
    if task.verbalizer is not None:
        known = [(task.label_map or {}).get(label, label) for label in labels_in(answer)]
        words = ",".join(task.verbalizer.words_of(label)[0] for label in known)
    return Sample(task.template.render(row), words, ruler.length(task.template, row))


def _word_problems(task: Task, ruler: Ruler) -> list[Finding]:
    problem = ruler.problem(task)
    return [Finding("words", problem)] if problem else []


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
