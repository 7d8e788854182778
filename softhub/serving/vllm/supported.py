"""The versions of vLLM that were run, and everything of vLLM that the plug-in relies on.

vLLM documents the plug-in's entry point and its engine client, but neither the handlers of its
routes nor the objects they use. `CONTRACT` names what is used of them, attributes too, and a test
looks each up in the installed vLLM. Other versions than those that were run are refused, because a
handler that works otherwise would give wrong answers and no error.
"""

from __future__ import annotations

from softhub.errors import ConfigError

VERSIONS = ("0.32",)
"""Releases of vLLM (major and minor) on which the tests marked `vllm` and the benchmark passed."""

CONTRACT: tuple[tuple[str, str, str], ...] = (
    ("vllm.inputs.engine", "embeds_input", "rows that mix embeddings and token ids"),
    ("vllm.inputs.llm", "EmbedsPrompt.prompt_is_token_ids", "the same for the offline engine"),
    ("vllm.engine.protocol", "EngineClient.generate", "runs a row; closing it stops the row"),
    ("vllm.engine.protocol", "EngineClient.model_config", "what the base is, and the settings"),
    ("vllm.engine.protocol", "EngineClient.renderer", "its `tokenizer`"),
    ("vllm.config.model", "ModelConfig.enable_prompt_embeds", "a setting that is required"),
    ("vllm.config.model", "ModelConfig.is_encoder_decoder", "bases that are refused"),
    ("vllm.config.model", "ModelConfig.logprobs_mode", "a setting that scores depend on"),
    ("vllm.config.model", "ModelConfig.hf_text_config", "the number of layers"),
    ("vllm.config.model", "ModelConfig.get_hidden_size", "the width of the embeddings"),
    ("vllm.config.model", "ModelConfig.max_model_len", "the room of a row"),
    ("vllm.sampling_params", "SamplingParams", "logprob_token_ids: the tokens of label words"),
    ("vllm.sampling_params", "MAX_LOGPROB_TOKEN_IDS", "most tokens of logprob_token_ids"),
    (
        "vllm.entrypoints.openai.completion.serving",
        "OpenAIServingCompletion.create_completion",
        "vLLM's handler; it asks `models` for names and `online_renderer` for rows",
    ),
    (
        "vllm.entrypoints.openai.chat_completion.serving",
        "OpenAIServingChat.create_chat_completion",
        "the same for chats",
    ),
    *(
        (f"vllm.entrypoints.openai.{module}.serving", f"{handler}.{attribute}", why)
        for module, handler in (
            ("completion", "OpenAIServingCompletion"),
            ("chat_completion", "OpenAIServingChat"),
        )
        for attribute, why in (
            ("models", "which a copy of the handler gets instead"),
            ("online_renderer", "the same"),
            ("default_sampling_params", "the repetition penalty of a request without one"),
        )
    ),
    (
        "vllm.renderers.online_renderer",
        "OnlineRenderer.render_completion",
        "tokenizes a completion: a list of rows, or an error",
    ),
    (
        "vllm.renderers.online_renderer",
        "OnlineRenderer.render_chat",
        "renders and tokenizes a chat: a conversation and rows, or an error",
    ),
    (
        "vllm.entrypoints.openai.models.serving",
        "OpenAIServingModels.base_model_paths",
        "the names of the base",
    ),
    (
        "vllm.entrypoints.openai.models.serving",
        "OpenAIServingModels.is_base_model",
        "which names need no LoRA adapter",
    ),
    (
        "vllm.entrypoints.openai.models.serving",
        "OpenAIServingModels.model_name",
        "the name in an answer",
    ),
    (
        "vllm.entrypoints.openai.models.serving",
        "OpenAIServingModels.show_available_models",
        "the list that prompts are added to",
    ),
    ("vllm.entrypoints.serve.engine.protocol", "ModelCard", "an entry of that list"),
    ("vllm.entrypoints.serve", "create_error_response", "an error in vLLM's form"),
    (
        "vllm.entrypoints.serve.utils.api_utils",
        "with_cancellation",
        "stops a handler whose client has left",
    ),
)
"""Modules, names in them, and what each is used for."""


def check_version(version: str) -> None:
    """Refuse a version of vLLM that was not run.

    Args:
        version: The installed version, such as `0.32.0+cpu`.

    Raises:
        ConfigError: It is another one.
    """
    if ".".join(version.split(".")[:2]) not in VERSIONS:
        raise ConfigError(
            f"vLLM {version} is installed, and softhub's plug-in was run with "
            f"{', '.join(VERSIONS)} only. Install one of these, or leave softhub out of "
            "VLLM_PLUGINS."
        )
