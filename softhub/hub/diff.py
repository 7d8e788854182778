"""What changed from one revision of an adapter to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from softhub.adapter.layout import CARD, CONFIG, MANIFEST
from softhub.adapter.manifest import Manifest
from softhub.adapter.strict_json import parse_object
from softhub.hub.backend import Fetched

Change = tuple[Any, Any]


@dataclass(frozen=True)
class VectorShift:
    """How far the vectors moved.

    Attributes:
        relative_distance: Frobenius norm of the difference over that of the old vectors.
        mean_cosine: Mean cosine of a virtual token with itself before.
        most_moved: Index of the virtual token whose direction changed most.
        lowest_cosine: Its cosine with itself before.
    """

    relative_distance: float
    mean_cosine: float
    most_moved: int
    lowest_cosine: float


@dataclass(frozen=True)
class Difference:
    """Changes from revision `old` to revision `new`; each is a pair (old value, new value).

    Attributes:
        repo_id: The repository.
        old: Commit that is compared.
        new: Commit that it is compared with.
        config: Keys of `adapter_config.json`.
        manifest: Keys of `softhub.json`, nested ones joined by dots, without metrics and hashes.
        metrics: Values by `name (split)`.
        card_changed: Whether the card differs.
        vectors: How far the vectors moved; None where the shapes differ.
    """

    repo_id: str
    old: str
    new: str
    config: Mapping[str, Change]
    manifest: Mapping[str, Change]
    metrics: Mapping[str, Change]
    card_changed: bool
    vectors: VectorShift | None

    def to_record(self) -> dict[str, Any]:
        """Return the difference as plain JSON values."""
        return asdict(self)


def difference(old: Fetched, new: Fetched) -> Difference:
    """Compare two fetched revisions of one repository."""
    return Difference(
        repo_id=new.repo_id,
        old=old.revision,
        new=new.revision,
        config=_changes(_json(old, CONFIG), _json(new, CONFIG)),
        manifest=_changes(_manifest(old), _manifest(new)),
        metrics=_changes(_metrics(old), _metrics(new)),
        card_changed=old.files.get(CARD) != new.files.get(CARD),
        vectors=_shift(old, new),
    )


def _shift(old: Fetched, new: Fetched) -> VectorShift | None:
    from softhub.hub.vectors import read_vectors, relative_distance, row_cosines

    before = read_vectors(old.files, origin=f"{old.repo_id}@{old.revision}")
    after = read_vectors(new.files, origin=f"{new.repo_id}@{new.revision}")
    if before.shape != after.shape:
        return None
    cosines = row_cosines(before, after)
    lowest = int(cosines.argmin())
    return VectorShift(
        relative_distance=relative_distance(before, after),
        mean_cosine=float(cosines.mean()),
        most_moved=lowest,
        lowest_cosine=float(cosines[lowest]),
    )


def _json(fetched: Fetched, name: str) -> dict[str, Any]:
    if name not in fetched.files:
        return {}
    return parse_object(fetched.files[name], origin=f"{name} of {fetched.repo_id}")


def _manifest(fetched: Fetched) -> dict[str, Any]:
    record = _json(fetched, MANIFEST)
    for told_elsewhere in ("metrics", "files"):
        record.pop(told_elsewhere, None)
    return _flat(record)


def _metrics(fetched: Fetched) -> dict[str, Any]:
    if MANIFEST not in fetched.files:
        return {}
    metrics = Manifest.from_bytes(fetched.files[MANIFEST]).metrics
    return {f"{metric.name} ({metric.split})": metric.value for metric in metrics}


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Change]:
    keys = sorted({*old, *new})
    return {k: (old.get(k), new.get(k)) for k in keys if old.get(k) != new.get(k)}
