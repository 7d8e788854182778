"""A task: dataset, template, verbalizer or reference texts, and metrics."""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from softhub.errors import SoftHubWarning, TaskError, did_you_mean
from softhub.metrics import METRICS
from softhub.metrics.label_sets import YES_NO, check_separable, check_yes_no
from softhub.tasks.class_weights import (
    ClassWeights,
    check_class_weights,
    positive_weights,
    training_weights,
)
from softhub.tasks.dataset import DatasetSource, Example, ExampleRows, Splits, SplitsLike
from softhub.tasks.decision import ALWAYS_ANSWER, Decision
from softhub.tasks.generation_options import GENERATION_OPTIONS, check_option
from softhub.tasks.plain_values import Converted
from softhub.tasks.task_file import parse_task, read_yaml, resolve_data_files
from softhub.tasks.template import Template, is_readable, unreadable
from softhub.tasks.verbalizer import Labels, Verbalizer

KINDS = ("classification", "generation")
# The keys of a manifest: all that `predict` needs, and nothing about the data.
RECORD_KEYS = (
    *("name", "kind", "template", "text_column", "verbalizer", "max_length"),
    *("system", "generation", "description", "language"),
)
# Written only if they are used, so that other manifests do not change.
OPTIONAL_RECORD_KEYS = ("multilabel", "yes_no", "decision", "limitations")
_CLASSIFICATION_KEYS = ("verbalizer", "label_column", "label_map", "class_weights")
_FOR_MULTILABEL = "is for multi-label tasks; add multilabel: true, or remove it"
_GENERATION_KEYS = ("target_column", "code_column", "test_column")


def _templates(values: Sequence[Template | str]) -> tuple[Template, ...]:
    if isinstance(values, str):
        raise TaskError(f"found {values!r:.80}; expected a list of templates")
    return tuple(Template.of(value) for value in values)


