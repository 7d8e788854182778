"""A template turns a row of a dataset into the text that a model reads.

Replacement is literal: `{column}` becomes the value of that column, in one pass. There is no
format language, so `{{`, `{0}` and `{"a": 1}` are ordinary characters, and a review that contains
`{label}` is not expanded again.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from softhub.errors import TaskError
from softhub.tasks.plain_values import as_text

_NO_TEXT = (bytes, bytearray, list, tuple, set, frozenset, Mapping)
_NAME = r"[^\W\d][\w .\-]*"
_PLACEHOLDER = re.compile(rf"\{{({_NAME})\}}")


class Segment(NamedTuple):
    """A part of a rendered text and its origin.

    Attributes:
        text: The rendered characters.
        column: The column that they come from; `None` for the template's own text.
    """

    text: str
    column: str | None


def is_readable(column: str) -> bool:
    """Return whether a template can read a column: whether a placeholder can have its name."""
    return re.fullmatch(_NAME, column) is not None


def unreadable(column: str) -> str:
    """Return the message about a column that no template can read."""
    return (
        f"a template cannot read the column {column!r}: its name must begin with a letter and "
        f"contain letters, digits, spaces, '.', '-' or '_'; rename it in the data"
    )


def listed(columns: Iterable[Any]) -> str:
    """Return the names of the columns that data has, for a message; a plain text has none."""
    return ", ".join(map(str, filter(None, columns))) or "none"


@dataclass(frozen=True)
class Template:
    """A text with `{column}` placeholders.

    Attributes:
        text: The template as written.
    """

    text: str

    @classmethod
    def of(cls, value: "Template | str") -> "Template":
        """Return a template, or build one from its text.

        Raises:
            TaskError: If the value is neither.
        """
        return value if isinstance(value, cls) else cls(as_text(value))

    @property
    def opening(self) -> str:
        """The template's own text before its first column."""
        return _PLACEHOLDER.split(self.text, maxsplit=1)[0]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the template reads, in order of first use."""
        return tuple(dict.fromkeys(_PLACEHOLDER.findall(self.text)))

    def segments(self, row: Mapping[str, Any]) -> tuple[Segment, ...]:
        """Render the template as segments that know their column.

        Args:
            row: Values by column; numbers and dates are rendered by `str`.

        Returns:
            Segments whose texts, joined, are `render(row)`; empty ones are left out.

        Raises:
            TaskError: If the row lacks a column, or contains no text in it.
        """
        # re.split with one group alternates: literal, column, literal, column, …, literal.
        pieces = _PLACEHOLDER.split(self.text)
        found = (
            Segment(self._value(row, piece), piece) if index % 2 else Segment(piece, None)
            for index, piece in enumerate(pieces)
        )
        return tuple(segment for segment in found if segment.text)

    def render(self, row: Mapping[str, Any]) -> str:
        """Return the text with every placeholder replaced by the row's value.

        Args:
            row: Values by column.

        Raises:
            TaskError: If the row lacks a column, or contains no text in it.
        """
        return "".join(segment.text for segment in self.segments(row))

    def split(self, column: str) -> tuple["Template", "Template"]:
        """Split the template at the placeholder of a column.

        Args:
            column: The column to split at, for instance the one that may be truncated; a template
                has to be able to read it.

        Returns:
            The template before the column and the template after it.

        Raises:
            TaskError: If the template does not contain the column exactly once.
        """
        pieces = self.text.split(f"{{{column}}}")
        if len(pieces) != 2:
            raise TaskError(
                f"{self.text!r} contains {{{column}}} {len(pieces) - 1} times; expected exactly "
                f"once, because this column is truncated when a text is too long"
            )
        return Template(pieces[0]), Template(pieces[1])

    def _value(self, row: Mapping[str, Any], column: str) -> str:
        if column not in row:
            raise TaskError(
                f"the template {self.text!r} reads {{{column}}}, which the row does not have"
                f"; its columns are {listed(row)}"
            )
        value = row[column]
        if value is None or (isinstance(value, float) and math.isnan(value)):
            raise TaskError(
                f"the template {self.text!r} reads {{{column}}}, which is empty ({value}) in this "
                f"row; fill it or leave the row out"
            )
        if isinstance(value, _NO_TEXT):
            raise TaskError(
                f"the template {self.text!r} reads {{{column}}}, which is a "
                f"{type(value).__name__} in this row ({value!r:.60}); expected text"
            )
        return str(value)
