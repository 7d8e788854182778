"""The plug-in that vLLM loads where `VLLM_PLUGINS` names it (`vllm.endpoint_plugins`).

`SOFTHUB_PROMPTS` says which prompts to serve (see `sources`), and `SOFTHUB_ADMIN_KEY`, if it is
set, adds the routes that load and unload them.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

from softhub.errors import ConfigError
from softhub.hub import Hub
from softhub.model.fingerprint import tokenizer_hash
from softhub.serving.keys import Keys
from softhub.serving.vllm.prompts import Prompts
from softhub.serving.vllm.served import ServedBase
from softhub.serving.vllm.sources import ADMIN_KEY, VARIABLE, parse_sources
from softhub.serving.vllm.supported import check_version

if TYPE_CHECKING:
    from fastapi import FastAPI

logger = logging.getLogger("vllm.softhub")


class SoftHubPlugin:
    """Soft prompts as model names of a vLLM server; see vLLM's `EndpointPlugin`."""

    name = "softhub"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Add the routes, and what refuses tensors in bodies.

        Raises:
            ConfigError: vLLM's version was not run, or the key for administration is too short.
        """
        import vllm

        from softhub.serving.vllm.guard import BodyGuard
        from softhub.serving.vllm.routes import add_routes

        check_version(vllm.__version__)
        app.add_middleware(BodyGuard)
        add_routes(app, admin_keys())

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        """Load the prompts, and put softhub's handlers in front of vLLM's.

        Raises:
            SoftHubError: The server's settings or a prompt do not allow right answers.
        """
        from softhub.serving.vllm.generation import PromptServing
        from softhub.serving.vllm.routes import Serving

        check_settings(engine_client.model_config, getattr(args, "api_server_count", None))
        names = tuple(path.name for path in state.openai_serving_models.base_model_paths)
        base = served_base(engine_client.model_config, engine_client.renderer.tokenizer, names)
        sources = parse_sources(os.environ.get(VARIABLE, ""))
        prompts = Prompts(base, sources, Hub())
        await asyncio.get_running_loop().run_in_executor(None, prompts.load_all)
        state.softhub = Serving(prompts, engine_client)
        for field in ("openai_serving_completion", "openai_serving_chat"):
            setattr(state, field, PromptServing(getattr(state, field), prompts))
        logger.info("softhub serves %d prompts of %s", len(prompts.names), names[0])


def admin_keys() -> Keys:
    """Return the key for administration, if there is one.

    Raises:
        ConfigError: It is too short.
    """
    return Keys.read(None, os.environ.get(ADMIN_KEY) or None)


def check_settings(model_config: Any, processes: int | None) -> None:
    """Refuse settings of vLLM with which answers would be missing or wrong.

    Args:
        model_config: vLLM's configuration of the model.
        processes: Number of API server processes, each with prompts of its own.

    Raises:
        ConfigError: A setting is wrong; says which flag to change.
    """
    if not model_config.enable_prompt_embeds:
        raise ConfigError("Soft prompts are embeddings: start vLLM with --enable-prompt-embeds.")
    if model_config.is_encoder_decoder:
        raise ConfigError("vLLM has no soft prompts of encoder-decoders; use `softhub serve`.")
    if str(model_config.logprobs_mode) != "raw_logprobs":
        raise ConfigError(
            f"--logprobs-mode is {model_config.logprobs_mode}, with which label scores would be "
            "wrong; expected raw_logprobs."
        )
    if (processes or 1) > 1 and admin_keys():
        raise ConfigError(
            f"--api-server-count is {processes}, and a load would reach one of these processes "
            f"only: unset {ADMIN_KEY}, or use one process."
        )


def served_base(model_config: Any, tokenizer: Any, names: tuple[str, ...]) -> ServedBase:
    """Describe vLLM's base model.

    Args:
        model_config: vLLM's configuration of the model.
        tokenizer: Its tokenizer.
        names: Names under which vLLM serves it.
    """
    text_config, width = model_config.hf_text_config, int(model_config.get_hidden_size())
    identity = {
        "model_type": str(model_config.hf_config.model_type),
        "hidden_size": width,
        "num_layers": int(text_config.num_hidden_layers),
        "vocab_size": int(text_config.vocab_size),
        "tokenizer": tokenizer_hash(tokenizer),
        # The weights are in other processes.
        "embeddings": None,
        "matrices": None,
        "norms": None,
        "sketch": None,
        "dtype": str(model_config.dtype).removeprefix("torch."),
        "quantization": None,
    }
    return ServedBase(
        names,
        width,
        int(model_config.max_model_len),
        model_config.dtype,
        identity,
        tokenizer,
    )
