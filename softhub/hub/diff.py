"""Differences between two revisions of an adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from softhub.adapter.adapter import Adapter
from softhub.adapter.layout import CARD
from softhub.hub.transfer import Fetched

Change = tuple[Any, Any]
_MANIFEST_FIELDS_SHOWN_ELSEWHERE = ("metrics", "files")


@dataclass(frozen=True)
class VectorShift:
    """Distance between the vectors of two revisions; of prefixes in units of the old layers.

    Attributes:
        relative_distance: Frobenius norm of the difference over that of the old vectors.
        mean_cosine: Mean cosine between each virtual token and itself before.
        most_moved: Index of the virtual token whose direction changed most.
        lowest_cosine: The cosine between that token and itself before.
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
        old: The earlier commit.
        new: The later commit.
        config: Changed keys of `adapter_config.json`.
        manifest: Changed keys of `softhub.json`, nested ones joined by dots, without metrics and
            hashes.
        metrics: Changed values by `name (split)`.
        card_changed: Whether the card differs.
        vectors: Distance between the vectors; None where their shapes or types differ.
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


def diff(old: Fetched, new: Fetched) -> Difference:
    """Compare two fetched revisions of one repository.

    Args:
        old: The earlier revision.
        new: The later revision.

    Returns:
        The changes.

    Raises:
        InvalidAdapter: A file of either is damaged.
    """
    before, after = old.adapter, new.adapter
    return Difference(
        repo_id=new.repo_id,
        old=old.revision,
        new=new.revision,
        config=_changes(before.config, after.config),
        manifest=_changes(_manifest(before), _manifest(after)),
        metrics=_changes(_metrics(before), _metrics(after)),
        card_changed=before.files.get(CARD) != after.files.get(CARD),
        vectors=_shift(before, after),
    )


def _shift(before: Adapter, after: Adapter) -> VectorShift | None:
    from softhub.hub.vectors import layer_units, relative_distance, row_cosines

    if (before.shape, before.prefix) != (after.shape, after.prefix):
        return None
    units = layer_units(before.vectors, before.prefix)
    old, new = before.vectors / units, after.vectors / units
    cosines = row_cosines(old, new)
    lowest = int(cosines.argmin())
    return VectorShift(
        relative_distance=relative_distance(old, new),
        mean_cosine=float(cosines.mean()),
        most_moved=lowest,
        lowest_cosine=float(cosines[lowest]),
    )


def _manifest(adapter: Adapter) -> dict[str, Any]:
    record = asdict(adapter.manifest) if adapter.manifest else {}
    return _flat({k: v for k, v in record.items() if k not in _MANIFEST_FIELDS_SHOWN_ELSEWHERE})


def _metrics(adapter: Adapter) -> dict[str, Any]:
    metrics = adapter.manifest.metrics if adapter.manifest else ()
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
