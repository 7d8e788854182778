"""Records of a hub: commits on disk, and the two descriptions that callers get."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

from softhub.adapter.layout import FILES, MAX_BYTES, REQUIRED, WEIGHTS, sha256_of
from softhub.adapter.manifest import RecordedMetric
from softhub.adapter.strict_json import parse_object, quoted
from softhub.errors import InvalidAdapter
from softhub.hub.names import is_commit

COMMIT_SCHEMA = 1
MAX_COMMIT_BYTES = 64 * 1024
MAX_MESSAGE = 2_000
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and SHA-256 of one file of a commit."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> FileEntry:
        """Return size and hash of `data`."""
        return cls(len(data), sha256_of(data))


@dataclass(frozen=True)
class Commit:
    """One state of a repository in the local hub; its hash is its name.

    Attributes:
        parent: Commit before this one, or None for the first.
        author: Name of the account that pushed.
        date: UTC time of the push, ISO 8601 with milliseconds.
        message: The commit's message.
        files: Size and hash of every file, by name.
    """

    parent: str | None
    author: str
    date: str
    message: str
    files: Mapping[str, FileEntry]

    def to_bytes(self) -> bytes:
        """Return the canonical record: sorted keys, no spaces, UTF-8."""
        record = {
            "schema_version": COMMIT_SCHEMA,
            "parent": self.parent,
            "author": self.author,
            "date": self.date,
            "message": self.message,
            "files": {name: asdict(entry) for name, entry in self.files.items()},
        }
        text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return text.encode()

    @property
    def id(self) -> str:
        """First 40 hexadecimal digits of the record's SHA-256: what HF tools take for a commit."""
        return commit_id(self.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes, *, expected: str, origin: str) -> Commit:
        """Read a record and check that it is the one called `expected`.

        Raises:
            InvalidAdapter: The record was altered, or is not a commit.
        """
        if commit_id(data) != expected:
            raise InvalidAdapter(
                f"{origin} was altered: its hash is {commit_id(data)}, expected {expected}; "
                "restore the file from a backup of the hub, or push again"
            )
        try:
            return cls._from_record(parse_object(data, origin=origin))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidAdapter(
                f"{origin} is not a commit record of schema {COMMIT_SCHEMA}: {error}; "
                "upgrade softhub or push again"
            ) from error

    @classmethod
    def _from_record(cls, record: Mapping[str, Any]) -> Commit:
        if record["schema_version"] != COMMIT_SCHEMA:
            raise ValueError(f"found schema {record['schema_version']}")
        parent = record["parent"]
        if parent is not None and not is_commit(parent):
            raise ValueError("the parent is not a commit hash")
        files = {name: FileEntry(**entry) for name, entry in record["files"].items()}
        for name, entry in files.items():
            if name not in FILES or type(entry.size) is not int:
                raise ValueError(f"{quoted(name)} of size {quoted(entry.size)} does not belong")
            if not 0 <= entry.size <= MAX_BYTES[name]:
                raise ValueError(f"{name!r} of {entry.size} bytes does not belong in an adapter")
            if not _SHA256.fullmatch(entry.sha256):
                raise ValueError(f"the SHA-256 of {name!r} is {quoted(entry.sha256)}")
        if missing := set(REQUIRED) - set(files):
            raise ValueError(f"it has no {min(missing)}")
        return cls(
            parent, str(record["author"]), str(record["date"]), str(record["message"]), files
        )


def commit_id(record: bytes) -> str:
    """Return the name of a commit whose canonical record is `record`."""
    return hashlib.sha256(record).hexdigest()[:40]


