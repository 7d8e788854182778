"""What is shown of long work, and of tables that are too wide."""

import io
import sys
import warnings

import pytest
from rich.table import Table

from softhub.terminal import QUIET, phase, print_whole, warn_in_phase


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def work() -> None:
    with phase("Comparing", 2, "prompt") as advance:
        for _ in range(2):
            with phase("Evaluating", 3, "text") as inner:
                inner(3)
            advance(1)


def test_a_log_has_one_line_for_the_outermost_phase(capsys: pytest.CaptureFixture[str]) -> None:
    work()
    work()
    assert capsys.readouterr().err == "Comparing: 2 prompts …\n" * 2


def test_a_terminal_has_bars_with_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    work()
    shown = terminal.getvalue()
    assert "Comparing: 100%" in shown and "2/2" in shown
    assert "Evaluating" in shown and "…" not in shown


@pytest.mark.parametrize(("name", "value"), [(QUIET, "1"), ("RANK", "1")])
def test_nothing_if_quiet_and_on_other_processes(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    work()
    assert capsys.readouterr().err == ""


def test_a_phase_that_failed_does_not_silence_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), phase("First"):
        raise KeyError
    with phase("Second"):
        pass
    assert capsys.readouterr().err == "First …\nSecond …\n"


def test_warnings_name_split_and_method_once() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            with phase("Comparing on dev"):
                for _ in range(3):
                    with phase("Evaluating zero-shot", 3, "text"), phase(None):
                        warn_in_phase("1 of 3 texts is too long.", stacklevel=1)
        warn_in_phase("Outside.", stacklevel=1)
    texts = [str(each.message) for each in caught]
    assert texts == [
        *["Comparing on dev: Evaluating zero-shot: 1 of 3 texts is too long."] * 2,
        "Outside.",
    ]
    assert {each.filename for each in caught} == {__file__}


@pytest.mark.parametrize("width", [20, 40, 80])
def test_figures_are_never_cut(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    table = Table(box=None)
    table.add_column("label", overflow="fold", max_width=20)
    for heading in ("precision, %", "recall, %", "F1, %"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_row("a label of many words", "92.5 (90.8-94.1)", "100.0 (98.1-100.0)", "96.1 (95-97)")
    print_whole(table)
    shown = capsys.readouterr().out
    for text in ("92.5 (90.8-94.1)", "100.0 (98.1-100.0)", "96.1 (95-97)"):
        assert text in shown
    assert "…" not in shown
