"""Agreement between the processes of a comparison, which train together."""

from __future__ import annotations

from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

Value = TypeVar("Value")


def of_main_process(value: Value) -> Value:
    """Return the main process's value in all processes: either all of them train, or none."""
    if PartialState().num_processes == 1:
        return value
    agreed: Value = broadcast_object_list([value])[0]
    return agreed
