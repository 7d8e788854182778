"""Answers of `/v1/classify` and `/v1/score`, the same from the built-in engine and from vLLM."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

from softhub.inference.prediction import Prediction


def classified(prediction: Prediction, truncated: int) -> dict[str, Any]:
    """Return what `/v1/classify` answers for a row.

    Args:
        prediction: Its prediction.
        truncated: Number of characters that were removed from its text.
    """
    return {
        "label": prediction.label,
        "abstained": prediction.abstained,
        "probabilities": dict(prediction.probabilities),
        **({} if prediction.labels is None else {"labels": list(prediction.labels)}),
        "truncated_characters": truncated,
    }


def scored(logprobs: Sequence[float], truncated: int) -> dict[str, Any]:
    """Return what `/v1/score` answers for a row.

    Args:
        logprobs: Log-probabilities of the tokens of its reference text.
        truncated: Number of characters that were removed from its text.
    """
    return {
        "logprob": sum(logprobs),
        "token_logprobs": list(logprobs),
        "truncated_characters": truncated,
    }


def scoring_answer(
    kind: str, model: str, rows: Sequence[dict[str, Any]], tokens: int
) -> dict[str, Any]:
    """Return the whole answer.

    Args:
        kind: Beginning of its id.
        model: Name of the prompt.
        rows: What is answered for each row.
        tokens: Number of tokens of all rows, with their virtual tokens.
    """
    return {
        "id": f"{kind}-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": [{"index": index, **row} for index, row in enumerate(rows)],
        "usage": {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens},
    }
