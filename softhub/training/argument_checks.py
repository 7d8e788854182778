"""Checks of training arguments, before anything is loaded or written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import NoneType
from typing import Any, get_args, get_type_hints

from softhub.errors import TrainingError, expected_instead

_KINDS = (bool, int, float)
_LEAST = {
    "auto_max_steps": 1,
    "auto_patience": 0,
    "dataloader_num_workers": 0,
    "early_stopping_patience": 0,
    "gradient_accumulation_steps": 1,
    "max_restarts": 0,
    "per_device_eval_batch_size": 1,
    "per_device_train_batch_size": 1,
}
_SEED_LIMIT = 2**32  # of numpy
UNSUPPORTED: Mapping[str, tuple[Any, str]] = {
    "data_seed": (None, "seed chooses the order of the texts too"),
    "dataloader_drop_last": (False, "no text of train or dev is left out"),
    "batch_eval_metrics": (False, "the task's metrics are computed over all dev texts"),
    "label_smoothing_factor": (0, "the loss is that of the task's labels or reference texts"),
    "neftune_noise_alpha": (None, "the base's embeddings are frozen"),
    "push_to_hub": (False, "push the adapter with softhub push"),
    "use_liger_kernel": (False, "the base's layers are used as they are"),
}
"""Arguments of transformers with their neutral value, and why no other is supported."""


def check_values(arguments: Any) -> None:
    """Check the types and ranges of training arguments.

    Args:
        arguments: `PromptTrainingArguments` as they were given.

    Raises:
        TrainingError: An argument is not supported, of the wrong type, or too small.
    """
    for name, (neutral, reason) in UNSUPPORTED.items():
        if getattr(arguments, name, neutral) not in (neutral, None):
            raise TrainingError(f"The training argument {name} is not supported: {reason}.")
    for name, hint in get_type_hints(type(arguments)).items():
        kinds = get_args(hint) or (hint,)
        known = [kind for kind in kinds if kind in _KINDS]
        if len(known) == 1 and {*kinds} <= {known[0], NoneType}:
            _check(name, getattr(arguments, name), known[0], optional=NoneType in kinds)


def _check(name: str, value: Any, kind: type, *, optional: bool) -> None:
    if optional and value is None:
        return
    if expected := expected_instead(value, kind, _LEAST.get(name)):
        raise TrainingError(f"{name} is {value!r:.80}; expected {expected}.")
    if name == "seed" and not 0 <= value < _SEED_LIMIT:
        raise TrainingError(
            f"{name} is {value!r:.80}; expected a whole number from 0 to {_SEED_LIMIT - 1}."
        )


@contextmanager
def explained_arguments() -> Iterator[None]:
    """Convert what transformers says about wrong training arguments to one sentence.

    Raises:
        TrainingError: transformers rejected an argument.
    """
    try:
        yield
    except (ValueError, TypeError, ImportError, KeyError) as error:
        reason = " ".join(str(error.args[0] if error.args else error).split())
        raise TrainingError(f"transformers rejects the training arguments: {reason}") from error
