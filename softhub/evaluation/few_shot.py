"""Few-shot hard prompts: solved examples before each text, drawn and ordered by a seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

import torch
from tqdm.auto import tqdm

from softhub.errors import TaskError
from softhub.inference.engine import Prediction, PromptModel
from softhub.inference.generation import generate_texts
from softhub.inference.requests import NEW_TOKENS, LoadedPrompt, report_cuts
from softhub.model.assembly import pad_rows
from softhub.model.base import BaseModel
from softhub.model.encoding import Candidates
from softhub.model.kv_cache import shares_prefixes
from softhub.model.scoring import encode_rows, label_scores
from softhub.tasks import Example, Task, Template

_BETWEEN = "\n\n"  # solved examples of plain text


def predict_few_shot(
    model: PromptModel,
    task: Task,
    template: Template,
    shots: Sequence[Example],
    examples: Sequence[Example],
    *,
    batch_size: int = 32,
) -> list[Prediction]:
    """Classify texts behind solved examples.

    Args:
        model: The engine.
        task: A classification task of plain text.
        template: The hard template in which solved examples and texts are written.
        shots: The solved examples, in order.
        examples: What to classify.
        batch_size: Examples in one pass.

    Returns:
        One prediction an example, in the order given.

    Raises:
        TaskError: The task is a chat, multi-label, or no classification.
    """
    if task.system is not None or task.verbalizer is None or task.multilabel:
        raise TaskError(
            "Labels behind solved examples are for classification tasks of plain text, with one "
            "label each."
        )
    candidates = model.encoder.candidates(template, task.verbalizer)
    longest = max(map(len, candidates.sequences))
    rows = _encoded(model, task, template, shots, examples, answer=longest)
    scores = _scores(model.base, rows, candidates, batch_size)
    return [_prediction(candidates.labels, row) for row in scores]


def generate_few_shot(
    model: PromptModel,
    task: Task,
    template: Template,
    shots: Sequence[Example],
    examples: Sequence[Example],
    *,
    batch_size: int = 8,
) -> list[str]:
    """Answer texts behind solved examples.

    An answer ends as the task says, and where the next example would begin. A penalty for
    repetition counts the text to answer, not the examples.

    Args:
        model: The engine.
        task: A generation task of plain text.
        template: The hard template in which solved examples and texts are written; it may hold a
            chat's control tokens, and each example is then a turn.
        shots: The solved examples, in order.
        examples: What to answer.
        batch_size: Examples in one pass.

    Returns:
        One text an example, in the order given.

    Raises:
        TaskError: The task has a system text, or is no generation.
    """
    if task.system is not None or task.kind != "generation":
        raise TaskError(
            "Answers behind solved examples are for generation tasks without a system text."
        )
    options = {"max_new_tokens": NEW_TOKENS, **task.generation}
    options["stop"] = _stop(template, _between(model, template), options.get("stop", ()))
    most = int(options["max_new_tokens"])
    rows = _encoded(model, task, template, shots, examples, answer=most)
    prefix, rests = _shared(model.base, rows)
    answers: dict[int, str] = {}
    for batch in _batches(rests, batch_size):
        texts = [rests[index] for index in batch]
        found = generate_texts(model.base, [prefix] * len(batch), texts, options)
        answers.update(zip(batch, found, strict=True))
    return [answers[index] for index in range(len(rows))]


def shown_tokens(
    model: PromptModel, task: Task, template: Template, shots: Sequence[Example]
) -> int:
    """Tokens of the solved examples: what each request carries beside its text and template."""
    before, values = _before(task, template, shots, _between(model, template))
    return len(model.encoder.encode(before, values).ids)


def written_out(task: Task, template: Template, shots: Sequence[Example]) -> str:
    """The solved examples, each with its answer (a label's first word) and an empty line behind."""
    before, values = _before(task, template, shots, _BETWEEN)
    return before.render(values)


def _before(
    task: Task, template: Template, shots: Sequence[Example], between: str
) -> tuple[Template, dict[str, Any]]:
    """The solved examples as a template with columns of its own, and the values of these.

    So nothing in an example is expanded again, or taken for a control token.
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
        texts.append(f"{text}{{answer {number}}}{between}")
    return Template("".join(texts)), values


def _answer(task: Task, template: Template, shot: Example) -> str:
    """A label's first word, or the reference text, with a space where none parts it."""
    if task.verbalizer is not None:
        return {label: first for label, (first, *_) in task.verbalizer.words}[str(shot.label)]
    answer = str(shot.target)
    apart = template.render(shot.row)[-1:].isspace() or answer[:1].isspace()
    return answer if apart else f" {answer}"


def _between(model: PromptModel, template: Template) -> str:
    """What ends a solved example: in a chat the end of its turn, else an empty line."""
    end = model.encoder.tokenizer.eos_token
    return f"{end}\n" if end and end in template.text else _BETWEEN


def _stop(template: Template, between: str, stop: str | Sequence[str]) -> list[str]:
    """The task's stop strings, and how the next example would begin if it has words of its own."""
    strings = [stop] if isinstance(stop, str) else list(stop)
    first, *_ = [*template.columns, ""]
    words = template.text.partition(f"{{{first}}}")[0].partition("\n")[0].rstrip()
    return [*strings, f"{between}{words}"] if words and between == _BETWEEN else strings


def _encoded(
    model: PromptModel,
    task: Task,
    template: Template,
    shots: Sequence[Example],
    examples: Sequence[Example],
    *,
    answer: int,
) -> list[tuple[int, ...]]:
    """Token ids of each text behind the solved examples, with room for an answer."""
    before, values = _before(task, template, shots, _between(model, template))
    whole, positions = Template(before.text + template.text), model.base.max_positions
    limits = [] if positions is None else [positions - answer]
    if task.max_length:  # of the text; what is shown before it is as long as it is
        limits.append(shown_tokens(model, task, template, shots) + task.max_length)
    rows: Iterator[Mapping[str, Any]] = ({**example.row, **values} for example in examples)
    encode, room = model.encoder.encode, min(limits, default=None)
    texts = [encode(whole, row, text_column=task.text_column, room=room) for row in rows]
    report_cuts(texts)
    return [text.ids for text in texts]


@torch.no_grad()
def _scores(
    base: BaseModel, rows: Sequence[Sequence[int]], candidates: Candidates, batch_size: int
) -> torch.Tensor:
    """Label scores `[N, labels]`."""
    loaded, rests = _shared(base, rows)
    prefix = loaded.prefix(base) if shares_prefixes(base) else loaded.vectors
    scores = torch.zeros(len(rows), len(candidates.labels))
    for batch in _batches(rests, batch_size):
        texts = pad_rows([rests[index] for index in batch])
        encoded = encode_rows(
            base, [prefix] * len(batch), texts, keep_cache=any(candidates.continuations)
        )
        scores[batch] = label_scores(base, encoded, candidates).cpu()
    return scores


@torch.no_grad()
def _shared(
    base: BaseModel, rows: Sequence[Sequence[int]]
) -> tuple[LoadedPrompt, list[Sequence[int]]]:
    """What all rows begin with as if it were a prompt, and what is left of each.

    It is encoded once: exact, and many times faster. Each row keeps at least one token.
    """
    shortest = min(map(len, rows))
    columns = zip(*(row[: shortest - 1] for row in rows), strict=True)
    shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    vectors = base.embed(torch.tensor(rows[0][:shared], dtype=torch.int64))
    return LoadedPrompt(vectors, None), [row[shared:] for row in rows]


def _batches(rows: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Indices of rows of like length, with a progress bar on a terminal."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    for start in tqdm(range(0, len(order), size), desc="few-shot", disable=None):
        yield order[start : start + size]


def _prediction(labels: Sequence[str], scores: torch.Tensor) -> Prediction:
    return Prediction(
        labels[int(scores.argmax())],
        dict(zip(labels, scores.softmax(dim=-1).tolist(), strict=True)),
        dict(zip(labels, scores.tolist(), strict=True)),
    )
