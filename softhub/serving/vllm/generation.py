"""Completions and chats with a prompt, by vLLM's own handlers.

A handler of vLLM asks two objects for what depends on the model: `models`, which names are known,
and `online_renderer`, which rows a request becomes. For a request that names a prompt, a copy of
the handler gets two of its own, which know the prompt as it was when the request came. All else,
from streams and tool calls to log-probabilities, is vLLM's.
"""

from __future__ import annotations

from copy import copy
from typing import Any

from softhub.errors import ConfigError, SoftHubError
from softhub.serving.vllm.errors import error_response
from softhub.serving.vllm.options import check_options, task_options
from softhub.serving.vllm.prompts import Prompts
from softhub.serving.vllm.rows import assemble, engine_input
from softhub.serving.vllm.served import ServedPrompt


class PromptServing:
    """Stands in front of one of vLLM's handlers, and hands it what names no prompt as it is.

    Args:
        stock: vLLM's handler.
        prompts: The prompts.
    """

    def __init__(self, stock: Any, prompts: Prompts) -> None:
        self._stock = stock
        self._prompts = prompts

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
        handler = self._stock if prompt is None else self._with(prompt, request, request.max_tokens)
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
        new_tokens = request.max_completion_tokens or request.max_tokens
        handler = self._stock if prompt is None else self._with(prompt, request, new_tokens)
        return await handler.create_chat_completion(request, raw_request)

    def _with(self, prompt: ServedPrompt, request: Any, new_tokens: int) -> Any:
        """Return vLLM's handler for one request with a prompt."""
        room = self._prompts.base.max_length - prompt.vectors.shape[0] - new_tokens
        penalty = request.repetition_penalty
        if penalty is None:
            penalty = self._stock.default_sampling_params.get("repetition_penalty", 1.0)
        handler = copy(self._stock)
        handler.models = PromptNames(self._stock.models, prompt.name)
        renderer = self._stock.online_renderer
        handler.online_renderer = PromptRenderer(renderer, prompt, room, penalty)
        return handler

    async def _token_ids(self, request: Any, prompt: ServedPrompt) -> list[list[int]]:
        """Return the token ids of each text of a completion, in the template of the task."""
        given = request.prompt
        rows = given if isinstance(given, list) and not _is_ids(given) else [given]
        if not all(isinstance(row, str) for row in rows):
            return rows  # token ids are taken as they are
        encoded = await self._prompts.encode(prompt, rows, [request.max_tokens] * len(rows))
        if any(row.truncated for row in encoded):
            raise ConfigError(
                "A text has more tokens than fit with its prompt and its answer: shorten it, or "
                "lower max_tokens."
            )
        return [list(row.ids) for row in encoded]


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
    """vLLM's `online_renderer` for a request with a prompt, which it puts before each row.

    Args:
        stock: vLLM's own.
        prompt: The prompt.
        room: Maximum number of tokens of a text, which vLLM's own does not know.
        repetition_penalty: That of the request.
    """

    def __init__(
        self, stock: Any, prompt: ServedPrompt, room: int, repetition_penalty: float
    ) -> None:
        self._stock = stock
        self._prompt = prompt
        self._room = room
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

        if row["type"] != "token":
            raise VLLMValidationError("A prompt can be used with texts only, not with other media.")
        if len(row["prompt_token_ids"]) > self._room:
            raise VLLMValidationError(
                f"A text has {len(row['prompt_token_ids'])} tokens, of which {self._room} fit with "
                "its prompt and its answer: shorten it, or lower max_tokens."
            )
        mixed = assemble(
            self._prompt,
            row["prompt_token_ids"],
            repetition_penalty=self._penalty,
            client_salt=row.get("cache_salt"),
        )
        return engine_input(mixed, row.get("prompt"))


async def _given(raw_request: Any) -> set[str]:
    """Return the fields of a body; vLLM's own record of them has defaults among them."""
    body = await raw_request.json()
    return {name for name, value in body.items() if value is not None}


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, int) for each in value)


def _check_chats(prompt: ServedPrompt) -> None:
    if prompt.task is not None and prompt.task.kind == "classification":
        raise ConfigError(
            f"The model {prompt.name!r:.200} classifies texts and does not chat: send the text to "
            "/v1/classify."
        )
