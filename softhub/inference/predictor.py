"""`Predictor`: a base with prompts that travels to where the rows are and answers columns."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from softhub.errors import ConfigError, PromptNotLoaded, TaskError
from softhub.inference.engine import Prediction, PromptModel
from softhub.inference.requests import Text, requires_labels
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Task
from softhub.tasks.example_reader import join_lines

Adapter = str | Path | SoftPrompt
Row = Mapping[str, Any]

_BLANK = {"string": "", "double": math.nan, "bool": False}
_ONLY = "prompt"  # the name of a prompt that is given without one


class Predictor:
    """A function from columns to columns: labels, or generated texts, for each row.

    It is picklable at any time: it carries the prompts, which take kilobytes, and the name of the
    base, which each process loads when it first calls it.

    Args:
        base: The base model: Hub id, folder or GGUF file, as each process finds it.
        prompts: An adapter folder or `SoftPrompt`, or several by name.
        method: `predict` classifies, `generate` continues.
        prompt_column: Column with the name of each row's prompt; required for several prompts.
        task: Task for prompts without one.
        load: Options of `load_base`, such as `device_map`.
        force: Use prompts that were made for another base of the same width.
        **options: Options of `PromptModel.predict` or `PromptModel.generate`, such as
            `batch_size`. The rows of a call are numbered from 0, also for `seed`.

    Raises:
        ConfigError: `method` is unknown, or `prompt_column` is missing.
        TaskError: A prompt has no labels to predict.
        InvalidAdapter: An adapter folder is damaged.

    Examples:
        >>> predictor = Predictor("HuggingFaceTB/SmolLM2-135M-Instruct", "runs/sentiment/adapter")
        >>> dataset.map(predictor, batched=True, batch_size=1024)
    """

    def __init__(
        self,
        base: str | Path,
        prompts: Adapter | Mapping[str, Adapter],
        *,
        method: Literal["predict", "generate"] = "predict",
        prompt_column: str | None = None,
        task: Task | None = None,
        load: Mapping[str, Any] | None = None,
        force: bool = False,
        **options: Any,
    ) -> None:
        named = prompts if isinstance(prompts, Mapping) else {_ONLY: prompts}
        if method not in ("predict", "generate"):
            raise ConfigError(f"method is {method!r}; expected 'predict' or 'generate'.")
        if prompt_column is None and len(named) != 1:
            raise ConfigError(
                f"Found {len(named)} prompts and no prompt_column; name the column that contains "
                "the name of each row's prompt."
            )
        self.base = str(base)
        self.method = method
        self.prompt_column = prompt_column
        self.options = options
        self._prompts = {
            name: each if isinstance(each, SoftPrompt) else SoftPrompt.from_pretrained(each)
            for name, each in named.items()
        }
        self._task, self._load, self._force = task, dict(load or {}), force
        own = {name: each.manifest.task for name, each in self._prompts.items()}
        self._tasks = {
            name: Task.from_record(record) if record else task for name, record in own.items()
        }
        for known in self._tasks.values():
            if method == "predict" and (known is None or known.verbalizer is None):
                raise requires_labels(known)
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._model: PromptModel | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return everything but the loaded base."""
        return {key: value for key, value in vars(self).items() if key not in ("_lock", "_model")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore it without a base."""
        vars(self).update(state)
        self._start()

    @property
    def model(self) -> PromptModel:
        """The base with its prompts, which is loaded on first use in a process."""
        with self._lock:
            if self._model is None:
                model = PromptModel.from_pretrained(self.base, **self._load)
                for name, prompt in self._prompts.items():
                    model.load_prompt(prompt, name=name, task=self._tasks[name], force=self._force)
                self._model = model
        return self._model

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks of its prompts."""
        return tuple(task for task in self._tasks.values() if task)

    @property
    def text_column(self) -> str:
        """The column of an input that is only a text."""
        return self.tasks[0].text_column if self.tasks else "text"

    @property
    def answer_types(self) -> dict[str, str]:
        """Names of the columns that a call adds, with their Arrow types."""
        if self.method == "generate":
            return {"generated_text": "string", "error": "string"}
        labels = [
            label for task in self.tasks if task.verbalizer for label in task.verbalizer.labels
        ]
        chances = {f"probabilities.{label}": "double" for label in labels}
        answers = {"predicted_label": "string", "abstained": "bool", **chances}
        return {**answers, "error": "string"}

    def check_columns(self, columns: Collection[str]) -> None:
        """Check that a table has no column that the answers would replace.

        Args:
            columns: Names of the table's columns.

        Raises:
            ConfigError: It has one.
        """
        taken = next((name for name in self.answer_types if name in columns), None)
        if taken is not None:
            raise ConfigError(
                f"The rows have a column {taken!r}, which the answers would replace; rename it."
            )

    def record(self) -> dict[str, Any]:
        """Return what the answers depend on, in JSON types."""
        prompts = {
            name: hashlib.sha256(prompt.vectors.numpy().tobytes() + prompt.manifest.to_bytes())
            for name, prompt in self._prompts.items()
        }
        return {
            "base": self.base,
            "method": self.method,
            "prompts": {name: digest.hexdigest() for name, digest in prompts.items()},
            "prompt_column": self.prompt_column,
            "task": self._task.to_record() if self._task else None,
            "options": {name: repr(value) for name, value in sorted(self.options.items())},
            "load": {name: repr(value) for name, value in sorted(self._load.items())},
        }

    def __call__(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """Answer the rows of a table.

        Args:
            columns: Values by column, such as a batch of `datasets.map` or of Ray Data, or
                `frame.to_dict("list")` of a pandas DataFrame.

        Returns:
            The columns, and lists of answers: `predicted_label` (for a multi-label task those that
            apply, joined by `;`), `abstained` and `probabilities.LABEL`, or `generated_text`; and
            `error`, which says why a row has no answer. What a row does not have is `""`, False or
            NaN rather than None, so that a batch without any has columns of the same types.

        Raises:
            ConfigError: A column has the name of an answer's column, or an option is invalid.
        """
        self.check_columns(columns)
        values = [_listed(columns[name]) for name in columns]
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]
        found = self.answer_rows(rows)
        answers = {
            name: [_BLANK[kind] if (value := row[name]) is None else value for row in found]
            for name, kind in self.answer_types.items()
        }
        return {**columns, **answers}

    def answer_rows(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Answer rows.

        Args:
            rows: Values by column.

        Returns:
            For each row the columns of `answer_types`, None where it has no value.

        Raises:
            ConfigError: An option is invalid.
        """
        plain = [{name: _plain(row[name]) for name in row} for row in rows]
        answers = map(self._columns_of, self._answers(plain))
        return [{name: answer.get(name) for name in self.answer_types} for answer in answers]

    def _answers(self, rows: Sequence[Row]) -> list[Prediction | str | Exception]:
        """Answer rows; one that cannot be answered has an error, which is found by bisection."""
        if not rows:
            return []
        names = [self._prompt_of(row) for row in rows]
        try:
            texts = [self._text_of(row, name) for row, name in zip(rows, names, strict=True)]
            answer = getattr(self.model, self.method)
            return list(answer(texts, prompt=names, **self.options))
        except (TaskError, PromptNotLoaded) as error:  # a row was refused, before any was answered
            if len(rows) == 1:
                return [error]
        middle = len(rows) // 2
        return self._answers(rows[:middle]) + self._answers(rows[middle:])

    def _prompt_of(self, row: Row) -> Any:
        return (
            next(iter(self._prompts)) if self.prompt_column is None else row.get(self.prompt_column)
        )

    def _text_of(self, row: Row, name: Any) -> Text:
        if name not in self._prompts:
            raise PromptNotLoaded(
                f"{name!r:.80} is no prompt; expected one of {', '.join(self._prompts)}"
            )
        task = self._tasks[name]
        column = task.text_column if task else self.text_column
        value = row.get(column)
        if isinstance(value, str) and not value.strip():
            raise TaskError(f"the column {column!r} is empty; expected text")
        return row if task else value  # type: ignore[return-value]  # generate checks it

    def _columns_of(self, answer: Prediction | str | Exception) -> dict[str, Any]:
        if isinstance(answer, Exception):
            return {"error": str(answer)}
        if isinstance(answer, str):
            return {"generated_text": answer}
        chances = {f"probabilities.{label}": p for label, p in answer.probabilities.items()}
        return {"predicted_label": answer.label, "abstained": answer.abstained, **chances}


def _listed(column: Sequence[Any]) -> Sequence[Any]:
    """Return a column as Python values, also if it is an array of numpy or pandas."""
    return column.tolist() if hasattr(column, "tolist") else column


def _plain(value: Any) -> Any:
    """Return a value with None for each way to write that it is missing, and lines joined."""
    import pandas as pd

    missing = not isinstance(value, str) and pd.api.types.is_scalar(value) and pd.isna(value)
    return None if missing else join_lines(value)
