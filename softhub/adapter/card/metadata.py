"""The YAML block that the Hub's filters, leaderboards and model pages read."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from softhub.adapter.card.markdown import one_line
from softhub.adapter.card.terms import license_of
from softhub.adapter.manifest import Manifest, RecordedMetric
from softhub.adapter.portable import UNKNOWN_BASE, is_hub_name

TAGS = ("softhub", "soft-prompt", "prompt-tuning")
"""Tags of every prompt, by which a Hub search finds it."""

_NOT_IN_TAGS = re.compile(r"[^\w.-]+")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z]{2,4})?")
_PLAIN = re.compile(r"[A-Za-z][\w./+-]*(:[\w./+-]+)*", re.ASCII)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that another YAML reader might take for something else (`1e-4`)."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if _PLAIN.fullmatch(text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def front_matter(manifest: Manifest) -> str:
    """Return the front matter, without its fences; each value stands on one line."""
    fields = {
        "library_name": "peft",
        **_base_fields(manifest.base_model),
        "pipeline_tag": pipeline_tag(manifest),
        **_license_fields(manifest),
        "language": _language(manifest),
        "datasets": _datasets(manifest.provenance),
        "tags": _tags(manifest),
        "model-index": _model_index(manifest),
    }
    present = {key: value for key, value in fields.items() if value}
    return yaml.dump(
        present, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf")
    )


def pipeline_tag(manifest: Manifest) -> str:
    """Return the Hub's word for what the prompt does."""
    kind = (manifest.task or {}).get("kind")
    return "text-classification" if kind == "classification" else "text-generation"


def _base_fields(base_model: str) -> dict[str, str]:
    if base_model == UNKNOWN_BASE:
        return {}
    return {"base_model": base_model, "base_model_relation": "adapter"}


def _license_fields(manifest: Manifest) -> dict[str, str]:
    license = manifest.license or license_of(manifest.base_model)
    if license is None:
        return {}
    if _LICENSE.fullmatch(license.lower()):
        return {"license": license.lower()}
    return {"license": "other", "license_name": one_line(license)}


def _language(manifest: Manifest) -> str | None:
    language = (manifest.task or {}).get("language")
    return language if isinstance(language, str) and _LANGUAGE.fullmatch(language) else None


def _datasets(provenance: Mapping[str, Any]) -> list[str]:
    """Return the dataset if it is one of the Hub's; the Hub refuses other names."""
    dataset_id = _dataset(provenance).get("id")
    return [dataset_id] if is_hub_name(dataset_id) else []


def _dataset(provenance: Mapping[str, Any]) -> Mapping[str, Any]:
    dataset = provenance.get("dataset")
    return dataset if isinstance(dataset, Mapping) else {}


def _tags(manifest: Manifest) -> list[str]:
    task = _tag((manifest.task or {}).get("name"))
    base = manifest.base_model
    adapter_of = [] if base == UNKNOWN_BASE else [f"base_model:adapter:{base}"]
    return list(dict.fromkeys([*TAGS, *([task] if task else []), *adapter_of]))


def _tag(name: object) -> str | None:
    """Return a task's name as a tag; colons could pass for a licence or a base model."""
    return _NOT_IN_TAGS.sub("-", name).strip("-") if isinstance(name, str) else None


def _model_index(manifest: Manifest) -> list[dict[str, Any]]:
    if not manifest.metrics:
        return []
    by_split: dict[str, list[RecordedMetric]] = {}
    for metric in manifest.metrics:
        by_split.setdefault(metric.split, []).append(metric)
    task = {"type": pipeline_tag(manifest), "name": _task_name(manifest)}
    results = [
        {
            "task": task.copy(),
            "dataset": _index_dataset(manifest, split),
            "metrics": [_index_metric(metric) for metric in metrics],
        }
        for split, metrics in by_split.items()
    ]
    return [{"name": _task_name(manifest), "results": results}]


def _task_name(manifest: Manifest) -> str:
    return one_line(str((manifest.task or {}).get("name") or "soft-prompt"))


def _index_dataset(manifest: Manifest, split: str) -> dict[str, str]:
    dataset = _dataset(manifest.provenance)
    dataset_id = dataset.get("id")
    name = one_line(str(dataset_id or dataset.get("name") or _task_name(manifest)))
    kind = dataset_id if is_hub_name(dataset_id) else "custom"
    return {"type": kind, "name": name, "split": one_line(split)}


def _index_metric(metric: RecordedMetric) -> dict[str, Any]:
    name = one_line(metric.name)
    return {"type": name, "name": name, "value": metric.value}
