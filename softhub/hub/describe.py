"""From an adapter's small files to what a listing says about it.

Listing is lenient where pulling is strict: a damaged or foreign adapter still appears, with a
plain word on what could not be checked, and every text made safe to print.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from softhub.adapter.layout import CARD, CONFIG, MANIFEST
from softhub.adapter.manifest import Manifest, Metric
from softhub.adapter.strict_json import parse_object
from softhub.errors import InvalidArtefact
from softhub.hub.front_matter import DEPRECATED, read_front_matter
from softhub.hub.records import AdapterInfo, plain

DESCRIBING = (CONFIG, MANIFEST, CARD)
"""The files that a description needs; none of them is the weights."""
NO_MANIFEST = (
    "no softhub.json: template, labels, scores and the base's fingerprint could not be checked"
)


def describe(repo_id: str, files: Mapping[str, bytes], **known: Any) -> AdapterInfo:
    """Describe an adapter by its config, manifest and card.

    Args:
        repo_id: Its repository.
        files: Contents of `DESCRIBING`, as far as they exist.
        **known: Fields of `AdapterInfo` that the hub itself knows (revision, date, …).
    """
    card, card_problem = _card(files.get(CARD, b""))
    manifest, problem = _manifest(files.get(MANIFEST))
    fields = _card_fields(card)
    if manifest is None:
        fields.update(_config_fields(files.get(CONFIG)))
        fields["metrics"] = _card_metrics(card)
    else:
        fields.update(_manifest_fields(manifest, fields))
    fields["score"] = leading_score(fields["metrics"])
    notes = [note for note in (problem, card_problem) if note]
    return AdapterInfo(
        repo_id=repo_id,
        author=repo_id.split("/")[0],
        unchecked="; ".join(notes) or None,
        **fields,
        **known,
    )


def leading_score(metrics: tuple[Metric, ...]) -> tuple[str, float] | None:
    """Return name and value of the first metric, one on the test split if there is any."""
    tested = [metric for metric in metrics if metric.split == "test"]
    for metric in tested or metrics:
        return (metric.name, metric.value)
    return None


def manifest_metrics(files: Mapping[str, bytes]) -> tuple[Metric, ...]:
    """Return the metrics that an adapter's manifest records; none if it is absent or damaged."""
    manifest, _ = _manifest(files.get(MANIFEST))
    return manifest.metrics if manifest else ()


def _manifest(data: bytes | None) -> tuple[Manifest | None, str | None]:
    if data is None:
        return None, NO_MANIFEST
    try:
        return Manifest.from_bytes(data), None
    except InvalidArtefact as error:
        return None, f"softhub.json was not understood: {plain(str(error))}"


def _card(data: bytes) -> tuple[dict[str, Any], str | None]:
    try:
        return read_front_matter(data), None
    except InvalidArtefact as error:
        return {}, plain(str(error))


def _manifest_fields(manifest: Manifest, card: Mapping[str, Any]) -> dict[str, Any]:
    task = manifest.task or {}
    language = _texts(task.get("language")) or card["language"]
    return {
        "task": _text(task.get("name")),
        "task_kind": _text(task.get("kind")),
        "base_model": manifest.base_model,
        "fingerprint": manifest.fingerprint,
        "metrics": manifest.metrics,
        "num_virtual_tokens": manifest.num_virtual_tokens,
        "hidden_size": manifest.hidden_size,
        "license": manifest.license or card["license"],
        "language": language,
        "datasets": card["datasets"] or _texts(_dataset_of(manifest.provenance)),
    }


def _dataset_of(provenance: Mapping[str, Any]) -> Any:
    dataset = provenance.get("dataset")
    if isinstance(dataset, Mapping):
        return dataset.get("path") or dataset.get("id") or dataset.get("name")
    return dataset


def _config_fields(data: bytes | None) -> dict[str, Any]:
    """Read what plain PEFT's config tells; only the strict check of a pull judges it."""
    try:
        config = parse_object(data or b"{}", origin=CONFIG)
    except InvalidArtefact:
        return {}
    fields = {
        "base_model": _text(config.get("base_model_name_or_path")),
        "num_virtual_tokens": _count(config.get("num_virtual_tokens")),
        "hidden_size": _count(config.get("token_dim")),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _card_fields(card: Mapping[str, Any]) -> dict[str, Any]:
    deprecated = card.get(DEPRECATED)
    notice = deprecated if isinstance(deprecated, Mapping) else {}
    base = _texts(card.get("base_model"))
    return {
        "keywords": _texts(card.get("tags")),
        "base_model": base[0] if base else None,
        "license": _text(card.get("license")),
        "language": _texts(card.get("language")),
        "datasets": _texts(card.get("datasets")),
        "deprecated": (_text(notice.get("reason")) or "no reason given") if deprecated else None,
        "replacement": _text(notice.get("replacement")),
    }


def _card_metrics(card: Mapping[str, Any]) -> tuple[Metric, ...]:
    """Read the metrics of a card's `model-index`, which foreign adapters may have."""
    found = []
    for model in _items(card.get("model-index")):
        for result in _items(model.get("results")):
            dataset = result.get("dataset")
            split = _text(dataset.get("split")) if isinstance(dataset, Mapping) else None
            for entry in _items(result.get("metrics")):
                found.append(_card_metric(entry, split or "unknown"))
    return tuple(metric for metric in found if metric is not None)


def _card_metric(entry: Mapping[str, Any], split: str) -> Metric | None:
    name, value = _text(entry.get("type") or entry.get("name")), entry.get("value")
    if not name or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return Metric(name, float(value), None, None, split, 0, {})
    except (InvalidArtefact, OverflowError):
        return None


def _items(value: Any) -> list[Mapping[str, Any]]:
    values = value if isinstance(value, list) else []
    return [item for item in values[:100] if isinstance(item, Mapping)]


def _text(value: Any) -> str | None:
    return plain(str(value)) or None if isinstance(value, str | int | float) else None


def _texts(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(text for item in values[:100] if (text := _text(item)))


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
