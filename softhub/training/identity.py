"""The identity of a run: what its checkpoints are of, so that it is resumed as no other run.

It has the settings that change the vectors and that the manifest records. It is stored with the
checkpoints (`run_state.json`) and compared by name when the run is resumed; settings that an
earlier version did not record are not compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from softhub.errors import TrainingError
from softhub.model.base import BaseModel
from softhub.tasks import Example, Splits, dataset_hash
from softhub.training.arguments import PromptTrainingArguments
from softhub.training.encoded_task import EncodedTask
from softhub.training.peft_config import PromptConfig

_MAY_RISE = ("max_steps", "num_train_epochs", "auto_max_steps", "auto_patience")
_DATA = ("train", "dev")
_NOT_COMPARED = ("began", "num_virtual_tokens")  # checkpoints have the number of virtual tokens
_NOT_OF_TRAINING = ("name", "language", "generation", "decision", "limitations")
_MOST_NAMED = 3


def identity_of(
    base: BaseModel,
    config: PromptConfig,
    tasks: Sequence[EncodedTask],
    splits: Sequence[Splits],
    args: PromptTrainingArguments,
    others: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the identity of a new run, as JSON values by name.

    Args:
        base: The base model.
        config: PEFT's configuration.
        tasks: The task, or the tasks of a mixture.
        splits: Their data.
        args: Training arguments.
        others: Further settings by name, such as the initialization.
    """
    found = {
        "task": ", ".join(one.task.name for one in tasks),
        "base_model": base.name,
        "base_revision": base.revision,
        "base_quantization": base.quantization,
        "num_virtual_tokens": int(config.num_virtual_tokens),
        "seed": args.seed,
        "train": " ".join(_hash(part.train) for part in splits),
        "dev": " ".join(_hash(part.dev) for part in splits),
        **args.to_identity(),
        **others,
        "began": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    for one in tasks:
        found |= {f"{key} of {one.task.name}": value for key, value in _of_task(one).items()}
    identity: dict[str, Any] = json.loads(json.dumps(found))
    return identity


def _of_task(one: EncodedTask) -> dict[str, Any]:
    record = one.task.to_record()
    of_training = {key: record[key] for key in record if key not in _NOT_OF_TRAINING}
    weights = None if one.label_weights is None else dict(one.label_weights)
    return {"multilabel": one.task.multilabel, **of_training, "class_weights": weights}


def _hash(examples: Iterable[Example]) -> str:
    """Return the hash of a split, without what a teacher answers again when a run is resumed."""
    return dataset_hash(
        example if example.soft_label is None else replace(example, label=None, soft_label=None)
        for example in examples
    )


def check_identity(
    before: Mapping[str, Any], now: Mapping[str, Any], others: Sequence[str] = ()
) -> None:
    """Check that a run is resumed as what it began as; limits of its steps may be higher.

    Args:
        before: The identity that is stored with its checkpoints.
        now: The identity of what was asked for.
        others: Further differences, as they are named in the message.

    Raises:
        TrainingError: It is another run; names what differs.
    """
    names = [name for name in now if name in before and not _is_same(name, before, now)]
    found = [*(_described(name, before[name], now[name]) for name in names), *others]
    if not found:
        return
    more = len(found) - _MOST_NAMED
    ending = f" and in {more} other settings" if more > 0 else ""
    raise TrainingError(
        f"Cannot resume a run that began with {', '.join(found[:_MOST_NAMED])}{ending}: its "
        "checkpoints are not of the run that was asked for. Use the settings and the data that it "
        "began with (only limits of its steps may be higher), or start without resume."
    )


def _is_same(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    if name in _NOT_COMPARED:
        return True
    numbers = isinstance(before[name], int | float) and isinstance(now[name], int | float)
    if name in _MAY_RISE and numbers:
        return bool(now[name] >= before[name])
    return bool(now[name] == before[name])


def _described(name: str, before: object, now: object) -> str:
    """Say what a run began with in place of what was asked for."""
    if name in _DATA:
        return f"other {name} examples"
    return f"{name} {before!r:.80} instead of {now!r:.80}"
