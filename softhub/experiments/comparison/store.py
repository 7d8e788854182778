"""Rows of a comparison on disk: one JSON line each, so that a run can stop and go on.

Several runs may add rows to one folder at the same time, each with methods or seeds of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from softhub.errors import ConfigError
from softhub.files import replace_file
from softhub.hub.local.disk import locked

ROWS, ABOUT, LOCK = "rows.jsonl", "comparison.json", ".lock"
_WORDS = ("description", "limitations")  # of a task: they change no row


@dataclass(frozen=True)
class ComparedRow:
    """One method, trained or drawn with one seed, on the test split.

    Attributes:
        method: What tables call it, e.g. `"soft prompt"`.
        setting: What varies within the method, e.g. `"P = 20"`; empty if nothing does.
        seed: Seed of training, or of the shots and their order; None where there is no chance.
        metrics: The task's metrics on the test split, each in [0, 1].
        predictions: Predicted label (or text) of each test example.
        trainable_parameters: Numbers that training changed.
        bytes: What is stored and shipped for the task beside the base.
        prompt_tokens: Tokens that each request carries beside its text.
        train_seconds: Wall time of training with its dev evaluations.
        steps: Optimizer steps.
        best_step: Step of the checkpoint that was used.
        predict_seconds: Wall time per test example.
        history: Dev scores by step.
        details: What else is worth knowing: the template, the dev scores that chose it, …
        judged: What metrics of other kinds than `answers` judge, by their kind: the programs that
            the answers make (`code`), and how these ended (`outcomes`).
    """

    method: str
    metrics: Mapping[str, float]
    predictions: list[str]
    setting: str = ""
    seed: int | None = None
    trainable_parameters: int = 0
    bytes: int = 0
    prompt_tokens: int = 0
    train_seconds: float = 0.0
    steps: int = 0
    best_step: int = 0
    predict_seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    details: Mapping[str, Any] = field(default_factory=dict)
    judged: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, int | None]:
        """What identifies the row within its comparison."""
        return self.method, self.setting, self.seed


class RowStore:
    """The rows of one comparison, in a folder.

    Args:
        folder: Where `rows.jsonl` and `comparison.json` are.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._opened: dict[str, Any] | None = None

    def open(self, about: Mapping[str, Any]) -> None:
        """Begin a comparison, or go on with it.

        Args:
            about: What all rows have in common: task, data, base, training.

        Raises:
            ConfigError: The folder holds rows of another comparison.
        """
        self._opened = json.loads(json.dumps(about, default=str))
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if (self.folder / ROWS).is_file():
                self._check_opened()
                return
            text = json.dumps(self._opened, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
            replace_file(self.folder / ABOUT, text.encode())

    def about(self) -> dict[str, Any]:
        """What all rows have in common.

        Raises:
            ConfigError: There is no comparison in the folder.
        """
        try:
            about: dict[str, Any] = json.loads((self.folder / ABOUT).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(
                f"There is no comparison in {self.folder} ({ABOUT}: {error.strerror}); run "
                "softhub compare first."
            ) from error
        return about

    def rows(self) -> list[ComparedRow]:
        """The rows that are there; a last line that was cut off by a crash is left out."""
        path = self.folder / ROWS
        lines = path.read_text(encoding="utf-8").splitlines(True) if path.is_file() else []
        return [ComparedRow(**json.loads(line)) for line in lines if line.endswith("\n")]

    def add(self, row: ComparedRow) -> None:
        """Append a row; it is on the disk when this returns. One that is there already stays.

        Raises:
            ConfigError: Another comparison took the folder over before it had a row.
        """
        with self._locked():
            self._check_opened()
            there = self.rows()
            if row.key in {one.key for one in there}:
                return
            path = self.folder / ROWS
            if path.is_file() and not path.read_bytes().endswith(b"\n"):
                replace_file(path, "".join(map(_line, there)).encode())
            with path.open("a", encoding="utf-8") as file:
                file.write(_line(row))
                file.flush()
                os.fsync(file.fileno())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with locked(self.folder / LOCK, f"writing to {self.folder}"):
            yield

    def _check_opened(self) -> None:
        """Refuse to mix rows: the folder must hold the comparison that was opened."""
        if self._opened is None:
            return
        before, after = _decisive(self.about()), _decisive(self._opened)
        changed = sorted(k for k in {*before, *after} if before.get(k) != after.get(k))
        if changed:
            raise ConfigError(
                f"{self.folder} holds rows of another comparison (other {', '.join(changed)}): "
                "use another output_dir, or delete it to start anew."
            )


def _line(row: ComparedRow) -> str:
    return json.dumps(asdict(row), ensure_ascii=False) + "\n"


def _decisive(about: Mapping[str, Any]) -> dict[str, Any]:
    task = {key: value for key, value in about.get("task", {}).items() if key not in _WORDS}
    return {**about, "task": task}
