"""`softhub.json`: the task, provenance and metrics of a soft prompt."""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from softhub.adapter import layout
from softhub.adapter.portable import check_base_model
from softhub.adapter.strict_json import check_value, parse_object, quoted
from softhub.errors import InvalidAdapter, TaskError

if TYPE_CHECKING:
    from softhub.tasks import Task

SCHEMA_VERSION = 2
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: lambda record: {**record, "prefix": None},  # version 1 knew prompts `[P, H]` only
}
"""Migrations to the next schema version, by version; each returns the new record."""

TASK_TYPES = ("CAUSAL_LM", "SEQ_2_SEQ_LM")
MAX_VIRTUAL_TOKENS = 100_000
MAX_HIDDEN_SIZE = 131_072
MAX_LAYERS = 1_024
PROMPT_TYPES = ("prompt", "prefix")
"""Kinds of soft prompts: input embeddings, or keys and values of every layer."""
METHOD_OF_TYPE = {"prompt": "soft prompt", "prefix": "prefix"}
"""The method's name in tables of results, by prompt type."""

_MAX_LINE = 256
_ROOM_BESIDE_TASK = 32_768
"""Bytes for everything but the task: several times those of a usual fingerprint and provenance."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_ORIGIN = layout.MANIFEST


@dataclass(frozen=True)
class RecordedMetric:
    """One score of a prompt on one split, with the baselines to compare it with.

    Attributes:
        name: Such as `accuracy`.
        value: The score on all examples of the split.
        low: Lower end of the 95 % interval, or None if there is none.
        high: Upper end of it.
        split: The split that was scored, such as `test`.
        examples: Number of examples in that split.
        baselines: The same score without the prompt, such as `{"majority": …, "zero-shot": …}`.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    split: str
    examples: int
    baselines: Mapping[str, float]

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InvalidAdapter: A field has the wrong type or is out of its range.
        """
        _check_line(self.name, "metrics.name")
        _check_line(self.split, "metrics.split")
        _check_number(self.value, "metrics.value")
        for bound in (self.low, self.high):
            if bound is not None:
                _check_number(bound, "the interval of metrics")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise _wrong("the interval of metrics", [self.low, self.high], "low not above high")
        _check_count(self.examples, "metrics.examples", 0, 2**53)
        _check_mapping(self.baselines, "metrics.baselines")
        for name, value in self.baselines.items():
            _check_line(name, "a name in metrics.baselines")
            _check_number(value, "metrics.baselines")


@dataclass(frozen=True)
class PrefixShape:
    """Keys and values that each virtual token of a prefix has.

    Attributes:
        num_layers: Layers of the base model.
        num_key_value_heads: Heads of keys, and of values, in each layer.
        head_dim: Width of a head.
    """

    num_layers: int
    num_key_value_heads: int
    head_dim: int

    @property
    def layer_width(self) -> int:
        """Numbers of one token's keys in a layer, and of its values; PEFT's `token_dim`."""
        return self.num_key_value_heads * self.head_dim

    @property
    def width(self) -> int:
        """Numbers of one virtual token: for each layer its keys, then its values."""
        return 2 * self.num_layers * self.layer_width


@dataclass(frozen=True)
class Manifest:
    """Everything about a soft prompt except its vectors; checked on creation.

    Attributes:
        base_model: Name of the base as on the Hub, `org/name` or `name`; never a path.
        task_type: PEFT's task type, one of `TASK_TYPES`.
        num_virtual_tokens: P.
        hidden_size: H; None for a prefix.
        base_revision: Commit or tag of the base, if known.
        base_quantization: How the base's weights were stored during training, such as `Q4_1`.
        fingerprint: What identifies the base beyond its name.
        task: What prediction needs: template, verbalizer and so on; None in foreign adapters.
        provenance: Dataset, seed, config, package versions, parent prompt.
        metrics: Scores with intervals and baselines.
        license: License of the prompt, as the Hub spells it.
        files: SHA-256 by name of the weights and the config.
        softhub_version: The version that wrote this.
        prefix: Shape of a prefix: keys and values of every layer; None for input embeddings.
        schema_version: Version of this record's fields.
    """

    base_model: str
    task_type: str
    num_virtual_tokens: int
    hidden_size: int | None
    base_revision: str | None
    base_quantization: str | None
    fingerprint: Mapping[str, Any] | None
    task: Mapping[str, Any] | None
    provenance: Mapping[str, Any]
    metrics: tuple[RecordedMetric, ...]
    license: str | None
    files: Mapping[str, str]
    softhub_version: str
    prefix: PrefixShape | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InvalidAdapter: A field has the wrong type or is out of its range.
        """
        check_base_model(self.base_model)
        if self.task_type not in TASK_TYPES:
            raise _wrong("task_type", self.task_type, " or ".join(TASK_TYPES))
        _check_count(self.num_virtual_tokens, "num_virtual_tokens", 1, MAX_VIRTUAL_TOKENS)
        if self.prefix is None:
            _check_count(self.hidden_size, "hidden_size", 1, MAX_HIDDEN_SIZE)
        else:
            self._check_prefix(self.prefix)
        for field in ("base_revision", "base_quantization", "license"):
            if getattr(self, field) is not None:
                _check_line(getattr(self, field), field)
        _check_line(self.softhub_version, "softhub_version")
        if self.schema_version != SCHEMA_VERSION or isinstance(self.schema_version, bool):
            raise _wrong("schema_version", self.schema_version, str(SCHEMA_VERSION))
        self._check_records()

    def _check_prefix(self, prefix: PrefixShape) -> None:
        if not isinstance(prefix, PrefixShape):
            raise _wrong("prefix", prefix, "a PrefixShape")
        limits = (MAX_LAYERS, MAX_HIDDEN_SIZE, MAX_HIDDEN_SIZE)
        for field, limit in zip(dataclasses.fields(PrefixShape), limits, strict=True):
            _check_count(getattr(prefix, field.name), f"prefix.{field.name}", 1, limit)
        if self.hidden_size is not None:
            raise _wrong("hidden_size", self.hidden_size, "null, because the prompt is a prefix")
        if self.task_type != "CAUSAL_LM":
            raise _wrong("task_type", self.task_type, "CAUSAL_LM for a prefix")

    @property
    def prompt_type(self) -> str:
        """One of `PROMPT_TYPES`."""
        return "prompt" if self.prefix is None else "prefix"

    @property
    def width(self) -> int:
        """Numbers of one virtual token."""
        width = self.hidden_size if self.prefix is None else self.prefix.width
        assert width is not None  # checked on creation
        return width

    def _check_records(self) -> None:
        if self.fingerprint is not None:
            _check_mapping(self.fingerprint, "fingerprint")
        if self.task is not None:
            _check_task(self.task)
        _check_mapping(self.provenance, "provenance")
        if not isinstance(self.metrics, tuple) or not all(
            isinstance(metric, RecordedMetric) for metric in self.metrics
        ):
            raise _wrong("metrics", self.metrics, "a tuple of RecordedMetric")
        _check_files(self.files)

    def to_bytes(self) -> bytes:
        """Return the manifest as canonical JSON: equal manifests give equal bytes.

        Raises:
            InvalidAdapter: It is larger than a manifest may be.
        """
        data = _encoded(dataclasses.asdict(self))
        limit = layout.MAX_BYTES[layout.MANIFEST]
        if len(data) > limit:
            raise InvalidAdapter(
                f"{_ORIGIN} would have {len(data)} bytes; the limit is {limit}. "
                "Shorten `task` or `provenance`."
            )
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Read `softhub.json`, migrating a record of an older schema.

        Raises:
            InvalidAdapter: The record is malformed, has unknown or missing keys, or was
                written by a newer softhub.
        """
        if len(data) > layout.MAX_BYTES[layout.MANIFEST]:
            raise InvalidAdapter(
                f"{_ORIGIN} has {len(data)} bytes; the limit is "
                f"{layout.MAX_BYTES[layout.MANIFEST]}."
            )
        record = _migrated(parse_object(data, origin=_ORIGIN))
        _check_keys(record, cls, _ORIGIN)
        metrics = record["metrics"]
        if not isinstance(metrics, list):
            raise _wrong("metrics", metrics, "a list")
        prefix = record["prefix"]
        if prefix is not None:
            _check_keys(prefix, PrefixShape, f"prefix in {_ORIGIN}")
            prefix = PrefixShape(**prefix)
        parts = {"metrics": tuple(_metric(entry) for entry in metrics), "prefix": prefix}
        return cls(**{**record, **parts})


def check_task(task: "Task") -> None:
    """Check that an adapter can hold a task, so that no prompt is trained that cannot be saved.

    Args:
        task: The task that a prompt is to be trained for.

    Raises:
        TaskError: A manifest would refuse its record, or have no room for it.
    """
    record = task.to_record()
    if task.class_weights is not None and task.verbalizer is not None:
        record["class_weights"] = dict.fromkeys(task.verbalizer.labels, 1 / 3)  # in provenance
    try:
        _check_task(record)
    except InvalidAdapter as error:
        raise TaskError(f"the task {task.name} cannot be saved in an adapter: {error}") from error
    size = len(_encoded({"task": record}))
    limit = layout.MAX_BYTES[layout.MANIFEST] - _ROOM_BESIDE_TASK
    if size > limit:
        raise TaskError(
            f"the task {task.name} cannot be saved in an adapter: it would take {size} bytes of "
            f"{_ORIGIN}, whose limit for a task is {limit}; shorten its labels, words or texts, or "
            f"divide it into several tasks"
        )


def _encoded(record: Mapping[str, Any]) -> bytes:
    """Return a record as canonical JSON."""
    text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def _check_task(record: Mapping[str, Any]) -> None:
    _check_mapping(record, "task")
    for field in ("name", "kind", "language"):
        if record.get(field) is not None:
            _check_line(record[field], f"task.{field}")


def _migrated(record: dict[str, Any]) -> dict[str, Any]:
    version = record.get("schema_version")
    _check_count(version, "schema_version", 0, 2**53)
    assert isinstance(version, int)
    if version > SCHEMA_VERSION:
        raise InvalidAdapter(
            f"{_ORIGIN} has schema version {version}; this softhub reads up to {SCHEMA_VERSION}. "
            "Upgrade softhub."
        )
    for step in range(version, SCHEMA_VERSION):
        if step not in MIGRATIONS:
            raise _wrong("schema_version", version, str(SCHEMA_VERSION))
        record = {**MIGRATIONS[step](record), "schema_version": step + 1}
    return record


def _metric(entry: object) -> RecordedMetric:
    _check_keys(entry, RecordedMetric, f"an entry of metrics in {_ORIGIN}")
    assert isinstance(entry, dict)
    return RecordedMetric(**entry)


def _check_keys(record: object, kind: type, origin: str) -> None:
    if not isinstance(record, dict):
        raise InvalidAdapter(f"{origin} is {quoted(record)}; expected an object.")
    expected = {field.name for field in dataclasses.fields(kind)}
    unknown, missing = sorted(set(record) - expected), sorted(expected - set(record))
    if unknown:
        raise InvalidAdapter(
            f"{origin} has the unknown key {quoted(unknown[0])}; expected {sorted(expected)}."
        )
    if missing:
        raise InvalidAdapter(f"{origin} lacks the key {missing[0]!r}.")


def _wrong(field: str, found: object, expected: str) -> InvalidAdapter:
    return InvalidAdapter(f"{field} in {_ORIGIN} is {quoted(found)}; expected {expected}.")


def _check_line(value: object, field: str) -> None:
    """Reject text that a table cannot show: several lines, control or direction marks."""
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_LINE or _UNPRINTABLE.search(value):
        raise _wrong(field, value, f"one printable line of 1 to {_MAX_LINE} characters")


def _check_number(value: object, field: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _wrong(field, value, "a finite number")


def _check_count(value: object, field: str, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _wrong(field, value, f"an integer from {low} to {high}")


def _check_mapping(value: object, field: str) -> None:
    if not isinstance(value, Mapping):
        raise _wrong(field, value, "an object")
    check_value(value, origin=f"{field} in {_ORIGIN}")


def _check_files(files: object) -> None:
    _check_mapping(files, "files")
    assert isinstance(files, Mapping)
    for name, digest in files.items():
        if name not in layout.REQUIRED:
            raise _wrong("files", name, f"hashes of {' and '.join(layout.REQUIRED)} only")
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise _wrong(f"files.{name}", digest, "a SHA-256 in lower-case hexadecimal")
