"""Answer one batch of requests whose texts are scored: labels, or reference texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from functools import partial, wraps
from typing import TypeVar

import torch

from softhub.inference.batching import answer_apart, widest
from softhub.inference.prediction import Prediction, decide
from softhub.inference.requests import Request, is_prefix, prepared_prompts
from softhub.model.assembly import PaddedBatch, pad_rows
from softhub.model.base import BaseModel
from softhub.model.encoding import Candidates
from softhub.model.grouping import PreparedPrompt
from softhub.model.kv_cache import shares_prefixes
from softhub.model.scoring import encode_rows, label_scores, target_logits, target_logprobs

_Answer = TypeVar("_Answer")
_BatchAnswer = Callable[[BaseModel, Sequence[Request]], list[_Answer]]


def _each_prefix_as_alone(answer: _BatchAnswer[_Answer]) -> _BatchAnswer[_Answer]:
    """Make a function answer a row with a prefix whatever the width of the other rows."""

    @wraps(answer)
    def answered(base: BaseModel, requests: Sequence[Request]) -> list[_Answer]:
        prefixes = len(requests) > 1 and any(is_prefix(each.prompt) for each in requests)
        if prefixes and not shares_prefixes(base, widest(requests)):
            return answer_apart(requests, partial(answered, base))
        return answer(base, requests)

    return answered


@_each_prefix_as_alone
@torch.no_grad()
def predict_batch(
    base: BaseModel,
    requests: Sequence[Request],
) -> list[Prediction]:
    """Classify rows.

    Args:
        base: The base model.
        requests: Rows with candidates; tasks may be mixed.
    """
    # All rows share the pass over their texts; label words are scored task by task.
    rows_of: dict[Candidates, list[int]] = {}
    for row, request in enumerate(requests):
        assert request.candidates is not None
        rows_of.setdefault(request.candidates, []).append(row)
    encoded = encode_rows(
        base,
        _prepared(base, requests),
        pad_rows([request.text.ids for request in requests]),
        keep_cache=any(any(candidates.continuations) for candidates in rows_of),
    )
    predictions: dict[int, Prediction] = {}
    for candidates, rows in rows_of.items():
        part = encoded if len(rows_of) == 1 else encoded.select(rows)
        scores = label_scores(base, part, candidates).tolist()  # [rows, labels]
        for row, of_labels in zip(rows, scores, strict=True):
            decision = requests[row].decision
            predictions[row] = decide(candidates, of_labels, decision)
    return [predictions[row] for row in range(len(requests))]


@_each_prefix_as_alone
@torch.no_grad()
def score_batch(base: BaseModel, requests: Sequence[Request]) -> list[tuple[float, ...]]:
    """Return the log-probabilities of each row's reference tokens.

    Args:
        base: The base model.
        requests: Rows with targets.
    """
    scores = target_logprobs(base, *_with_targets(base, requests))
    pairs = zip(scores.tolist(), requests, strict=True)
    return [tuple(row[_places(base, row, request)]) for row, request in pairs]


@_each_prefix_as_alone
@torch.no_grad()
def logit_batch(base: BaseModel, requests: Sequence[Request]) -> list[torch.Tensor]:
    """Return the logits that predict each row's reference tokens, `[tokens, V]` in float32.

    Args:
        base: The base model.
        requests: Rows with targets.
    """
    logits = target_logits(base, *_with_targets(base, requests)).float()  # [B, N, V]
    pairs = zip(logits, requests, strict=True)
    return [row[_places(base, row, request)] for row, request in pairs]


def computed_tokens(base: BaseModel, requests: Sequence[Request]) -> list[int]:
    """Return for how many tokens a batch computes each row: not for prompts with cached keys."""
    cached = shares_prefixes(base, widest(requests))  # asked once, as it looks at all modules
    prompts = [0 if cached or each.prompt is None else each.prompt.length for each in requests]
    pairs = zip(prompts, requests, strict=True)
    return [length + len(each.text.ids) + len(each.target) for length, each in pairs]


def _with_targets(
    base: BaseModel, requests: Sequence[Request]
) -> tuple[list[PreparedPrompt], PaddedBatch, PaddedBatch]:
    """Return prompts, texts padded on the left, and targets padded on the right."""
    texts = pad_rows([request.text.ids for request in requests])
    return _prepared(base, requests), texts, pad_rows([r.target for r in requests], side="right")


def _places(base: BaseModel, row: Sized, request: Request) -> slice:
    """Return where a row has its targets: a decoder's end with the row."""
    size = len(request.target)
    return slice(0, size) if base.is_encoder_decoder else slice(len(row) - size, len(row))


def _prepared(base: BaseModel, requests: Sequence[Request]) -> list[PreparedPrompt]:
    """Return each row's prompt as keys and values if the base can share them, else vectors."""
    prompts = [request.prompt for request in requests]
    if not any(prompts):
        return [None] * len(prompts)
    return prepared_prompts(base, prompts, as_keys=shares_prefixes(base, widest(requests)))
