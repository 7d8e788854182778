"""The command as people run it, in this process."""

import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from softhub.cli import main


@dataclass(frozen=True)
class Done:
    """What a run of the command left."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


def make_command(monkeypatch: pytest.MonkeyPatch, capture: "pytest.CaptureFixture[str]") -> Command:
    """Return `softhub(*arguments)`, which goes through the real entry point."""
    monkeypatch.setattr(logging.getLogger("softhub"), "handlers", [])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["softhub", *map(str, arguments)])
        capture.readouterr()
        with pytest.raises(SystemExit) as finished:
            main()
        captured = capture.readouterr()
        return Done(int(finished.value.code or 0), captured.out, captured.err)

    return run
