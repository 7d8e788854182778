"""What may reach a terminal."""

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softhub.cli.output import emit_table, one_line, printable, progress, size

STEERING = [chr(n) for n in (*range(0x20), *range(0x7F, 0xA0)) if chr(n) not in "\n\t"]
STEERING += ["\u202e", "\u2066", "\u200b", "\ufeff", "\ud800"]


@given(st.text(st.one_of(st.characters(), st.sampled_from(STEERING))))
def test_nothing_that_steers_a_terminal_is_left(text: str) -> None:
    kept = printable(text)
    assert not set(kept) & set(STEERING)
    assert printable(kept) == kept
    assert "\n" not in one_line(text)


def test_ordinary_text_is_left_alone() -> None:
    text = "Ünïcödé 日本語 🙂\n\ttabs and lines"
    assert printable(text) == text


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (46_200, "46.2 kB"), (1_500_000, "1.5 MB"), (2e9, "2.0 GB")],
)
def test_sizes(count: int, shown: str) -> None:
    assert size(count) == shown


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_table_on_a_terminal_takes_no_markup_from_strangers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    emit_table(("name", "what"), [("[red]me/x[/red]", "a\nb")])
    shown = terminal.getvalue()
    assert "[red]me/x[/red]" in shown
    assert "a b" in shown
    assert "name" in shown


def test_progress_passes_everything_on(monkeypatch: pytest.MonkeyPatch) -> None:
    items = list(range(5))
    assert list(progress(items, "counting")) == items
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress(items, "counting")) == items
    assert "counting" in terminal.getvalue()
