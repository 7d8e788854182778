"""Checks before training of what the evaluation after it needs: room in the base's context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from softhub.adapter.manifest import check_task
from softhub.errors import DatasetError, TaskError
from softhub.inference.requests import LoadedPrompt, PreparedTask, Request, RequestEncoder
from softhub.metrics import find_metric
from softhub.model.base import BaseModel
from softhub.tasks import Example, Splits, Task

_FRAME = 8
"""Tokens for what a tokenizer adds around a text and an answer."""


def check_evaluation(
    base: BaseModel, task: Task, data: Splits, metrics: Sequence[str], *, virtual_tokens: int
) -> None:
    """Check that a prompt can be saved, and like the hard prompts answer all rows of dev and test.

    Rows are encoded without their text, which may be truncated, so that few differ.

    Args:
        base: The base model, of which neither weights nor `generate` are used.
        task: The task.
        data: The examples.
        metrics: Names of the metrics, from `select_metrics`.
        virtual_tokens: Number of virtual tokens of the prompt.

    Raises:
        TaskError: A template or the generation options leave no room for a text, or no adapter can
            hold the task; names the task.
        DatasetError: A row does; names its place.
        ConfigError: The generation options exclude one another.
    """
    check_task(task)
    requests, prompt = RequestEncoder(base), LoadedPrompt(torch.empty(virtual_tokens, 0), None)
    _check(requests, base, task, task.name, metrics, data.test, prompt)
    origin = f"{task.name}: hard_templates" if task.hard_templates else task.name
    for template in task.hard_templates or (task.template,):
        hard = replace(task, template=template)
        _check(requests, base, hard, origin, metrics, [*data.dev, *data.test], None)


def check_answers(base: BaseModel, task: Task, examples: Sequence[Example]) -> None:
    """Check that the bare base can answer examples, if their texts are truncated.

    Args:
        base: The base model.
        task: The task; its hard templates do not matter.
        examples: The examples.

    Raises:
        TaskError: The template leaves no room for a text.
        DatasetError: A row does; names its place.
        ConfigError: As in `check_evaluation`.
    """
    _check(RequestEncoder(base), base, task, task.name, (), examples, None)


def fits(base: BaseModel, task: Task, examples: Sequence[Example]) -> bool:
    """Return whether `check_answers` finds that all examples fit."""
    try:
        check_answers(base, task, examples)
    except (TaskError, DatasetError):
        return False
    return True


def _check(
    requests: RequestEncoder,
    base: BaseModel,
    task: Task,
    origin: str,
    metrics: Sequence[str],
    examples: Sequence[Example],
    prompt: LoadedPrompt | None,
) -> None:
    try:
        prepared = requests.prepare(task)
        assert prepared is not None
        shortest = _shortest(requests, prepared, metrics, prompt)
    except TaskError as error:
        raise TaskError(f"{origin}: {error}") from error
    for request in shortest:
        _check_rows(base, prepared.task, request, examples)


def _shortest(
    requests: RequestEncoder,
    prepared: PreparedTask,
    metrics: Sequence[str],
    prompt: LoadedPrompt | None,
) -> list[Request]:
    """Return what the metrics ask of a row without any text: an answer, or a reference's score."""
    row = dict.fromkeys(prepared.task.template.columns, "")
    if prepared.candidates is not None:
        return [requests.classification(row, prompt, prepared)]
    kinds = {find_metric(name).input_kind for name in metrics}
    found = []
    if kinds != {"log_probabilities"}:
        found.append(requests.generation(row, prompt, prepared, {}))
    if "log_probabilities" in kinds:
        found.append(requests.reference(row, "text", prompt, prepared))
    return found


def _check_rows(base: BaseModel, task: Task, request: Request, examples: Sequence[Example]) -> None:
    """Check that the rows fit without their text, where a request without any column does."""
    if not (task.max_length or base.max_positions):
        return
    others = [column for column in task.template.columns if column != task.text_column]
    scored = [str(task.target_column)] if request.target else []
    distinct: dict[Any, Example] = {}
    for example in examples if others or scored else ():
        values = (*(example.row[column] for column in others), example.target if scored else None)
        distinct.setdefault(values, example)
    virtual = request.prompt.length if request.prompt else 0
    for example in distinct.values():
        row = {**example.row, task.text_column: ""}
        target = str(example.target) if scored else ""
        # A text has hardly more tokens than bytes, so that most rows need not be encoded.
        most = len((task.template.render(row) + target).encode()) + _FRAME + request.answer
        if most <= min(limit for limit in (task.max_length, base.max_positions) if limit) - virtual:
            continue
        text, answer = len(base.encoder.encode(task.template, row).ids), request.answer
        if scored:
            answer = len(base.encoder.target(task.template, target))
        limits = (
            task.max_length and task.max_length + answer,
            base.max_positions and base.max_positions - virtual,
        )
        fitting = min(limit for limit in limits if limit is not None)
        if text + answer > fitting:
            raise DatasetError(
                f"{example.place or 'an example'}: without its {task.text_column!r}, the row "
                f"takes {text + answer} tokens with its answer, and {fitting} fit; shorten its "
                f"{' or '.join(map(repr, [*others, *scored]))}, or leave the row out"
            )
