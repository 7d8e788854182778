"""What may reach a terminal."""

import io
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softhub.adapter.manifest import RecordedMetric
from softhub.cli.output import emit_facts, emit_table, score
from softhub.experiments.console import one_line, printable

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


def test_a_score_is_shown_with_its_interval_if_it_has_one() -> None:
    metric = RecordedMetric("accuracy", 0.9, 0.85, 0.95, "test", 300, {})
    assert score(metric) == "0.900 (0.850 to 0.950)"
    assert score(replace(metric, low=None)) == "0.900"


def test_facts_without_a_value_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    emit_facts([("a", 0), ("task", "mood"), ("none", None), ("empty", "")])
    assert capsys.readouterr().out == "a     0\ntask  mood\n"


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
