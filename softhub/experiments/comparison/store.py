"""The rows of a comparison on disk: one JSON line each, so that a stopped run can be resumed.

Several runs may add rows to one folder at the same time, each with its own methods or seeds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from softhub.errors import ConfigError
from softhub.experiments.records import append_record, read_record, read_records
from softhub.files import replace_file

ROWS, RATES, ABOUT, LOCK = "rows.jsonl", "rates.jsonl", "comparison.json", ".lock"
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
            if self.rows():
                self._check_opened()
                return
            if not (self.folder / ABOUT).is_file() or self._differences(self._opened):
                (self.folder / RATES).unlink(missing_ok=True)  # of another comparison
            text = json.dumps(self._opened, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
            replace_file(self.folder / ABOUT, text.encode())

    def about(self) -> dict[str, Any]:
        """Return the conditions that all rows share.

        Raises:
            ConfigError: There is no comparison in the folder, or its file is damaged.
        """
        fix = "Restore the file from a backup, or use another output_dir."
        try:
            return read_record(self.folder / ABOUT, fix)
        except OSError as error:
            raise ConfigError(
                f"There is no comparison in {self.folder} ({ABOUT}: {error.strerror}). Run "
                "softhub compare first."
            ) from error

    def rows(self) -> list[ComparedRow]:
        """Return the stored rows; a last line that a crash cut off is left out.

        Raises:
            ConfigError: A line is damaged.
        """
        return read_records(self.folder / ROWS, ComparedRow)

    def add(self, row: ComparedRow) -> None:
        """Append a row and flush it to the disk, unless there is one of the same key.

        Raises:
            ConfigError: Another comparison has taken over the folder, which had no rows yet.
        """
        with self._locked():
            self._check_opened()
            if row.key not in {other.key for other in self.rows()}:
                append_record(self.folder / ROWS, asdict(row))

    def _locked(self) -> FileLock:
        return FileLock(self.folder / LOCK, poll_interval=0.01)

    def _check_opened(self) -> None:
        """Check that the folder contains the opened comparison, so that no rows get mixed."""
        changed = self._differences(self._opened) if self._opened is not None else []
        if changed:
            raise ConfigError(
                f"{self.folder} contains rows of another comparison (other {', '.join(changed)}). "
                "Use another output_dir, or delete the folder to start over."
            )

    def _differences(self, opened: Mapping[str, Any]) -> list[str]:
        """Return the names of the conditions in which the folder's comparison differs."""
        before, after = _conditions(self.about()), _conditions(opened)
        return sorted(k for k in {*before, *after} if before.get(k) != after.get(k))


def _conditions(about: Mapping[str, Any]) -> dict[str, Any]:
    task = about.get("task")
    if isinstance(task, dict):
        task = {key: value for key, value in task.items() if key not in _PROSE}
    return {**about, "task": task}
