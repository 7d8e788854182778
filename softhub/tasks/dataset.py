"""Examples, the splits they come in, and the dataset they are read from."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from softhub.errors import TaskError, did_you_mean


@dataclass(frozen=True)
class Example:
    """One row of a task, read and checked.

    Attributes:
        row: Values of the columns that the task's templates read.
        label: The verbalizer's label, for classification.
        target: The reference text, for generation.
        group: Group of the example (a review, a patient), which is never divided over splits.
        text_column: The column that contains the example's own text.
        soft_label: The probability of each label, for classification: the target of training in
            place of the label. In a multi-label task the probabilities are independent.
        place: Where it was read from (file and line), for messages; does not tell examples apart.
    """

    row: Mapping[str, Any]
    label: str | None = None
    target: str | None = None
    group: str | None = None
    text_column: str = "text"
    soft_label: Mapping[str, float] | None = None
    place: str = field(default="", compare=False, repr=False)

    @property
    def text(self) -> str:
        """The example's own text, without the template."""
        return str(self.row[self.text_column])


class Splits(NamedTuple):
    """The examples of a task.

    Attributes:
        train: Examples that the prompt is trained on.
        dev: Examples that choose the best checkpoint, the hard prompt and the temperature.
        test: Examples that final scores are computed on; may be empty.
    """

    train: list[Example]
    dev: list[Example]
    test: list[Example]


SPLITS = Splits._fields

ExampleRows = Iterable[Mapping[str, Any] | Example]
"""Rows in memory: dicts by column, a `datasets.Dataset`, or examples."""

SplitsLike = Splits | Mapping[str, ExampleRows]
"""Splits, or rows for `train` and, optionally, `dev` (or `validation`) and `test`."""


@dataclass(frozen=True, kw_only=True)
class DatasetSource:
    """A dataset on the Hugging Face Hub, or local files.

    Attributes:
        path: Id of a dataset on the Hub, e.g. `stanfordnlp/sst2`.
        name: Its configuration, if it has several.
        revision: Its commit, tag or branch.
        data_files: In place of `path`: for each split a text file (json, jsonl, ndjson, csv or tsv,
            also compressed by gzip), a parquet, arrow, feather or xlsx file, or a folder that
            `Dataset.save_to_disk` wrote.
        splits: For `path`: maps `train`, `dev` and `test` to the dataset's names of splits.
        drop_incomplete: Drop rows that lack a value which the task reads, and warn about their
            number. Otherwise such a row is an error.
        prepare: The command that creates the data files; shown if they are missing, never run.
        license: License of the data.
        source: Who created the data, and where it is.
    """

    path: str | None = None
    name: str | None = None
    revision: str | None = None
    data_files: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
    drop_incomplete: bool = False
    prepare: str | None = None
    license: str | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        """Check that the source names data, and only one kind of it.

        Raises:
            TaskError: If the keys contradict each other or name an unknown split.
        """
        if (self.path is None) == (not self.data_files):
            raise TaskError(
                "expected either path (a dataset on the Hub) or data_files "
                f"(local files), found {'neither' if self.path is None else 'both'}"
            )
        if self.path is None:
            self._refuse_hub_keys()
        elif not self.splits:
            raise TaskError(
                f"splits are missing; name the splits of {self.path} to use, "
                f"e.g. splits: {{train: train, dev: validation, test: test}}"
            )
        for split in self.split_names:
            if split not in SPLITS:
                raise TaskError(f"unknown split {split!r}{did_you_mean(split, SPLITS)}")

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits that exist in the source, under softhub's names."""
        return tuple(self.splits if self.path is not None else self.data_files)

    def _refuse_hub_keys(self) -> None:
        for key in ("name", "revision", "splits"):
            if getattr(self, key):
                raise TaskError(
                    f"{key} belongs to a dataset on the Hub (path); with data_files "
                    f"the keys are the splits, so remove {key}"
                )


def dataset_hash(examples: Iterable[Example]) -> str:
    """Return a hash that identifies a set of examples, for provenance.

    Args:
        examples: The examples, in order.

    Returns:
        SHA-256 (64 hex digits) of rows, labels, targets and groups, and of soft labels if there
        are any.
    """
    digest = hashlib.sha256()
    for example in examples:
        record = [dict(example.row), example.label, example.target, example.group]
        if example.soft_label is not None:
            record.append(dict(example.soft_label))
        line = json.dumps(record, sort_keys=True, ensure_ascii=False, default=str)
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()
