"""What the Hub reads out of a repo's files: card data, tags, library, task; and its card checks."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

FRONT_MATTER = re.compile(r"^\s*---[\r\n]+([\S\s]*?)[\r\n]+---(?:\r\n|\n|$)")
ARXIV = re.compile(r"arxiv\.org/(?:abs|pdf)/(\d{4}\.\d{4,5})")
REPO_ID = re.compile(r"[\w.\-]+(?:/[\w.\-]+)?")
PIPELINE_TAGS = (
    "text-generation",
    "text-classification",
    "token-classification",
    "summarization",
    "translation",
    "question-answering",
    "text2text-generation",
    "zero-shot-classification",
    "feature-extraction",
    "sentence-similarity",
    "fill-mask",
)
# Most of the identifiers the Hub takes; its whole list is in the documentation of model cards.
_LICENSES = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0
bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear
c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0
cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl
ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl
lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl mpl-2.0 odc-by odbl
openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr
deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3
llama4 grok2-community gemma unknown other
"""
LICENSES = frozenset(_LICENSES.split())


def front_matter(text: str) -> Any:
    """The YAML at the head of a README: usually a mapping, None when there is none.

    Raises:
        yaml.YAMLError: It does not parse.
    """
    match = FRONT_MATTER.match(text)
    return yaml.safe_load(match.group(1)) if match else None


def describe(files: Mapping[str, bytes]) -> dict[str, Any]:
    """What the Hub derives from the small files of a repo: README.md and the configs.

    Returns:
        `cardData`, `tags`, `config`, `model-index` and, where known, `library_name`,
        `pipeline_tag`, named as the API names them.
    """
    text = files.get("README.md", b"").decode("utf-8", "replace")
    try:
        card = front_matter(text)
    except yaml.YAMLError:
        card = None
    card = card if isinstance(card, dict) else {}
    library = _library(card, files)
    task = card.get("pipeline_tag") or next(
        (tag for tag in _list(card.get("tags")) if tag in PIPELINE_TAGS), None
    )
    described = {
        "cardData": card,
        "tags": _tags(card, files, library, task, text),
        "config": _config(files),
        "model-index": card.get("model-index"),
        "library_name": library,
        "pipeline_tag": task,
    }
    return {key: value for key, value in described.items() if value is not None}


def _list(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(item) for item in (value if isinstance(value, list) else [value])]


def _library(card: dict[str, Any], files: Mapping[str, bytes]) -> str | None:
    if card.get("library_name"):
        return str(card["library_name"])
    if "adapter_config.json" in files:
        return "peft"
    return "transformers" if "config.json" in files else None


def _tags(
    card: dict[str, Any],
    files: Mapping[str, bytes],
    library: str | None,
    task: str | None,
    text: str,
) -> list[str]:
    tags = [library] if library else []
    if any(path.endswith(".safetensors") for path in files):
        tags.append("safetensors")
    tags += _list(card.get("tags"))
    tags += [task] if task else []
    tags += _list(card.get("language"))
    tags += [f"dataset:{dataset}" for dataset in _list(card.get("datasets"))]
    tags += [f"arxiv:{paper}" for paper in ARXIV.findall(text)]
    tags += _base_model_tags(card, library)
    tags += [f"license:{license}" for license in _list(card.get("license"))]
    tags += ["model-index"] if card.get("model-index") else []
    return list(dict.fromkeys([*tags, "region:us"]))


def _base_model_tags(card: dict[str, Any], library: str | None) -> list[str]:
    bases = _list(card.get("base_model"))
    guess = "adapter" if library == "peft" else "merge" if len(bases) > 1 else "finetune"
    relation = card.get("base_model_relation") or guess
    return [
        *(f"base_model:{base}" for base in bases),
        *(f"base_model:{relation}:{base}" for base in bases),
    ]


def _config(files: Mapping[str, bytes]) -> dict[str, Any] | None:
    try:
        if "adapter_config.json" in files:
            adapter = json.loads(files["adapter_config.json"])
            kept = ("base_model_name_or_path", "task_type")
            return {"peft": {key: adapter[key] for key in kept if key in adapter}}
        if "config.json" in files:
            config = json.loads(files["config.json"])
            return {key: config[key] for key in ("architectures", "model_type") if key in config}
    except (ValueError, TypeError):
        pass
    return None


def check(text: str) -> tuple[list[str], list[str]]:
    """The Hub's checks of a README: (errors, which refuse a commit; warnings)."""
    try:
        card = front_matter(text)
    except yaml.YAMLError as error:
        return [f"Invalid YAML: {str(error).splitlines()[0]}"], []
    if card is None:
        return [], ["empty or missing yaml metadata in repo card"]
    if not isinstance(card, dict):
        return ["YAML metadata must be an object"], []
    errors = _field_errors(card) + _index_errors(card.get("model-index"))
    task = card.get("pipeline_tag")
    known = task is None or task in PIPELINE_TAGS
    return errors, [] if known else [f'The pipeline tag "{task}" is not in the official list']


def _field_errors(card: dict[str, Any]) -> list[str]:
    errors = [
        f'"license" must be one of [{", ".join(sorted(LICENSES))}]'
        for license in _list(card.get("license"))
        if license not in LICENSES
    ]
    errors += [
        f'"base_model" with value "{base}" is not valid. Use a model id from https://hf.co/models.'
        for base in _list(card.get("base_model"))
        if not REPO_ID.fullmatch(base)
    ]
    errors += [
        f'"datasets[{place}]" with value "{dataset}" is not valid. '
        "If possible, use a dataset id from https://hf.co/datasets."
        for place, dataset in enumerate(_list(card.get("datasets")))
        if not REPO_ID.fullmatch(dataset)
    ]
    errors += [
        f'"language[{place}]" must only contain lowercase characters'
        for place, language in enumerate(_list(card.get("language")))
        if language != language.lower()
    ]
    tags = card.get("tags")
    if tags is not None and not (isinstance(tags, list) and all(isinstance(t, str) for t in tags)):
        errors.append('"tags" must be an array of strings')
    return errors


def _index_errors(index: Any) -> list[str]:
    if index is None:
        return []
    if not isinstance(index, list):
        return ['"model-index" must be an array']
    errors = []
    for number, model in enumerate(index):
        where = f"model-index[{number}]"
        if not isinstance(model, dict) or not isinstance(model.get("name"), str):
            errors.append(f'"{where}.name" is required')
            continue
        if not isinstance(model.get("results"), list):
            errors.append(f'"{where}.results" must be an array')
            continue
        for place, result in enumerate(model["results"]):
            errors += _result_errors(result, f"{where}.results[{place}]")
    return errors


def _result_errors(result: Any, where: str) -> list[str]:
    if not isinstance(result, dict):
        return [f'"{where}" must be of type object']
    required = [("task", "type"), ("dataset", "type"), ("dataset", "name")]
    errors = [
        f'"{where}.{part}.{name}" is required'
        for part, name in required
        if not isinstance((result.get(part) or {}).get(name), str)
    ]
    metrics = result.get("metrics")
    if not isinstance(metrics, list):
        return [*errors, f'"{where}.metrics" must be an array']
    return errors + [
        f'"{where}.metrics[{place}].{name}" is required'
        for place, metric in enumerate(metrics)
        for name in ("type", "value")
        if metric.get(name) is None
    ]
