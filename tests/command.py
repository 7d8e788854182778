"""The command as people run it, in this process."""

import logging
import runpy
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from softhub.cli import main
from softhub.terminal import QUIET


@dataclass(frozen=True)
class Done:
    """What a run of the command left."""

    code: int
    out: str
    err: str


_RECIPES = Path(__file__).parents[1] / "recipes"
Command = Callable[..., Done]


def make_command(monkeypatch: pytest.MonkeyPatch, capture: "pytest.CaptureFixture[str]") -> Command:
    """Return `softhub(*arguments)`, which goes through the real entry point."""
    monkeypatch.setattr(logging.getLogger("softhub"), "handlers", [])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["softhub", *map(str, arguments)])
        monkeypatch.setenv(QUIET, "")
        return _done(main, capture)

    return run


def make_recipe(monkeypatch: pytest.MonkeyPatch, capture: "pytest.CaptureFixture[str]") -> Command:
    """Return `recipe(name, *arguments)`: a recipe as `python recipes/NAME.py` would run it.

    In this process, which has torch and transformers loaded already: seconds are saved by that.
    """
    monkeypatch.setattr(logging.getLogger("softhub"), "handlers", [])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def run(name: object, *arguments: object) -> Done:
        script = str(_RECIPES / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        return _done(lambda: runpy.run_path(script, run_name="__main__"), capture)

    return run


def _done(command: Callable[[], object], capture: "pytest.CaptureFixture[str]") -> Done:
    """Run it; one that returns has exited with 0."""
    capture.readouterr()
    code = 0
    try:
        command()
    except SystemExit as finished:
        code = int(finished.code or 0)
    captured = capture.readouterr()
    return Done(code, captured.out, captured.err)
