"""Draft a task file from data: guess, propose, warn, and write on request."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import yaml

from softhub.errors import DatasetError, TaskError
from softhub.files import replace_file
from softhub.tasks.dataset import SPLITS, DatasetSource
from softhub.tasks.drafting.columns import Choices, Roles, describe_columns, guess_roles
from softhub.tasks.drafting.data_checks import check_data, missing_rows
from softhub.tasks.drafting.lengths import LengthCounter, Lengths, measure
from softhub.tasks.drafting.rows import RowSet, divide, read_rows
from softhub.tasks.drafting.sources import Source
from softhub.tasks.drafting.templates import (
    Labels,
    find_labels,
    hard_templates_of,
    metrics_of,
    task_name,
    template_of,
)
from softhub.tasks.task import Task
from softhub.tasks.task_file import parse_task
from softhub.tasks.template import Template

_SAMPLES = 3
_WIDE = 2**31  # columns
_TOKENS_PER_WORD = 2  # generously
_LEAST_NEW_TOKENS, _MOST_NEW_TOKENS = 16, 512


class Sample(NamedTuple):
    """One training example as the model reads it."""

    text: str  # the rendered template
    answer: str  # that is to follow it
    length: int  # of the text


@dataclass(frozen=True)
class Draft:
    """A task file that is not yet written."""

    path: Path
    text: str  # of the file
    task: Task  # in it; its data files are relative
    samples: Sequence[Sample]  # training examples
    lengths: Lengths  # of the training texts
    warnings: Sequence[str]  # about the data
    sizes: Mapping[str, int]  # number of rows of each split
    data: Mapping[str, str]  # files to write next to it, if the rows are divided
    undivided: str | None  # why they cannot be divided, if there is no test split

    def write(self, *, force: bool = False) -> list[Path]:
        """Write the data files and, last, the task file; only by force replace existing ones."""
        folder = self.path.parent
        contents = {folder / name: text for name, text in self.data.items()}
        contents[self.path] = self.text
        existing = next((path for path in contents if path.exists()), None)
        if existing is not None and existing.is_dir():
            raise TaskError(f"{existing}: is a folder; name a file, e.g. {existing / 'task.yaml'}")
        if existing is not None and not force:
            raise TaskError(f"{existing}: already exists; name another file, or use --force")
        try:
            encoded = {path: text.encode() for path, text in contents.items()}
            folder.mkdir(parents=True, exist_ok=True)
            for path, content in encoded.items():
                replace_file(path, content)
        except UnicodeEncodeError as error:
            raise TaskError(
                f"{self.path}: cannot be written, because the name of a file or column contains "
                f"half of a surrogate pair, which is not a character; rename it"
            ) from error
        except OSError as error:
            raise TaskError(f"{self.path}: cannot be written ({error.strerror})") from error
        return [*contents]


def draft_task(
    source: Source,
    path: Path,
    *,
    choices: Choices | None = None,
    counter: LengthCounter | None = None,
    split: bool = False,
) -> Draft:
    """Draft a task file; nothing is written yet.

    Args:
        source: The data, from `find_source`.
        path: Path of the task file.
        choices: The columns that the user named; the rest is guessed.
        counter: Counts the length of texts; the default counts words.
        split: Divide the training rows into train, dev and test files next to the task file.

    Raises:
        DatasetError: If the columns cannot be guessed, or the rows not divided.
        TaskError: If the result is not a valid task.
    """
    roles = guess_roles(describe_columns(source.rows["train"]), choices or Choices())
    data = _divided(source, roles, path) if split else _labeled(source, roles)
    labels = find_labels(data.tables, roles) if roles.kind == "classification" else None
    counter, train = counter or LengthCounter(), data.tables["train"]
    text = write_document(_keys(source, data, roles, labels, path.parent, counter))
    task = _read_back(path, text)
    lengths = measure([row.values for row in train.rows], task.template, counter)
    found = [*check_data(data.tables, roles, labels, lengths), counter.problem(task)]
    return Draft(
        path=path,
        text=text,
        task=task,
        samples=_samples(train, task, counter),
        lengths=lengths,
        warnings=[*data.warnings, *filter(None, found)],
        sizes={split: table.size for split, table in data.tables.items()},
        data=data.files,
        undivided=_why_undivided(data, roles),
    )


class _Data(NamedTuple):
    """The data as the task will read it."""

    dataset: DatasetSource
    tables: Mapping[str, RowSet]
    warnings: Sequence[str]
    files: Mapping[str, str]  # to write


def _divided(source: Source, roles: Roles, path: Path) -> _Data:
    if len(source.rows) > 1:
        raise DatasetError(
            f"the data already has {' and '.join(source.rows)}; --split divides a single table"
        )
    files = {split: str(path.parent.resolve() / f"{split}.jsonl") for split in SPLITS}
    if set(files.values()) & set(source.dataset.data_files.values()):
        raise DatasetError(
            "splitting would overwrite the data itself (train, dev and test.jsonl next to the task "
            "file); put the task file into another folder"
        )
    table = read_rows(source.rows["train"], roles)
    parts = divide(table, roles)
    warnings = [*missing_rows({"train": table})]
    dropped = len(table.rows) - sum(len(part.rows) for part in parts.values())
    if dropped:
        warnings.append(
            f"{dropped} rows of dev and test are left out, because their text is in train too"
        )
    texts = {
        f"{split}.jsonl": "".join(
            f"{json.dumps(row.values, ensure_ascii=False)}\n" for row in part.rows
        )
        for split, part in parts.items()
    }
    return _Data(DatasetSource(data_files=files), parts, warnings, texts)


def _why_undivided(data: _Data, roles: Roles) -> str | None:
    """Return why rows without a test split cannot be divided."""
    try:
        if "test" not in data.tables:
            divide(data.tables["train"], roles)
    except DatasetError as error:
        return str(error)
    return None


def _labeled(source: Source, roles: Roles) -> _Data:
    """Leave out a test split without labels, as many on the Hub; dev serves as a missing test."""
    tables = {split: read_rows(rows, roles) for split, rows in source.rows.items()}
    dataset, texts = source.dataset, list[str]()
    places = dict(dataset.splits or dataset.data_files)
    if "test" in tables and not tables["test"].rows:
        del tables["test"], places["test"]
        texts.append("the test split has no labels")
    if "test" not in tables and "dev" in tables:
        tables["test"], places["test"] = tables.pop("dev"), places.pop("dev")
        texts = texts or ["there is no test split"]
        texts.append("dev serves as test, and a tenth of the groups of train as dev")
    if texts:
        changes: dict[str, Any] = {"splits" if dataset.path else "data_files": places}
        dataset = replace(dataset, **changes)
    if any(table.missing for table in tables.values()):
        dataset = replace(dataset, drop_incomplete=True)
    warnings = ["; ".join(texts)] if texts else []
    return _Data(dataset, tables, [*missing_rows(tables), *warnings], {})


def _keys(
    source: Source,
    data: _Data,
    roles: Roles,
    labels: Labels | None,
    folder: Path,
    counter: LengthCounter,
) -> dict[str, Any]:
    """Return the variables of the task file's template."""
    targets = [] if labels else [row.labels[0] for row in data.tables["train"].rows]
    columns = {"text_column": roles.text, f"{'label' if labels else 'target'}_column": roles.answer}
    if roles.group is not None:
        columns["group_column"] = roles.group
    files = {split: _relative(file, folder) for split, file in data.dataset.data_files.items()}
    return {
        "name": task_name(source.name),
        "origin": source.origin,
        "kind": roles.kind,
        "dataset": replace(data.dataset, data_files=files),
        "columns": columns,
        "multilabel": roles.multilabel,
        "label_map": labels and labels.spellings,
        "template": template_of(roles),
        "verbalizer": labels and labels.words,
        "counts": labels and labels.counts,
        "max_new_tokens": _new_tokens(targets, counter),
        "class_weights": labels and labels.are_skewed,
        "hard_templates": hard_templates_of(roles, labels),
        "metrics": metrics_of(roles, labels, targets),
    }


