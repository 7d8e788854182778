"""The card's front matter, for the Hub's filters, leaderboards and model pages."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from softhub.adapter.card.markdown import one_line
from softhub.adapter.card.terms import license_of
from softhub.adapter.manifest import Manifest
from softhub.adapter.portable import UNKNOWN_BASE, is_hub_name

TAGS = ("softhub", "soft-prompt")
"""Tags of every prompt, by which a Hub search finds it."""
_TAG_OF_TYPE = {"prompt": "prompt-tuning", "prefix": "prefix-tuning"}

_NOT_IN_TAGS = re.compile(r"[^\w.-]+")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z]{2,4})?")
_PLAIN = re.compile(r"[A-Za-z][\w./+-]*(:[\w./+-]+)*", re.ASCII)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that another YAML reader might read as another type (`1e-4`)."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if _PLAIN.fullmatch(text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def front_matter(manifest: Manifest) -> str:
    """Return the front matter of a prompt's card, without its fences; one value on each line."""
    task, base = manifest.task or {}, manifest.base_model
    known = base != UNKNOWN_BASE
    language = task.get("language")
    dataset_id = dataset_of(manifest.provenance).get("id")
    tags = [*TAGS, _TAG_OF_TYPE[manifest.prompt_type], _tag(task.get("name"))]
    tags += [f"base_model:adapter:{base}"] if known else []
    fields = {
        "library_name": "peft",
        "base_model": base if known else None,
        "base_model_relation": "adapter" if known else None,
        "pipeline_tag": _pipeline_tag(task),
        **_license_fields(manifest),
        "language": language if _LANGUAGE.fullmatch(str(language)) else None,
        # The Hub refuses names of datasets that are not its own.
        "datasets": [dataset_id] if is_hub_name(dataset_id) else None,
        "tags": list(dict.fromkeys(filter(None, tags))),
        "model-index": _model_index(manifest),
    }
    present = {key: value for key, value in fields.items() if value}
    return yaml.dump(
        present, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf")
    )


def dataset_of(provenance: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the provenance's record of the dataset; empty if there is none."""
    dataset = provenance.get("dataset")
    return dataset if isinstance(dataset, Mapping) else {}


def _pipeline_tag(task: Mapping[str, Any]) -> str:
    return "text-classification" if task.get("kind") == "classification" else "text-generation"


def _license_fields(manifest: Manifest) -> dict[str, str]:
    license = manifest.license or license_of(manifest.base_model)
    if license is None:
        return {}
    if _LICENSE.fullmatch(license.lower()):
        return {"license": license.lower()}
    return {"license": "other", "license_name": one_line(license)}


def _tag(name: object) -> str | None:
    """Return a task's name as a tag, without colons, which mark licenses and base models."""
    return _NOT_IN_TAGS.sub("-", name).strip("-") if isinstance(name, str) else None


def _model_index(manifest: Manifest) -> list[dict[str, Any]]:
    """Return the scores in the Hub's format, a result for each split."""
    task, dataset = manifest.task or {}, dataset_of(manifest.provenance)
    name = one_line(str(task.get("name") or "soft-prompt"))
    dataset_name = one_line(str(dataset.get("id") or dataset.get("name") or name))
    dataset_type = dataset["id"] if is_hub_name(dataset.get("id")) else "custom"
    metrics: dict[str, list[dict[str, Any]]] = {}
    for metric in manifest.metrics:
        label = one_line(metric.name)
        entry = {"type": label, "name": label, "value": metric.value}
        metrics.setdefault(one_line(metric.split), []).append(entry)
    results = [
        {
            "task": {"type": _pipeline_tag(task), "name": name},
            "dataset": {"type": dataset_type, "name": dataset_name, "split": split},
            "metrics": entries,
        }
        for split, entries in metrics.items()
    ]
    return [{"name": name, "results": results}] if results else []
