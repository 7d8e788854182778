"""The rows of a comparison on disk: one JSON line each, so that a stopped run can be resumed.

Several runs may add rows to one folder at the same time, each with its own methods or seeds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from softhub.errors import ConfigError
from softhub.files import replace_file

ROWS, ABOUT, LOCK = "rows.jsonl", "comparison.json", ".lock"
_PROSE = ("description", "limitations")  # fields of a task on which no row depends


@dataclass(frozen=True)
class ComparedRow:
    """The result of one method with one seed on the test split.

    Attributes:
        method: Name in tables, e.g. `"soft prompt"`.
        setting: What varies within the method, e.g. `"P = 20"`; empty if nothing does.
        seed: Seed of training, or of the examples in the prompt; None for deterministic methods.
        metrics: Scores on the test split by the task's metrics.
        predictions: Predicted label or text of each test example.
        trainable_parameters: Number of trained parameters.
        bytes: Size of what is stored and shipped for the task in addition to the base.
        prompt_tokens: Tokens that each request carries in addition to its text.
        train_seconds: Wall time of training, with its evaluations on dev.
        steps: Optimizer steps.
        best_step: Step of the checkpoint that was used.
        predict_seconds: Wall time per test example.
        history: Dev scores by step.
        details: Further facts: the template, the dev scores that chose it, …
        judged: What metrics evaluate instead of the answers: the programs that the answers make
            (`code`), and their outcomes (`outcomes`).
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
        """Method, setting and seed, which identify the row within its comparison."""
        return self.method, self.setting, self.seed


class RowStore:
    """The rows of one comparison, in a folder.

    Args:
        folder: The folder of `rows.jsonl` and `comparison.json`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._opened: dict[str, Any] | None = None

    def open(self, about: Mapping[str, Any]) -> None:
        """Start a comparison, or resume it.

        Args:
            about: The conditions that all rows share: task, data, base, training.

        Raises:
            ConfigError: The folder contains rows of another comparison.
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
        """Return the conditions that all rows share.

        Raises:
            ConfigError: There is no comparison in the folder.
        """
        try:
            about: dict[str, Any] = json.loads((self.folder / ABOUT).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(
                f"There is no comparison in {self.folder} ({ABOUT}: {error.strerror}). Run "
                "softhub compare first."
            ) from error
        return about

    def rows(self) -> list[ComparedRow]:
        """Return the stored rows; a last line that a crash truncated is left out."""
        path = self.folder / ROWS
        lines = path.read_text(encoding="utf-8").splitlines(True) if path.is_file() else []
        return [ComparedRow(**json.loads(line)) for line in lines if line.endswith("\n")]

    def add(self, row: ComparedRow) -> None:
        """Append a row and flush it to the disk, unless there is one of the same key.

        Raises:
            ConfigError: Another comparison has taken over the folder, which had no rows yet.
        """
        with self._locked():
            self._check_opened()
            rows = self.rows()
            if row.key in {other.key for other in rows}:
                return
            path = self.folder / ROWS
            if path.is_file() and not path.read_bytes().endswith(b"\n"):
                replace_file(path, "".join(map(_line, rows)).encode())
            with path.open("a", encoding="utf-8") as file:
                file.write(_line(row))
                file.flush()
                os.fsync(file.fileno())

    def _locked(self) -> FileLock:
        return FileLock(self.folder / LOCK, poll_interval=0.01)

    def _check_opened(self) -> None:
        """Check that the folder contains the opened comparison, so that no rows get mixed."""
        if self._opened is None:
            return
        before, after = _conditions(self.about()), _conditions(self._opened)
        changed = sorted(k for k in {*before, *after} if before.get(k) != after.get(k))
        if changed:
            raise ConfigError(
                f"{self.folder} contains rows of another comparison (other {', '.join(changed)}). "
                "Use another output_dir, or delete the folder to start over."
            )


def _line(row: ComparedRow) -> str:
    return json.dumps(asdict(row), ensure_ascii=False) + "\n"


def _conditions(about: Mapping[str, Any]) -> dict[str, Any]:
    task = {key: value for key, value in about.get("task", {}).items() if key not in _PROSE}
    return {**about, "task": task}
