"""Routes beside vLLM's own: prompts in `/v1/models`, scores, and loading and unloading."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from vllm.entrypoints.serve.engine.protocol import ModelCard
from vllm.entrypoints.serve.utils.api_utils import with_cancellation
from vllm.sampling_params import MAX_LOGPROB_TOKEN_IDS

from softhub.errors import ConfigError, PromptNotLoaded, SoftHubError, TaskError
from softhub.inference.prediction import decide
from softhub.model.encoding import EncodedText
from softhub.serving.keys import Keys
from softhub.serving.scoring_answers import classified, scored, scoring_answer
from softhub.serving.vllm.api_types import (
    Body,
    ClassifyBody,
    LoadBody,
    ScoreBody,
    UnloadBody,
    as_rows,
)
from softhub.serving.vllm.errors import error_response
from softhub.serving.vllm.prompts import Prompts
from softhub.serving.vllm.scoring import label_scores, next_logprobs_of, sequence_logprobs
from softhub.serving.vllm.served import ServedPrompt

_Body = TypeVar("_Body", bound=Body)
Answer = dict[str, Any]


@dataclass
class Serving:
    """What the routes need.

    Attributes:
        prompts: The prompts.
        engine: vLLM's engine client.
    """

    prompts: Prompts
    engine: Any


def add_routes(app: FastAPI, admin_keys: Keys) -> None:
    """Add the routes; those that load and unload only with a key for administration."""
    app.add_api_route("/v1/models", _models, methods=["GET"])
    app.add_api_route("/v1/classify", with_cancellation(_classify), methods=["POST"])
    app.add_api_route("/v1/score", with_cancellation(_score), methods=["POST"])
    if not admin_keys:
        return

    async def load(raw_request: Request) -> JSONResponse:
        return await _administer(raw_request, admin_keys, LoadBody, _load)

    async def unload(raw_request: Request) -> JSONResponse:
        return await _administer(raw_request, admin_keys, UnloadBody, _unload)

    app.add_api_route("/v1/load_prompt_adapter", load, methods=["POST"])
    app.add_api_route("/v1/unload_prompt_adapter", unload, methods=["POST"])


async def _models(raw_request: Request) -> JSONResponse:
    state = raw_request.app.state
    listed = await state.openai_serving_models.show_available_models()
    base = listed.data[0]
    prompts: Prompts = state.softhub.prompts
    for name in prompts.names:
        card = ModelCard(
            id=name,
            root=name,
            parent=base.id,
            owned_by="softhub",
            max_model_len=base.max_model_len,
        )
        listed.data.append(card)
    return JSONResponse(listed.model_dump())


async def _classify(raw_request: Request) -> JSONResponse:
    return await _answered(raw_request, ClassifyBody, _classification)


async def _score(raw_request: Request) -> JSONResponse:
    return await _answered(raw_request, ScoreBody, _scores)


async def _classification(serving: Serving, body: ClassifyBody) -> Answer:
    prompt = await _find(serving.prompts, body.model)
    task, candidates = prompt.task, prompt.candidates
    if task is None or candidates is None:
        raise ConfigError(
            f"The model {body.model!r:.200} has no classification task; send the text to "
            "/v1/completions."
        )
    texts, longest = as_rows(body.input), max(map(len, candidates.sequences))
    rows = await serving.prompts.encode(prompt, texts, [longest] * len(texts))
    words = await _logprobs(serving, prompt, rows, [candidates.sequences] * len(rows))
    decision = task.decision.abstaining_below(body.abstain_below)
    data = []
    for row, found in zip(rows, words, strict=True):
        prediction = decide(candidates, label_scores(candidates, found), decision)
        data.append(classified(prediction, row.truncated))
    return _answer("classify", prompt, data, rows)


async def _scores(serving: Serving, body: ScoreBody) -> Answer:
    prompt = await _find(serving.prompts, body.model)
    texts = as_rows(body.input)
    targets = [body.target] if isinstance(body.target, str) else body.target
    if len(targets) != len(texts):
        raise ConfigError(
            f"Found {len(targets)} targets for {len(texts)} inputs; expected one for each."
        )
    if prompt.task is None:
        raise TaskError(f"The model {body.model!r:.200} has no task, as scores require.")
    encoder, template = serving.prompts.base.encoder, prompt.task.template
    tokens = [encoder.target(template, target) for target in targets]
    rows = await serving.prompts.encode(prompt, texts, list(map(len, tokens)))
    found = await _logprobs(serving, prompt, rows, [[target] for target in tokens])
    data = [scored(logprobs, row.truncated) for row, (logprobs,) in zip(rows, found, strict=True)]
    return _answer("score", prompt, data, rows)


async def _logprobs(
    serving: Serving,
    prompt: ServedPrompt,
    rows: Sequence[EncodedText],
    sequences: Sequence[Sequence[Sequence[int]]],
) -> list[list[list[float]]]:
    """Return for each row the log-probabilities of its sequences' tokens."""
    run = next_logprobs_of(serving.engine, prompt, f"score-{uuid.uuid4().hex}")
    return await asyncio.gather(
        *(
            sequence_logprobs(run, row.ids, each, MAX_LOGPROB_TOKEN_IDS)
            for row, each in zip(rows, sequences, strict=True)
        )
    )


async def _load(serving: Serving, body: LoadBody) -> Answer:
    await serving.prompts.load_from(body.prompt_name, body.prompt_path)
    return {"status": "loaded", "prompt_name": body.prompt_name}


async def _unload(serving: Serving, body: UnloadBody) -> Answer:
    serving.prompts.unload(body.prompt_name)
    return {"status": "unloaded", "prompt_name": body.prompt_name}


async def _find(prompts: Prompts, name: str) -> ServedPrompt:
    prompt = await prompts.find(name)
    if prompt is None:
        known = "is the base model and has no task" if name in prompts.base.names else "is unknown"
        raise PromptNotLoaded(f"The model {name!r:.200} {known}; GET /v1/models lists the prompts.")
    return prompt


async def _answered(
    raw_request: Request,
    kind: type[_Body],
    answer: Callable[[Serving, _Body], Awaitable[Answer]],
) -> JSONResponse:
    """Check a body, and return the answer to it or the error."""
    try:
        body = kind.model_validate_json(await raw_request.body())
        return JSONResponse(await answer(raw_request.app.state.softhub, body))
    except ValidationError as error:
        first = max(error.errors(), key=lambda each: len(each["loc"]))
        path = ".".join(map(str, first["loc"]))[:100]
        found = error_response(ConfigError(f"The field {path!r}: {first['msg']}."), path)
    except SoftHubError as error:
        found = error_response(error)
    return JSONResponse(found.model_dump(), found.error.code)


async def _administer(
    raw_request: Request,
    admin_keys: Keys,
    kind: type[_Body],
    answer: Callable[[Serving, _Body], Awaitable[Answer]],
) -> JSONResponse:
    if not admin_keys.accept(raw_request.headers.get("authorization")):
        message = "Loading and unloading prompts requires the admin key."
        error = {"message": message, "type": "permission_error", "param": None, "code": 403}
        return JSONResponse({"error": error}, 403)
    return await _answered(raw_request, kind, answer)


def _answer(
    kind: str, prompt: ServedPrompt, data: Sequence[Answer], rows: Sequence[EncodedText]
) -> Answer:
    tokens = sum(len(row.ids) + prompt.vectors.shape[0] for row in rows)
    return scoring_answer(kind, prompt.name, data, tokens)
