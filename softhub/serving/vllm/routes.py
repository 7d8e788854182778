"""Routes beside vLLM's own: prompts in `/v1/models`, scores, and loading and unloading."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from softhub.serving.vllm.api_types import (
    Body,
    ClassifyBody,
    LoadBody,
    ScoreBody,
    UnloadBody,
    as_rows,
)
from softhub.serving.vllm.errors import error_response
from softhub.serving.vllm.prompts import Prompts, ServedPrompt
from softhub.serving.vllm.scoring import label_scores, next_logprobs_of, sequence_logprobs
from softhub.tasks import Task

_Body = TypeVar("_Body", bound=Body)
Answer = dict[str, Any]


@dataclass
class Serving:
    """What the routes need.

    Attributes:
        prompts: The prompts.
        engine: vLLM's engine client.
        texts: Tokenizes texts, in one thread.
    """

    prompts: Prompts
    engine: Any
    texts: ThreadPoolExecutor


def add_routes(app: FastAPI, admin_key: str | None) -> None:
    """Add the routes; those that load and unload only with a key for administration."""
    app.add_api_route("/v1/models", _models, methods=["GET"])
    app.add_api_route("/v1/classify", with_cancellation(_classify), methods=["POST"])
    app.add_api_route("/v1/score", with_cancellation(_score), methods=["POST"])
    if admin_key is None:
        return
    digest = hashlib.sha256(admin_key.encode()).digest()

    async def load(raw_request: Request) -> JSONResponse:
        return await _administer(raw_request, digest, LoadBody, _load)

    async def unload(raw_request: Request) -> JSONResponse:
        return await _administer(raw_request, digest, UnloadBody, _unload)

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
    longest = max(map(len, candidates.sequences))
    texts = as_rows(body.input)
    rows = await _encoded(serving, prompt, task, texts, [longest] * len(texts))
    run = next_logprobs_of(serving.engine, prompt, f"classify-{uuid.uuid4().hex}")
    found = await asyncio.gather(
        *(
            sequence_logprobs(run, row.ids, candidates.sequences, MAX_LOGPROB_TOKEN_IDS)
            for row in rows
        )
    )
    data = []
    for index, (row, words) in enumerate(zip(rows, found, strict=True)):
        scores = label_scores(candidates, words)
        prediction = decide(candidates, scores, task.decision, body.abstain_below)
        entry: Answer = {
            "index": index,
            "label": prediction.label,
            "abstained": prediction.abstained,
            "probabilities": dict(prediction.probabilities),
            "truncated_characters": row.truncated,
        }
        if prediction.labels is not None:
            entry["labels"] = list(prediction.labels)
        data.append(entry)
    return _answer("classify", prompt, data, rows)


async def _scores(serving: Serving, body: ScoreBody) -> Answer:
    prompt = await _find(serving.prompts, body.model)
    texts = as_rows(body.input)
    targets = [body.target] if isinstance(body.target, str) else body.target
    if len(targets) != len(texts):
        raise ConfigError(
            f"Found {len(targets)} targets for {len(texts)} inputs; expected one for each."
        )
    task = prompt.task
    if task is None:
        raise TaskError(f"The model {body.model!r:.200} has no task, so its texts have no frame.")
    encoder = serving.prompts.encoder
    tokens = [encoder.target(task.template, target) for target in targets]
    rows = await _encoded(serving, prompt, task, texts, list(map(len, tokens)))
    run = next_logprobs_of(serving.engine, prompt, f"score-{uuid.uuid4().hex}")
    found = await asyncio.gather(
        *(
            sequence_logprobs(run, row.ids, [target], MAX_LOGPROB_TOKEN_IDS)
            for row, target in zip(rows, tokens, strict=True)
        )
    )
    data = [
        {
            "index": index,
            "logprob": sum(logprobs),
            "token_logprobs": logprobs,
            "truncated_characters": row.truncated,
        }
        for index, (row, (logprobs,)) in enumerate(zip(rows, found, strict=True))
    ]
    return _answer("score", prompt, data, rows)


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


async def _encoded(
    serving: Serving,
    prompt: ServedPrompt,
    task: Task,
    texts: Sequence[str | Mapping[str, Any]],
    answers: Sequence[int],
) -> list[EncodedText]:
    """Tokenize texts; `answers` has the number of tokens that follow each."""
    longest = serving.prompts.base.max_length - prompt.vectors.shape[0]
    limit = task.max_length or longest

    def encode() -> list[EncodedText]:
        return [
            serving.prompts.encoder.encode(
                task.template,
                {task.text_column: text} if isinstance(text, str) else text,
                text_column=task.text_column,
                room=min(limit, longest - answer),
            )
            for text, answer in zip(texts, answers, strict=True)
        ]

    return await asyncio.get_running_loop().run_in_executor(serving.texts, encode)


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
    digest: bytes,
    kind: type[_Body],
    answer: Callable[[Serving, _Body], Awaitable[Answer]],
) -> JSONResponse:
    scheme, _, key = raw_request.headers.get("authorization", "").partition(" ")
    given = hashlib.sha256(key.strip().encode()).digest()
    if scheme.lower() != "bearer" or not hmac.compare_digest(given, digest):
        message = "Loading and unloading require the key for administration."
        error = {"message": message, "type": "permission_error", "param": None, "code": 403}
        return JSONResponse({"error": error}, 403)
    return await _answered(raw_request, kind, answer)


def _answer(
    kind: str, prompt: ServedPrompt, data: list[Answer], rows: Sequence[EncodedText]
) -> Answer:
    tokens = sum(len(row.ids) + prompt.vectors.shape[0] for row in rows)
    return {
        "id": f"{kind}-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": prompt.name,
        "data": data,
        "usage": {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens},
    }
