"""Fields of a dataclass that also take plain values, such as text in place of a `Template`."""

from collections.abc import Callable
from typing import Generic, TypeVar

from softhub.errors import TaskError

Stored = TypeVar("Stored")
Given = TypeVar("Given")


class Converted(Generic[Stored, Given]):
    """A dataclass field whose value is converted when it is assigned.

    The annotation `field: Converted[Template, Template | str]` tells type checkers what the
    constructor takes and what reading the field returns; at run time it is a data descriptor,
    which a frozen dataclass sets once.

    Args:
        convert: Turns what is given into what is stored.
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
