"""Plain values: cells of data, and text in place of a `Template` as fields of a dataclass."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import numpy as np

from softhub.errors import DatasetError, TaskError

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

Stored = TypeVar("Stored")
Given = TypeVar("Given")


def plain(value: Any) -> Any:
    """Return a scalar or an array of numpy as Python's own values, and anything else unchanged."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def is_nothing(value: Any) -> bool:
    """Return whether a cell has no value: None, or NaN, by which pandas marks an empty cell."""
    return value is None or (isinstance(value, float) and value != value)


def check_characters(value: Any, column: str, place: str) -> None:
    """Check that a cell has no half of a surrogate pair, which cannot be written or tokenized.

    Args:
        value: The cell.
        column: Its column.
        place: Where it is, for the message.

    Raises:
        DatasetError: It is a text that has one.
    """
    if isinstance(value, str) and _LONE_SURROGATE.search(value):
        raise DatasetError(
            f"{place}: {column!r} contains half of a surrogate pair, which is not a character; "
            f"correct the row"
        )


def as_text(value: Any) -> str:
    """Return a value that is text.

    Raises:
        TaskError: If it is not.
    """
    if isinstance(value, bool):
        raise TaskError(
            f"found {value!r}, expected text; YAML reads yes, no, on, off, true and false as "
            f"booleans, so put them in quotes"
        )
    if not isinstance(value, str):
        fix = "" if isinstance(value, list | tuple | Mapping) else "; put it in quotes"
        raise TaskError(f"found {value!r:.80}, expected text{fix}")
    return value


class Converted(Generic[Stored, Given]):
    """A dataclass field whose value is converted when it is assigned.

    The annotation `field: Converted[Template, Template | str]` tells type checkers what the
    constructor takes and what reading the field returns. At run time it is a data descriptor,
    which a frozen dataclass sets once.

    Args:
        convert: Turns a given value into the stored one.
        default: Value of the field if none is given; without it, the field is required.
    """

    def __init__(self, convert: Callable[[Given], Stored], *default: Stored) -> None:
        """Remember how to convert."""
        self._convert = convert
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        """Learn the field's name."""
        self._name = name

    def __get__(self, instance: object | None, owner: type | None = None) -> Stored:
        """Return the stored value, or the default where a dataclass looks for it on the class."""
        if instance is not None:
            stored: Stored = vars(instance)[self._name]
            return stored
        if not self._default:
            raise AttributeError(self._name)
        return self._default[0]

    def __set__(self, instance: object, value: Given) -> None:
        """Convert and store a value; an error names the field."""
        try:
            vars(instance)[self._name] = self._convert(value)
        except TaskError as error:
            raise TaskError(f"{self._name}: {error}") from error