def _relative(file: str, folder: Path) -> str:
    try:
        return Path(os.path.relpath(file, folder.resolve())).as_posix()
    except ValueError:  # another drive
        return Path(file).as_posix()


def _new_tokens(targets: Sequence[str], counter: LengthCounter) -> int:
    """Return room for all but the longest reference texts, each with its end."""
    alone = Template("{text}")
    lengths = sorted(counter.length(alone, {"text": target}) for target in targets)
    most = lengths[int(0.95 * (len(lengths) - 1))] if lengths else 0
    tokens = most + 1 if counter.unit == "tokens" else _TOKENS_PER_WORD * most
    return max(_LEAST_NEW_TOKENS, min(_MOST_NEW_TOKENS, tokens))


def write_document(keys: Mapping[str, Any]) -> str:
    """Return the text of a task file; of the template's variables, those given are written."""
    source = resources.files(__package__).joinpath("task.yaml.j2").read_text("utf-8")
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"quoted": quoted, "comment": _comment}
    return environment.from_string(source).render(keys)


def quoted(text: str) -> str:
    """Return any text as YAML in double quotes, on one line."""
    dumped = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=_WIDE)
    return str(dumped).removesuffix("\n")


def _comment(text: str) -> str:
    """Return a text that cannot end a comment, and contains nothing that YAML refuses."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())


def _read_back(path: Path, text: str) -> Task:
    """Return the task in the text, so that nothing invalid is ever written."""
    try:
        return Task(**parse_task(yaml.safe_load(text), [item.name for item in fields(Task)]))
    except TaskError as error:
        raise TaskError(f"the draft of {path} is not valid: {error}") from error


def _samples(train: RowSet, task: Task, counter: LengthCounter) -> list[Sample]:
    """Render the first row of each answer, then other rows."""
    firsts = {row.labels: row for row in reversed(train.rows)}
    rows = sorted(train.rows, key=lambda row: (firsts[row.labels] is not row, row.index))
    return [
        Sample(
            task.template.render(row.values),
            _answer(row.labels, task),
            counter.length(task.template, row.values),
        )
        for row in rows[:_SAMPLES]
    ]


def _answer(labels: Sequence[str], task: Task) -> str:
    if task.verbalizer is None:
        return labels[0]
    known = [(task.label_map or {}).get(label, label) for label in labels]
    return ",".join(task.verbalizer.words_of(label)[0] for label in known)
