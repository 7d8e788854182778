"""Few-shot hard prompts: solved examples before each text, drawn and ordered by a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import takewhile

import torch
from tqdm.auto import tqdm

from softhub.assembly import pad_rows
from softhub.encoding import Candidates
from softhub.engine import Prediction, PromptModel
from softhub.errors import TaskError
from softhub.kv_cache import encode_prefix, shares_prefixes
from softhub.scoring import Prompt, encode_rows, label_scores
from softhub.tasks import Example, Task, Template

_COLUMN = "solved examples"


def choose_shots(task: Task, train: Sequence[Example], count: int, seed: int) -> list[Example]:
    """Draw examples to show, as evenly over the labels as the count allows, in random order.

    Args:
        task: A classification task.
        train: Where to draw from.
        count: How many to show.
        seed: Chooses the examples and their order.

    Returns:
        The examples, in the order in which they are shown.
    """
    draw = random.Random(seed)
    labels = list(task.verbalizer.labels) if task.verbalizer else []
    by_label = {label: [e for e in train if e.label == label] for label in labels}
    for examples in by_label.values():
        draw.shuffle(examples)
    draw.shuffle(labels)  # with fewer shots than labels, chance says which are shown
    shots: list[Example] = []
    while len(shots) < count and any(by_label.values()):
        shots += [by_label[label].pop() for label in labels if by_label[label]]
    shots = shots[:count]
    draw.shuffle(shots)
    return shots


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
            "Few-shot prompts are for classification tasks of plain text, with one label each."
        )
    solved = written_out(task, template, shots)
    whole = Template(f"{{{_COLUMN}}}{template.text}")
    candidates = model.encoder.candidates(template, task.verbalizer)
    room = model.base.max_positions
    room = None if room is None else room - max(map(len, candidates.sequences))
    rows = [
        model.encoder.encode(
            whole, {**example.row, _COLUMN: solved}, text_column=task.text_column, room=room
        ).ids
        for example in examples
    ]
    scores = _scores(model, rows, candidates, batch_size)
    return [_prediction(candidates.labels, row) for row in scores]


def written_out(task: Task, template: Template, shots: Sequence[Example]) -> str:
    """The solved examples, each with its label's first word and an empty line behind it."""
    assert task.verbalizer is not None
    words = {label: first for label, (first, *_) in task.verbalizer.words}
    return "".join(f"{template.render(e.row)}{words[str(e.label)]}\n\n" for e in shots)


@torch.no_grad()
def _scores(
    model: PromptModel, rows: Sequence[Sequence[int]], candidates: Candidates, batch_size: int
) -> torch.Tensor:
    """Label scores `[N, labels]`.

    What all rows begin with is encoded once, as if it were a prompt: exact, and many times faster.
    """
    base = model.base
    shared = _shared_length(rows)
    vectors = base.embed(torch.tensor(rows[0][:shared], dtype=torch.int64))
    prefix: Prompt = encode_prefix(base, vectors) if shares_prefixes(base) else vectors
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    scores = torch.zeros(len(rows), len(candidates.labels))
    for start in tqdm(range(0, len(order), batch_size), desc="few-shot", disable=None):
        batch = order[start : start + batch_size]
        texts = pad_rows([rows[index][shared:] for index in batch])
        encoded = encode_rows(
            base, [prefix] * len(batch), texts, keep_cache=any(candidates.continuations)
        )
        scores[batch] = label_scores(base, encoded, candidates).cpu()
    return scores


def _shared_length(rows: Sequence[Sequence[int]]) -> int:
    """Number of leading tokens that all rows share; each row keeps at least one of its own."""
    shortest = min(map(len, rows))
    columns = zip(*(row[: shortest - 1] for row in rows), strict=True)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def _prediction(labels: Sequence[str], scores: torch.Tensor) -> Prediction:
    return Prediction(
        labels[int(scores.argmax())],
        dict(zip(labels, scores.softmax(dim=-1).tolist(), strict=True)),
        dict(zip(labels, scores.tolist(), strict=True)),
    )