def now() -> str:
    """Return the current time as commits write it: UTC, ISO 8601, milliseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def plain(text: str, *, most: int = 200) -> str:
    """Return `text` on one line and safe to print, truncated to `most` characters.

    Control characters, the start of escape sequences, and marks that reverse the reading direction
    or hide text are removed or become spaces, because untrusted texts are printed to terminals.
    """
    if len(text) <= most and text.isprintable() and "  " not in text and text == text.strip():
        return text
    printable = (
        " " if character.isspace() else character
        for character in text[: 4 * most]
        if character.isspace() or unicodedata.category(character)[0] != "C"
    )
    line = " ".join("".join(printable).split())
    return line if len(line) <= most else line[: most - 1] + "…"


@dataclass(frozen=True)
class CommitInfo:
    """One entry of a repository's history.

    Attributes:
        repo_id: The repository.
        revision: The commit's 40-digit hash.
        parent: The commit before, or None.
        author: Name of the account that pushed.
        date: UTC, ISO 8601.
        message: The commit's message.
        tags: Tags that point here.
        metrics: The metrics in the manifest of this commit.
        weights_sha256: Hash of the weights file, for `expect_sha256` and lock files.
        created: False where a push found nothing to change.
    """

    repo_id: str
    revision: str
    parent: str | None
    author: str
    date: str
    message: str
    tags: tuple[str, ...] = ()
    metrics: tuple[RecordedMetric, ...] = ()
    weights_sha256: str | None = None
    created: bool = True

    @classmethod
    def of(cls, repo_id: str, commit: Commit, **known: Any) -> CommitInfo:
        """Describe a commit of the local hub; `known` are tags, metrics and `created`."""
        weights = commit.files.get(WEIGHTS)
        return cls(
            repo_id=repo_id,
            revision=commit.id,
            parent=commit.parent,
            author=plain(commit.author),
            date=plain(commit.date),
            message=plain(commit.message, most=MAX_MESSAGE),
            weights_sha256=weights.sha256 if weights else None,
            **known,
        )


@dataclass(frozen=True)
class AdapterInfo:
    """Description of one adapter on a hub; every text is safe to print.

    Attributes:
        repo_id: `namespace/name`.
        revision: 40-digit hash of the commit that is described.
        tags: Tags of the repository, as revisions that can be pulled.
        keywords: The card's `tags`.
        task: Name of the task, or None if there is no manifest.
        task_kind: `classification`, `generation`, or None.
        base_model: Hub id of the base model.
        fingerprint: What identifies the base beyond its name, or None.
        score: Name and value of the leading metric.
        metrics: All recorded metrics.
        datasets: Hub ids or names of the training data.
        num_virtual_tokens: P, or None where the hub does not say.
        hidden_size: H, or None for a prefix and where the hub does not say.
        prompt_type: `prompt` (input embeddings), `prefix` (keys and values of every layer), or None
            where the hub does not say.
        total_bytes: Bytes of all files together.
        weights_sha256: Hash of the weights file.
        author: Owner of the repository (the namespace).
        date: UTC time of the commit, ISO 8601.
        message: The commit's message.
        license: License from the manifest or the card.
        language: Language codes from the card.
        deprecated: Why it is deprecated, or None.
        replacement: Repository to use instead, if one is named.
        unchecked: What could not be checked and why, or None.
    """

    repo_id: str
    revision: str
    tags: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    task: str | None = None
    task_kind: str | None = None
    base_model: str | None = None
    fingerprint: Mapping[str, Any] | None = field(default=None, repr=False)
    score: tuple[str, float] | None = None
    metrics: tuple[RecordedMetric, ...] = ()
    datasets: tuple[str, ...] = ()
    num_virtual_tokens: int | None = None
    hidden_size: int | None = None
    prompt_type: str | None = None
    total_bytes: int = 0
    weights_sha256: str | None = None
    author: str = ""
    date: str = ""
    message: str = ""
    license: str | None = None
    language: tuple[str, ...] = ()
    deprecated: str | None = None
    replacement: str | None = None
    unchecked: str | None = None

    def to_record(self) -> dict[str, Any]:
        """Return the description as plain JSON values, as `--json` prints it."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> AdapterInfo:
        """Read what `to_record` wrote (and JSON turned into lists).

        Raises:
            ValueError: The record is damaged; also a `TypeError` or `KeyError`.
        """
        values = dict(record)
        texts = [value for value in values.values() if isinstance(value, str)]
        for key in ("tags", "keywords", "datasets", "language"):
            values[key] = tuple(values[key])
            texts += values[key]
        if not all(map(str.isprintable, texts)):
            raise ValueError("a text is not safe to print")
        values["metrics"] = tuple(RecordedMetric(**metric) for metric in values["metrics"])
        if values["score"]:
            name, value = values["score"]
            values["score"] = str(name), float(value)
        return cls(**values)
