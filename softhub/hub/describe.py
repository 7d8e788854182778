"""Describe an adapter for a listing, from its small files.

Listing is lenient where pulling is strict: a damaged or foreign adapter still appears, with a
note on what could not be checked, and every text is made safe to print.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from softhub.adapter.adapter import PREFIX_METHODS, Adapter
from softhub.adapter.front_matter import DEPRECATED
from softhub.adapter.layout import CARD, CONFIG, MANIFEST
from softhub.adapter.manifest import Manifest, RecordedMetric
from softhub.errors import InvalidAdapter
from softhub.hub.records import AdapterInfo, plain

DESCRIBING = (CONFIG, MANIFEST, CARD)
"""The files that a description needs; none of them is the weights."""
NO_MANIFEST = (
    "no softhub.json: template, labels, scores and the base's fingerprint could not be checked"
)
_MAX_ITEMS = 100
_NOT = frozenset({"", "false", "no", "off", "none", "null", "~"})
"""Values in a card that mean "not deprecated"; all of them are text."""


def describe(repo_id: str, adapter: Adapter, **known: Any) -> AdapterInfo:
    """Describe an adapter by its config, manifest and card.

    Args:
        repo_id: Its repository.
        adapter: The adapter; it needs only the files of `DESCRIBING`, as far as they exist.
        **known: Fields of `AdapterInfo` that the hub itself knows (revision, date, …).

    Returns:
        The description. `unchecked` says which files are missing or damaged.
    """
    manifest, manifest_note = _manifest(adapter)
    card, card_note = _card(adapter)
    fields = _card_fields(card)
    fields |= _manifest_fields(manifest, fields) if manifest else _config_fields(adapter)
    return AdapterInfo(
        repo_id=repo_id,
        author=repo_id.split("/")[0],
        score=_leading_score(manifest.metrics if manifest else ()),
        unchecked="; ".join(filter(None, (manifest_note, card_note))) or None,
        **fields,
        **known,
    )


def base_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return sentences on what a push changed about the base model that a prompt is for.

    Args:
        before: The repository's `adapter_config.json`; empty if it had none.
        after: That of the pushed adapter.
    """
    old, new = _about_base(before), _about_base(after)
    return [
        f"this push changes the {meaning} from {old[meaning]} to {new[meaning]}"
        for meaning in old  # a prompt and a prefix have only the name of the base in common
        if before and meaning in new and old[meaning] != new[meaning]
    ]


def _about_base(config: Mapping[str, Any]) -> dict[str, str]:
    """Return what a config says about its base model."""
    width = config.get("token_dim")
    found: dict[str, Any] = {"base model": config.get("base_model_name_or_path")}
    if config.get("peft_type") in PREFIX_METHODS:
        shape = (config.get("num_layers"), config.get("num_attention_heads"), width)
        found["shape of the base model's keys (layers, heads, width)"] = shape
    else:
        found["width of the base model"] = width
    return {meaning: plain(str(value)) for meaning, value in found.items()}


def recorded_metrics(adapter: Adapter) -> tuple[RecordedMetric, ...]:
    """Return the metrics in an adapter's manifest; none if it is missing or damaged."""
    manifest, _ = _manifest(adapter)
    return manifest.metrics if manifest else ()


def _leading_score(metrics: tuple[RecordedMetric, ...]) -> tuple[str, float] | None:
    """Return name and value of the first metric on the test split, or else of the first."""
    leading = next((m for m in metrics if m.split == "test"), metrics[0] if metrics else None)
    return (leading.name, float(leading.value)) if leading else None


def _manifest(adapter: Adapter) -> tuple[Manifest | None, str | None]:
    try:
        return adapter.manifest, None if adapter.manifest else NO_MANIFEST
    except InvalidAdapter as error:
        return None, f"{MANIFEST} could not be read: {plain(str(error))}"


def _card(adapter: Adapter) -> tuple[Mapping[str, Any], str | None]:
    try:
        return adapter.card_metadata, None
    except InvalidAdapter as error:
        return {}, plain(str(error))


def _manifest_fields(manifest: Manifest, card: Mapping[str, Any]) -> dict[str, Any]:
    task = manifest.task or {}
    return {
        "task": _text(task.get("name")),
        "task_kind": _text(task.get("kind")),
        "base_model": manifest.base_model,
        "fingerprint": manifest.fingerprint,
        "metrics": manifest.metrics,
        "num_virtual_tokens": manifest.num_virtual_tokens,
        "hidden_size": manifest.hidden_size,
        "prompt_type": manifest.prompt_type,
        "license": _text(manifest.license) or card["license"],
        "language": _texts(task.get("language")) or card["language"],
        "datasets": card["datasets"] or _texts(_dataset_name(manifest.provenance)),
    }


def _dataset_name(provenance: Mapping[str, Any]) -> Any:
    dataset = provenance.get("dataset")
    if isinstance(dataset, Mapping):
        return dataset.get("path") or dataset.get("id") or dataset.get("name")
    return dataset


def _config_fields(adapter: Adapter) -> dict[str, Any]:
    """Return what plain PEFT's config says; only a pull checks whether it is correct."""
    try:
        config = adapter.config
    except InvalidAdapter:
        return {}
    is_prefix = config.get("peft_type") in PREFIX_METHODS
    fields = {
        "base_model": _text(config.get("base_model_name_or_path")),
        "num_virtual_tokens": _count(config.get("num_virtual_tokens")),
        "hidden_size": None if is_prefix else _count(config.get("token_dim")),
        "prompt_type": "prefix" if is_prefix else "prompt",
    }
    return {name: value for name, value in fields.items() if value is not None}


def _card_fields(card: Mapping[str, Any]) -> dict[str, Any]:
    deprecated = card.get(DEPRECATED)
    if str(deprecated).lower() in _NOT:
        deprecated = None
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


def _text(value: Any) -> str | None:
    return plain(str(value)) or None if isinstance(value, str | int | float) else None


def _texts(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(text for item in values[:_MAX_ITEMS] if (text := _text(item)))


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
