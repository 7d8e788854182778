"""Rows of a comparison on disk: one JSON line each, so that a run can stop and go on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from softhub.errors import ConfigError

ROWS, ABOUT = "rows.jsonl", "comparison.json"
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

    def open(self, about: Mapping[str, Any]) -> None:
        """Begin a comparison, or go on with it.

        Args:
            about: What all rows have in common: task, data, base, training.

        Raises:
            ConfigError: The folder holds rows of another comparison.
        """
        record = json.loads(json.dumps(about, default=str))
        if not (self.folder / ROWS).is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
            (self.folder / ABOUT).write_text(text, encoding="utf-8")
            return
        before, after = _decisive(self.about()), _decisive(record)
        changed = sorted(k for k in {*before, *after} if before.get(k) != after.get(k))
        if changed:
            raise ConfigError(
                f"{self.folder} holds rows of another comparison (other {', '.join(changed)}): "
                "use another output_dir, or delete it to start anew."
            )

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
        """Append a row; it is on the disk when this returns."""
        path = self.folder / ROWS
        if path.is_file() and not path.read_bytes().endswith(b"\n"):
            whole = [json.dumps(asdict(row), ensure_ascii=False) for row in self.rows()]
            path.write_text("".join(f"{line}\n" for line in whole), encoding="utf-8")
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _decisive(about: Mapping[str, Any]) -> dict[str, Any]:
    task = {key: value for key, value in about.get("task", {}).items() if key not in _WORDS}
    return {**about, "task": task}
