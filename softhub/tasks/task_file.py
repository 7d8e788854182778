"""Reading a task from YAML or from a manifest: strictly, with the key in every message."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml

from softhub.config import expand_user, load_yaml
from softhub.errors import TaskError, did_you_mean
from softhub.tasks.class_weights import BALANCED
from softhub.tasks.dataset import DatasetSource
from softhub.tasks.decision import Decision
from softhub.tasks.plain_values import as_text
from softhub.tasks.verbalizer import Verbalizer


def read_yaml(path: Path) -> Mapping[str, Any]:
    """Read a task file as plain values.

    Args:
        path: The YAML file.

    Raises:
        TaskError: If the file cannot be read, is not YAML, or is not a mapping.
    """
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TaskError("there is no such task file; check the path") from None
    except UnicodeDecodeError as error:
        raise TaskError(
            "the task file is not UTF-8 text; check that it is a task in YAML, and save it as UTF-8"
        ) from error
    except OSError as error:
        raise TaskError(f"the task file cannot be read: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise TaskError(f"line {line}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise TaskError(f"not valid YAML: {error}") from error
    if not isinstance(content, Mapping):
        raise TaskError(f"found {content!r:.80}; expected a task's keys, e.g. name, kind, template")
    return content


def parse_task(content: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Convert plain values to the arguments of `Task`.

    Args:
        content: Values by key, as YAML or JSON gives them.
        known: The keys that are allowed.

    Raises:
        TaskError: If a key is unknown or missing, or its value has the wrong type.
    """
    refuse_unknown_keys(content, known)
    for key in ("name", "kind", "template"):
        if content.get(key) is None:
            raise TaskError(f"{key}: missing; every task needs name, kind and template")
    return {
        key: _parsed(key, value, _PARSERS.get(key, as_text))
        for key, value in content.items()
        if value is not None
    }


def resolve_data_files(source: DatasetSource, folder: Path) -> DatasetSource:
    """Return the source with relative file names resolved against a folder."""
    data_files = {
        split: str((folder / expand_user(name)).resolve())
        for split, name in source.data_files.items()
    }
    return replace(source, data_files=data_files)


def refuse_unknown_keys(content: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise if a key is unknown."""
    for key in content:
        if key not in known:
            raise TaskError(f"unknown key {str(key)!r}{did_you_mean(str(key), known)}")


def _parsed(key: str, value: Any, parse: Callable[[Any], Any]) -> Any:
    try:
        return parse(value)
    except TaskError as error:
        raise TaskError(f"{key}: {error}") from error


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TaskError(f"found {value!r:.80}, expected true or false")
    return value


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TaskError(f"found {value!r:.80}, expected an integer")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TaskError(f"found {value!r:.80}, expected a list, e.g. [{value}]")
    return tuple(as_text(item) for item in value)


def _mapping(value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise TaskError(f"found {value!r:.80}, expected keys with values")
    return value


def _mapping_of_texts(value: Any) -> dict[str, str]:
    return {as_text(key): as_text(item) for key, item in _mapping(value).items()}


def _label_map(value: Any) -> dict[str, str]:
    # Values of the dataset may be numbers or booleans: {0: negative, true: positive}.
    return {str(key): as_text(item) for key, item in _mapping(value).items()}


def _class_weights(value: Any) -> str | dict[str, float]:
    if isinstance(value, str):
        return value
    if not isinstance(value, Mapping):
        raise TaskError(f"found {value!r:.80}, expected {BALANCED!r} or a weight for each label")
    for label, weight in value.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise TaskError(f"{label!r} has {weight!r:.80}, expected a number")
    return {as_text(label): float(weight) for label, weight in value.items()}


def _verbalizer(value: Any) -> Verbalizer:
    if isinstance(value, list) and value and not any(isinstance(e, Mapping) for e in value):
        raise TaskError(
            f"found {value!r:.80}, expected labels with their words, e.g. {{good: ' good'}}; for "
            f"labels alone, write labels: […] in place of verbalizer"
        )
    if isinstance(value, list):
        return Verbalizer.from_record(value)
    return Verbalizer.from_mapping(_mapping(value))


def _dataset(value: Any) -> DatasetSource:
    content = _mapping(value)
    refuse_unknown_keys(content, [field.name for field in fields(DatasetSource)])
    parsers: Mapping[str, Callable[[Any], Any]] = {
        "data_files": _mapping_of_texts,
        "splits": _mapping_of_texts,
        "drop_incomplete": _boolean,
    }
    arguments: dict[str, Any] = {
        key: _parsed(key, item, parsers.get(key, as_text))
        for key, item in content.items()
        if item is not None
    }
    return DatasetSource(**arguments)


# All other values are text; the task itself checks labels.
_PARSERS: Mapping[str, Callable[[Any], Any]] = {
    "labels": lambda value: value,
    "verbalizer": _verbalizer,
    "label_map": _label_map,
    "multilabel": _boolean,
    "yes_no": _texts,
    "decision": lambda value: Decision.from_record(_mapping(value)),
    "class_weights": _class_weights,
    "metrics": _texts,
    "hard_templates": _texts,
    "dataset": _dataset,
    "max_length": _integer,
    "generation": _mapping,
}
