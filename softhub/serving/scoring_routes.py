"""`/v1/classify` and `/v1/score`: labels with probabilities, and reference texts' probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request

from softhub.serving.api_types import ClassifyBody, ScoreBody, as_rows
from softhub.serving.context import Context, log_fields
from softhub.serving.errors import ApiError
from softhub.serving.protocol import Classified, Row, Scored
from softhub.serving.scoring_answers import classified, scored, scoring_answer


def scoring_routes(context: Context) -> APIRouter:
    """Return the routes that score what may follow a text."""
    router = APIRouter()

    @router.post("/v1/classify")
    async def classify(body: ClassifyBody, request: Request) -> dict[str, Any]:
        texts = as_rows(body.input, "input")
        context.limits.check_rows(len(texts), "input")
        prompt = await context.names.find(body.model)
        if prompt.task is None or prompt.task.kind != "classification":
            raise ApiError(
                400,
                f"The model {body.model!r:.200} has no classification task; send the text to "
                "/v1/completions.",
                param="model",
            )
        context.limits.check_labels(prompt.task, len(texts), "input")
        rows = [Row(text, prompt) for text in texts]
        answer = context.engine.classify(rows, abstain_below=body.abstain_below)
        found = await context.wait(request, answer)
        data = [classified(each.prediction, each.truncated) for each in found]
        return _answer(context, request, "classify", body.model, data, found)

    @router.post("/v1/score")
    async def score(body: ScoreBody, request: Request) -> dict[str, Any]:
        texts = as_rows(body.input, "input")
        targets = [body.target] if isinstance(body.target, str) else body.target
        context.limits.check_rows(len(texts), "input")
        if len(targets) != len(texts):
            raise ApiError(
                400,
                f"Found {len(targets)} targets for {len(texts)} inputs; expected one for each.",
                param="target",
            )
        prompt = await context.names.find(body.model)
        rows = [Row(text, prompt) for text in texts]
        found = await context.wait(request, context.engine.score(rows, targets))
        data = [scored(each.logprobs, each.truncated) for each in found]
        return _answer(context, request, "score", body.model, data, found)

    return router


def _answer(
    context: Context,
    request: Request,
    kind: str,
    model: str,
    data: list[dict[str, Any]],
    found: Sequence[Classified] | Sequence[Scored],
) -> dict[str, Any]:
    tokens = sum(each.tokens for each in found)
    context.metrics.count_tokens(model, tokens, 0)
    log_fields(request, model=model, rows=len(found), prompt_tokens=tokens)
    return scoring_answer(kind, model, data, tokens)
