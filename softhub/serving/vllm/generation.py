"""Completions and chats with a prompt, by vLLM's own handlers.

A handler of vLLM asks two objects for what depends on the model: `models`, which names are known,
and `online_renderer`, which rows a request becomes. For a request that names a prompt, a copy of
the handler gets two of its own, which know the prompt as it was when the request came. All else,
from streams and tool calls to log-probabilities, is vLLM's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from typing import Any

from softhub.errors import ConfigError, SoftHubError
from softhub.serving.vllm.errors import error_response
from softhub.serving.vllm.options import check_options, task_options
from softhub.serving.vllm.prompts import Prompts, ServedPrompt
from softhub.serving.vllm.rows import assemble
from softhub.tasks import Template

PLAIN = Template("{text}")


class PromptServing:
    """Stands in front of one of vLLM's handlers, and hands it what names no prompt as it is.

    Args:
        stock: vLLM's handler.
        prompts: The prompts.
        texts: Tokenizes texts of completions; one thread, as tokenizers have a state.
    """

    def __init__(self, stock: Any, prompts: Prompts, texts: ThreadPoolExecutor) -> None:
        self._stock = stock
        self._prompts = prompts
        self._texts = texts

    def __getattr__(self, name: str) -> Any:
        """Return what the handler itself has."""
        return getattr(self._stock, name)

    async def create_completion(self, request: Any, raw_request: Any) -> Any:
        """Answer `/v1/completions`."""
        try:
            prompt = await self._prompts.find(request.model)
            if prompt is not None:
                check_options(request, prompt.name)
                options = task_options(prompt.task, await _given(raw_request), "max_tokens")
                request = request.model_copy(update=options)
                ids = await self._token_ids(request, prompt)
                request = request.model_copy(update={"prompt": ids})
        except SoftHubError as error:
            return error_response(error)
        handler = self._stock if prompt is None else self._with(prompt, request)
        return await handler.create_completion(request, raw_request)

    async def create_chat_completion(self, request: Any, raw_request: Any) -> Any:
        """Answer `/v1/chat/completions`; the prompt comes before the rendered chat template."""
        try:
            prompt = await self._prompts.find(request.model)
            if prompt is not None:
                check_options(request, prompt.name)
                _check_chats(prompt)
                given = await _given(raw_request)
                options = task_options(prompt.task, given, "max_completion_tokens")
                request = request.model_copy(update=options)
        except SoftHubError as error:
            return error_response(error)
        handler = self._stock if prompt is None else self._with(prompt, request)
        return await handler.create_chat_completion(request, raw_request)

    def _with(self, prompt: ServedPrompt, request: Any) -> Any:
        """Return vLLM's handler for one request with a prompt."""
        penalty = request.repetition_penalty
        if penalty is None:
            penalty = self._stock.default_sampling_params.get("repetition_penalty", 1.0)
        handler = copy(self._stock)
        handler.models = PromptNames(self._stock.models, prompt.name)
        handler.online_renderer = PromptRenderer(self._stock.online_renderer, prompt, penalty)
        return handler

    async def _token_ids(self, request: Any, prompt: ServedPrompt) -> list[list[int]]:
        """Return the token ids of each text of a completion, in the template of the task."""
        texts, room = request.prompt, self._room(prompt, request.max_tokens)
        rows = [texts] if isinstance(texts, str) or _is_ids(texts) else texts
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._texts,
            lambda: [
                list(row) if _is_ids(row) else encode_text(self._prompts, prompt, row, room)
                for row in rows
            ],
        )

    def _room(self, prompt: ServedPrompt, new_tokens: int) -> int:
        return self._prompts.base.max_length - prompt.vectors.shape[0] - new_tokens


class PromptNames:
    """vLLM's `models` for a request with a prompt, whose name needs no LoRA adapter."""

    lora_requests: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, stock: Any, name: str) -> None:
        self._stock = stock
        self._name = name

    def __getattr__(self, name: str) -> Any:
        """Return what vLLM's own object has."""
        return getattr(self._stock, name)

    def is_base_model(self, model_name: str) -> bool:
        """Return whether a name is served by the base's weights alone."""
        return model_name == self._name

    def model_name(self, lora_request: Any = None) -> str:
        """Return the name that the answer has."""
        return self._name


class PromptRenderer:
    """vLLM's `online_renderer` for a request with a prompt, which it puts before each row."""

    def __init__(self, stock: Any, prompt: ServedPrompt, repetition_penalty: float) -> None:
        self._stock = stock
        self._prompt = prompt
        self._penalty = repetition_penalty

    def __getattr__(self, name: str) -> Any:
        """Return what vLLM's own object has."""
        return getattr(self._stock, name)

    async def render_completion(self, request: Any, **options: Any) -> Any:
        """Return the rows of a completion, or vLLM's error."""
        rows = await self._stock.render_completion(request, **options)
        return [self._with_prompt(row) for row in rows] if isinstance(rows, list) else rows

    async def render_chat(self, request: Any, **options: Any) -> Any:
        """Return the conversation and the rows of a chat, or vLLM's error."""
        rendered = await self._stock.render_chat(request, **options)
        if not isinstance(rendered, tuple):
            return rendered
        conversation, rows = rendered
        return conversation, [self._with_prompt(row) for row in rows]

    def _with_prompt(self, row: Any) -> Any:
        from vllm.exceptions import VLLMValidationError
        from vllm.inputs.engine import embeds_input

        if row["type"] != "token":
            raise VLLMValidationError("A prompt can be used with texts only, not with other media.")
        mixed = assemble(
            self._prompt,
            row["prompt_token_ids"],
            repetition_penalty=self._penalty,
            client_salt=row.get("cache_salt"),
        )
        return embeds_input(
            mixed.embeds,
            prompt=row.get("prompt"),
            cache_salt=mixed.cache_salt,
            prompt_token_ids=mixed.ids,
            is_token_ids=mixed.is_token,
        )


def encode_text(prompts: Prompts, prompt: ServedPrompt, text: str, room: int) -> list[int]:
    """Return the token ids of a text in the template of the prompt's task.

    Raises:
        TaskError: The template alone does not fit.
        ConfigError: The text does not fit.
    """
    task = prompt.task
    template, column = (task.template, task.text_column) if task else (PLAIN, "text")
    room = min(room, task.max_length) if task and task.max_length else room
    encoded = prompts.encoder.encode(template, {column: text}, text_column=column, room=room)
    if encoded.truncated:
        raise ConfigError(
            f"A text has more than the {room} tokens that fit with its prompt and its answer: "
            "shorten it, or lower max_tokens."
        )
    return list(encoded.ids)


async def _given(raw_request: Any) -> set[str]:
    """Return the fields of a body; vLLM's own record of them has defaults among them."""
    body = await raw_request.json()
    return {name for name, value in body.items() if value is not None}


def _is_ids(value: Any) -> bool:
    return isinstance(value, Sequence) and bool(value) and isinstance(value[0], int)


def _check_chats(prompt: ServedPrompt) -> None:
    if prompt.task is not None and prompt.task.kind == "classification":
        raise ConfigError(
            f"The model {prompt.name!r:.200} classifies texts and does not chat: send the text to "
            "/v1/classify."
        )
