"""Few-shot hard prompts: solved examples before each text, drawn and ordered by a seed.

The solved examples become part of the template, so that `PromptModel` answers as it always does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from softhub.errors import TaskError
from softhub.inference.engine import Prediction, PromptModel
from softhub.tasks import Example, Task, Template
from softhub.tasks.decision import ALWAYS_ANSWER

_PROGRESS = "Evaluating few-shot prompts"
_SEPARATOR = "\n\n"  # between solved examples of plain text


def predict_few_shot(
    model: PromptModel,
    task: Task,
    template: Template,
    shots: Sequence[Example],
    examples: Sequence[Example],
    *,
    batch_size: int = 32,
) -> list[Prediction]:
    """Classify texts after solved examples.

    Args:
        model: The engine.
        task: A classification task of plain text.
        template: The hard template of solved examples and texts.
        shots: The solved examples, in order.
        examples: The examples to classify.
        batch_size: Examples per batch.

    Returns:
        One prediction per example, in the order given.

    Raises:
        TaskError: The task is a chat, multi-label, or not a classification.
    """
    if task.system is not None or task.verbalizer is None or task.multilabel:
        raise TaskError(
            "Few-shot prediction is for classification tasks of plain text with one label per "
            "example."
        )
    shown = few_shot_task(model, task, template, shots)
    rows = few_shot_rows(task, template, shots, examples)
    return model.predict(rows, task=shown, batch_size=batch_size, progress=_PROGRESS)


def generate_few_shot(
    model: PromptModel,
    task: Task,
    template: Template,
    shots: Sequence[Example],
    examples: Sequence[Example],
    *,
    batch_size: int = 8,
) -> list[str]:
    """Generate answers after solved examples.

    An answer ends as the task defines, and where the next solved example would begin.

    Args:
        model: The engine.
        task: A generation task of plain text.
        template: The hard template of solved examples and texts; it may contain a chat's control
            tokens, and each example is then a turn.
        shots: The solved examples, in order.
        examples: The examples to answer.
        batch_size: Examples per batch.

    Returns:
        One text per example, in the order given.

    Raises:
        TaskError: The task has a system text, or is not a generation task.
    """
    if task.system is not None or task.kind != "generation":
        raise TaskError("Few-shot generation is for generation tasks without a system text.")
    stop = _stop(template, _separator(model, template), task.generation.get("stop", ()))
    shown = few_shot_task(model, task, template, shots)
    rows = few_shot_rows(task, template, shots, examples)
    return model.generate(rows, task=shown, batch_size=batch_size, progress=_PROGRESS, stop=stop)


def few_shot_task(
    model: PromptModel, task: Task, template: Template, shots: Sequence[Example]
) -> Task:
    """Return the task with solved examples in its template; its rows are `few_shot_rows`."""
    before, _ = _solved(task, template, shots, _separator(model, template))
    length = task.max_length  # of the text alone
    return replace(
        task,
        template=Template(before.text + template.text),
        max_length=length and length + shown_tokens(model, task, template, shots),
        decision=ALWAYS_ANSWER,
    )


def few_shot_rows(
    task: Task, template: Template, shots: Sequence[Example], examples: Sequence[Example]
) -> list[dict[str, Any]]:
    """Return the examples' rows with the columns of the solved examples."""
    _, values = _solved(task, template, shots, _SEPARATOR)
    return [{**example.row, **values} for example in examples]


def few_shot_examples(
    task: Task, template: Template, shots: Sequence[Example], examples: Sequence[Example]
) -> list[Example]:
    """Return the examples with the rows of `few_shot_rows`."""
    rows = few_shot_rows(task, template, shots, examples)
    return [replace(example, row=row) for example, row in zip(examples, rows, strict=True)]


def shown_tokens(
    model: PromptModel, task: Task, template: Template, shots: Sequence[Example]
) -> int:
    """Return the number of tokens of the solved examples, which each request carries."""
    before, values = _solved(task, template, shots, _separator(model, template))
    return len(model.encoder.encode(before, values).ids)


def written_out(task: Task, template: Template, shots: Sequence[Example]) -> str:
    """Return the solved examples as text, each with its answer and followed by an empty line."""
    before, values = _solved(task, template, shots, _SEPARATOR)
    return before.render(values)


def _solved(
    task: Task, template: Template, shots: Sequence[Example], separator: str
) -> tuple[Template, dict[str, Any]]:
    """Return the solved examples as a template with its own columns, and their values.

    So nothing in an example is expanded again, or read as a control token.
    """
    texts: list[str] = []
    values: dict[str, Any] = {}
    for number, shot in enumerate(shots, start=1):
        text = template.text
        for column in template.columns:
            name = f"shot {number} {column}"
            text = text.replace(f"{{{column}}}", f"{{{name}}}")
            values[name] = shot.row[column]
        values[f"answer {number}"] = _answer(task, template, shot)
        texts.append(f"{text}{{answer {number}}}{separator}")
    return Template("".join(texts)), values


def _answer(task: Task, template: Template, shot: Example) -> str:
    """Return a label's first word, or the reference text with a space before it if needed."""
    if task.verbalizer is not None:
        return {label: first for label, (first, *_) in task.verbalizer.words}[str(shot.label)]
    answer = str(shot.target)
    apart = template.render(shot.row)[-1:].isspace() or answer[:1].isspace()
    return answer if apart else f" {answer}"


def _separator(model: PromptModel, template: Template) -> str:
    """Return what ends a solved example: the end of a chat's turn, or an empty line."""
    end = model.encoder.tokenizer.eos_token
    return f"{end}\n" if end and end in template.text else _SEPARATOR


def _stop(template: Template, separator: str, stop: str | Sequence[str]) -> list[str]:
    """Return the task's stop strings and, if the template begins with words, the next example's."""
    strings = [stop] if isinstance(stop, str) else list(stop)
    first, *_ = [*template.columns, ""]
    words = template.text.partition(f"{{{first}}}")[0].partition("\n")[0].rstrip()
    return [*strings, f"{separator}{words}"] if words and separator == _SEPARATOR else strings