def _names(values: Sequence[str]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise TaskError(f"found {values!r:.80}; expected a list of metrics")
    return tuple(values)


@dataclass(frozen=True, kw_only=True)
class Task:
    r"""A task that a soft prompt is trained for, evaluated on and used with.

    A template and labels are enough: `Task(template="Review: {text}\nSentiment:",
    labels=["negative", "positive"])`.

    Args:
        labels: In place of a verbalizer: names of labels, whose words are the names, or a mapping
            of label to words.

    Attributes:
        name: Short name, which is also its tag on a hub. The default is the kind.
        kind: `classification` (labels with words) or `generation` (reference texts). The default
            is `classification` if there are labels.
        template: Turns a row into the model's input; may be given as text.
        text_column: The column of the template that may be truncated when a text is too long. The
            default is the template's only column, or `text` if it has several.
        verbalizer: Labels and their words; classification only.
        label_column: The dataset's column of labels; classification only. `label` by default
            where the task has no dataset.
        label_map: Maps the dataset's value (`"0"`, or a name) to the verbalizer's label.
        multilabel: Whether an example may have several labels, or none. Each label is then a
            separate question, which its words ask and `yes_no` answers.
        yes_no: The words of the two answers, for and against a label.
        decision: Turns scores into an answer: temperature, threshold, abstention.
        class_weights: Weights of the labels in the training loss against class imbalance:
            `balanced`, or a number for each; see `softhub.tasks.class_weights`.
        target_column: The dataset's column of reference texts; generation only. `target` by
            default where the task has no dataset.
        code_column: The column of code that an answer continues, if answers are code.
        test_column: The column of code that tests an answer; see `softhub.evaluation.sandbox`.
        metrics: Names of metrics; the first is the main one.
        hard_templates: Candidates for the zero-shot baseline; may be given as text.
        group_column: Identifies rows that belong together (a review, a patient): a group is never
            divided over train and dev, and is resampled as a whole for intervals.
        dataset: The dataset; `None` for a task from a manifest or for rows in memory.
        max_length: Maximum number of text tokens; the text column is truncated to fit. `None` is
            the model's.
        system: System message of a chat, the same for all rows; `None` means that the template is
            plain text.
        generation: Defaults for generation, such as `max_new_tokens`, or `stop`: strings of which
            the first to occur ends a text.
        description: A sentence that describes the task, for cards and for initialization.
        limitations: Limitations of the answers, for cards.
        language: Language of the texts, as an ISO 639-1 code.
    """

    name: str = ""
    kind: str = ""
    template: Converted[Template, Template | str] = Converted(Template.of)  # noqa: RUF009
    text_column: str = ""
    labels: InitVar[Labels | None] = None
    verbalizer: Verbalizer | None = None
    label_column: str | None = None
    label_map: Mapping[str, str] | None = None
    multilabel: bool = False
    yes_no: tuple[str, ...] = YES_NO
    decision: Decision = ALWAYS_ANSWER
    class_weights: ClassWeights | None = None
    target_column: str | None = None
    code_column: str | None = None
    test_column: str | None = None
    metrics: Converted[tuple[str, ...], Sequence[str]] = Converted(_names, ())  # noqa: RUF009
    hard_templates: Converted[tuple[Template, ...], Sequence[Template | str]] = Converted(  # noqa: RUF009
        _templates, ()
    )
    group_column: str | None = None
    dataset: DatasetSource | None = None
    max_length: int | None = None
    system: str | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    limitations: str = ""
    language: str | None = None

    def __post_init__(self, labels: Labels | None) -> None:
        """Fill in defaults and check that the parts fit each other.

        Raises:
            TaskError: Naming the key, what was found, and the fix.
        """
        if labels is not None:
            self._take_labels(labels)
        self._fill_defaults()
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,96}", self.name):
            raise TaskError(
                f"name: found {self.name!r}; expected up to 96 letters, digits, '.', '_' or '-', "
                f"because it becomes a tag on a hub"
            )
        if self.kind not in KINDS:
            raise TaskError(f"kind: unknown kind {self.kind!r}{did_you_mean(self.kind, KINDS)}")
        if self.max_length is not None and self.max_length < 1:
            raise TaskError(f"max_length: found {self.max_length}; expected 1 or more, or no key")
        self._check_answers()
        self._check_metrics()
        self._check_generation()
        self._check_columns()
        self._check_template("template", self.template)
        for template in self.hard_templates:
            self._check_template("hard_templates", template)

    @classmethod
    def from_file(cls, path: str | Path, *, kind: str | None = None) -> "Task":
        """Read a task from a YAML file; paths of data files are relative to it.

        Args:
            path: The YAML file.
            kind: The kind that the task has to be of; None for any.

        Raises:
            TaskError: The file is wrong, or the task is of another kind; the message names the
                file, the key, what was found, and the fix.
        """
        path = Path(path)
        try:
            known = ["labels", *(item.name for item in fields(cls))]
            task = cls(**parse_task(read_yaml(path), known))
        except TaskError as error:
            raise TaskError(f"{path}: {error}") from error
        if kind not in (None, task.kind):
            raise TaskError(
                f"{path}: kind: found {task.kind}; expected {kind}. Use recipes/{task.kind}.py for "
                "this task."
            )
        task._warn_of_glued_words(path)
        task._warn_of_escaped_line_breaks(path)
        if task.dataset is None:
            return task
        return replace(task, dataset=resolve_data_files(task.dataset, path.parent))

    def to_record(self) -> dict[str, Any]:
        """Return the task's part of a manifest: what `predict` needs, as plain JSON values."""
        record = {key: getattr(self, key) for key in RECORD_KEYS}
        record["template"] = self.template.text
        record["verbalizer"] = self.verbalizer.to_record() if self.verbalizer else None
        record["generation"] = dict(self.generation)
        if self.multilabel:
            record |= {"multilabel": True, "yes_no": list(self.yes_no)}
        if self.decision != ALWAYS_ANSWER:
            record["decision"] = self.decision.to_record()
        if self.limitations:
            record["limitations"] = self.limitations
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Task":
        """Build a task from the output of `to_record`; it has no dataset and cannot `load`.

        Args:
            record: The task's part of a manifest.

        Raises:
            TaskError: If the record is not a valid task.
        """
        try:
            return cls(**parse_task(record, (*RECORD_KEYS, *OPTIONAL_RECORD_KEYS)))
        except TaskError as error:
            raise TaskError(f"the manifest's task: {error}") from error

    def load(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Example]:
        """Read and check the examples of a split.

        Args:
            split: `train`, `dev` or `test`.
            limit: Maximum number of examples: a fixed subset, which is the same for the same seed.
            seed: Chooses the subset.

        Raises:
            DatasetError: If the data is missing, damaged or mislabeled; names file and line.
        """
        from softhub.tasks.loading import load_examples

        return load_examples(self, split, limit=limit, seed=seed)

    def load_splits(
        self,
        limits: Mapping[str, int | None] | None = None,
        *,
        per_label: int | None = None,
        seed: int = 0,
    ) -> Splits:
        """Read and check the examples of all three splits.

        Args:
            limits: Maximum number of examples of each split, as in `load`; None for all.
            per_label: For few-shot training: maximum number of examples of each label in train and
                dev; a warning names the labels that have fewer.
            seed: Chooses the examples of each label.

        Raises:
            DatasetError: If the data is missing, damaged or mislabeled; names file and line.
            TaskError: If examples per label are requested of a task without single labels.
        """
        from softhub.tasks.loading import load_splits

        return load_splits(self, limits or {}, per_label=per_label, seed=seed)

    def to_examples(self, rows: ExampleRows) -> list[Example]:
        """Check rows in memory and convert them to examples.

        Args:
            rows: Dicts by column or a `datasets.Dataset`, whose class labels are known by name;
                examples are passed through.

        Raises:
            DatasetError: If a row lacks a value or is mislabeled; names the row.
        """
        from softhub.tasks.loading import to_examples

        return to_examples(self, rows)

    def to_splits(self, data: SplitsLike) -> Splits:
        """Convert data in memory to splits.

        Args:
            data: Splits, which are returned as they are, or rows (see `to_examples`) for `train`
                and, optionally, `dev` (or `validation`) and `test`, such as a
                `datasets.DatasetDict`. Without dev, a tenth of train's groups is held out.

        Raises:
            DatasetError: If train is missing, a split is unknown, or a row is not sound.
        """
        from softhub.tasks.loading import to_splits

        return to_splits(self, data)

    @property
    def judged_as(self) -> str:
        """The kind that metrics must support: `classification`, `multilabel` or `generation`."""
        return "multilabel" if self.multilabel else self.kind

    def training_weights(self, examples: Sequence[Example]) -> dict[str, float] | None:
        """Return the weight of each label in the training loss, or None if all count the same.

        Args:
            examples: The training split.
        """
        if self.class_weights is None or self.verbalizer is None:
            return None
        labels = self.verbalizer.labels
        if self.multilabel:
            return positive_weights(self.class_weights, labels, examples)
        return training_weights(self.class_weights, labels, examples)

    def _take_labels(self, labels: Labels) -> None:
        if self.kind == "generation":
            raise TaskError("labels: does not belong to a task of kind generation; remove it")
        if self.verbalizer is not None:
            raise TaskError("labels: found together with a verbalizer; give only one of the two")
        # After the turn of a chat begins a new one, and words begin it without a space.
        space, end = self.system is None, "?" if self.multilabel else ""
        try:
            verbalizer = Verbalizer.from_labels(labels, space=space, end=end)
        except TaskError as error:
            raise TaskError(f"labels: {error}") from error
        object.__setattr__(self, "verbalizer", verbalizer)

    def _fill_defaults(self) -> None:
        columns = self.template.columns
        kind = self.kind or ("generation" if self.verbalizer is None else "classification")
        defaults = {
            "kind": kind,
            "name": kind,
            "text_column": columns[0] if len(columns) == 1 else "text",
        }
        answer = "label" if kind == "classification" else "target"
        # A template may read a column of that name, where the answers have another.
        if self.dataset is None and answer not in columns:
            defaults[f"{answer}_column"] = answer
        for key, value in defaults.items():
            if not getattr(self, key):
                object.__setattr__(self, key, value)

    def _check_answers(self) -> None:
        classification = self.kind == "classification"
        foreign = _GENERATION_KEYS if classification else _CLASSIFICATION_KEYS
        for key in foreign:
            if getattr(self, key) is not None:
                raise TaskError(f"{key}: does not belong to a task of kind {self.kind}; remove it")
        needed = "label_column" if classification else "target_column"
        if not classification and (self.multilabel or self.decision != ALWAYS_ANSWER):
            raise TaskError("multilabel and decision are for classification only; remove them")
        if classification and self.verbalizer is None:
            raise TaskError("verbalizer: missing; a classification needs labels or a verbalizer")
        if self.dataset is not None and getattr(self, needed) is None:
            raise TaskError(f"{needed}: missing; name the dataset's column of answers")
        if self.verbalizer is not None:
            self._check_labels(self.verbalizer.labels)

    def _check_labels(self, labels: Sequence[str]) -> None:
        for value, label in (self.label_map or {}).items():
            if label not in labels:
                raise TaskError(
                    f"label_map: {value!r} is mapped to {label!r}, which is not a label"
                    f"{did_you_mean(label, labels)}"
                )
        if self.class_weights is not None:
            check_class_weights(self.class_weights, labels)
        if self.multilabel:
            check_separable(labels)
            check_yes_no(self.yes_no)
        elif self.yes_no != YES_NO:
            raise TaskError(f"yes_no: {_FOR_MULTILABEL}")
        elif self.decision.threshold != ALWAYS_ANSWER.threshold:
            raise TaskError(f"decision: threshold {_FOR_MULTILABEL}")

    def _check_metrics(self) -> None:
        for name in self.metrics:
            if name not in METRICS:
                raise TaskError(f"metrics: unknown metric {name!r}{did_you_mean(name, METRICS)}")
            if self.judged_as not in METRICS[name].kinds:
                fitting = [other for other in METRICS if self.judged_as in METRICS[other].kinds]
                raise TaskError(
                    f"metrics: {name} does not support {self.judged_as}; use {', '.join(fitting)}"
                )
            if METRICS[name].input_kind == "outcomes" and self.test_column is None:
                raise TaskError(
                    f"metrics: {name} runs each answer with its tests; name the dataset's column "
                    f"of tests with test_column"
                )

    def _check_generation(self) -> None:
        if self.kind != "generation" and self.generation:
            raise TaskError("generation: a classification does not generate text; remove it")
        for option, value in self.generation.items():
            if option not in GENERATION_OPTIONS:
                raise TaskError(
                    f"generation: unknown option {option!r}"
                    f"{did_you_mean(str(option), GENERATION_OPTIONS)}"
                )
            check_option(option, value)

    def _check_columns(self) -> None:
        if not is_readable(self.text_column):
            raise TaskError(f"text_column: {unreadable(self.text_column)}")
        for column in Template.of(self.system or "").columns:
            raise TaskError(
                f"system: contains {{{column}}}, but a system message is the same for all rows and "
                f"reads no column; move it into the template, or write it without braces"
            )

    def _check_template(self, key: str, template: Template) -> None:
        try:
            template.split(self.text_column)
        except TaskError as error:
            raise TaskError(f"{key}: {error}; the text column is {self.text_column!r}") from error
        hidden = {self.label_column, self.target_column}
        answers = hidden & set(template.columns)
        if answers:
            raise TaskError(
                f"{key}: {template.text!r} shows the model the answer; remove {{{answers.pop()}}}"
            )
        self._check_end(key, template.text)

    def _check_end(self, key: str, text: str) -> None:
        if self.system is not None:
            return  # the chat format is between the template and the words
        spaced = self.verbalizer is not None and self.verbalizer.spaced
        if text.rstrip(" \t") != text or (spaced and text != text.rstrip()):
            reason = "the words begin with it" if spaced else "tokenizers join it to the next word"
            raise TaskError(
                f"{key}: {text!r} ends with white space, but {reason}; end it with "
                f"{text.rstrip().splitlines()[-1]!r}"
            )

    def _warn_of_glued_words(self, path: Path) -> None:
        if self.verbalizer is None or self.system is not None:
            return
        word, end = self.verbalizer.words[0][1][0], self.template.text[-1]
        if word[0].isascii() and word[0].isalnum() and (end.isalnum() or end in ":.?!,;"):
            warnings.warn(
                f"{path}: verbalizer: the template ends with {end!r} and the words begin without "
                f"a space, so the model reads {end + word!r}; write {' ' + word!r}",
                SoftHubWarning,
                stacklevel=3,
            )

    def _warn_of_escaped_line_breaks(self, path: Path) -> None:
        for key, templates in (
            ("template", [self.template]),
            ("hard_templates", self.hard_templates),
        ):
            if any(r"\n" in template.text for template in templates):
                warnings.warn(
                    f"{path}: {key}: has a backslash and an n, which are two characters; for a "
                    f'line break, write "\\n" in double quotes',
                    SoftHubWarning,
                    stacklevel=3,
                )
