"""A template turns a row of a dataset into the text that a model reads.

Replacement is literal: `{column}` becomes the value of that column, in one pass. There is no
format language, so `{{`, `{0}` or `{"a": 1}` are ordinary characters, and a review that contains
`{label}` is never expanded again.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from softhub.errors import TaskError, did_you_mean

_PLACEHOLDER = re.compile(r"\{([^\W\d][\w .\-]*)\}")


class Segment(NamedTuple):
    """A stretch of rendered text and where it comes from.

    Attributes:
        text: The rendered characters.
        column: The column that they were read from; `None` for the template's own words.
    """

    text: str
    column: str | None


@dataclass(frozen=True)
class Template:
    """A text with `{column}` placeholders.

    Attributes:
        text: The template as it was written.
    """

    text: str

    @classmethod
    def of(cls, value: "Template | str") -> "Template":
        """Return a template as it is, or make one of its text.

        Raises:
            TaskError: If the value is neither.
        """
        if isinstance(value, cls):
            return value
        if not isinstance(value, str):
            raise TaskError(f"found {value!r:.80}; expected text with {{column}} placeholders")
        return cls(value)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the template reads, in order of first use."""
        return tuple(dict.fromkeys(_PLACEHOLDER.findall(self.text)))

    def segments(self, row: Mapping[str, Any]) -> tuple[Segment, ...]:
        """Render the template as stretches that remember their column.

        Args:
            row: Values by column; everything but text is rendered by `str`.

        Returns:
            Segments that joined are `render(row)`; empty ones are left out.

        Raises:
            TaskError: If the row lacks a column, or holds `None` in it.
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
            TaskError: If the row lacks a column, or holds `None` in it.
        """
        return "".join(segment.text for segment in self.segments(row))

    def split(self, column: str) -> tuple["Template", "Template"]:
        """Cut the template at the one place where a column stands.

        Args:
            column: The column to cut at, for instance the one that may be truncated.

        Returns:
            The template before the column and the template after it.

        Raises:
            TaskError: If the column does not stand in the template exactly once.
        """
        pieces = self.text.split(f"{{{column}}}")
        if len(pieces) != 2:
            raise TaskError(
                f"{self.text!r} holds {{{column}}} {len(pieces) - 1} times; expected exactly once, "
                f"because this is the place that is cut when a text is too long"
            )
        return Template(pieces[0]), Template(pieces[1])

    def _value(self, row: Mapping[str, Any], column: str) -> str:
        if column not in row:
            raise TaskError(
                f"the template {self.text!r} reads {{{column}}}, which the row does not have"
                f"{did_you_mean(column, row.keys())}"
            )
        if row[column] is None:
            raise TaskError(
                f"the template {self.text!r} reads {{{column}}}, which is empty (None) in this "
                f"row; fill it or leave the row out"
            )
        return str(row[column])
