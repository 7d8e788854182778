"""Options of a request: what vLLM cannot do with a prompt, and what the prompt's task sets.

What a request leaves out is as in `softhub serve`: the task's setting, or else greedy decoding of
64 tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from softhub.errors import ConfigError
from softhub.serving.api_types import NEUTRAL, task_sampling
from softhub.tasks import Task

NEW_TOKENS = 64
"""Default of `max_tokens`."""
_REFUSED = {
    "echo": "the virtual tokens have no text",
    "prompt_logprobs": "the virtual tokens have no log-probabilities",
    "use_beam_search": "vLLM's beam search drops the virtual tokens",
    "suffix": "a text between two others is not what the prompt was trained for",
}


def check_options(request: Any, name: str) -> None:
    """Refuse options that would give wrong answers with a prompt.

    Args:
        request: vLLM's request of a completion or a chat.
        name: The prompt's name.

    Raises:
        ConfigError: The request has such an option.
    """
    for option, reason in _REFUSED.items():
        value = getattr(request, option, None)
        if value is not None and value is not False:
            raise ConfigError(
                f"The option {option!r} is not supported with the prompt {name!r}: {reason}."
            )


def task_options(task: Task | None, given: Collection[str], length_field: str) -> dict[str, Any]:
    """Return vLLM's fields for what a request leaves out.

    Args:
        task: The prompt's task.
        given: Names of the fields that the request has.
        length_field: `max_tokens`, or a chat's `max_completion_tokens`.
    """
    defaults: Mapping[str, Any] = task.generation if task else {}
    found: dict[str, Any] = {}
    if not {"max_tokens", "max_completion_tokens"} & set(given):
        found[length_field] = int(defaults.get("max_new_tokens", NEW_TOKENS))
    if defaults.get("do_sample") or NEUTRAL.keys() & set(given):
        found.update(task_sampling(defaults, given))
    else:
        found["temperature"] = 0.0
    if "repetition_penalty" not in given and "repetition_penalty" in defaults:
        found["repetition_penalty"] = float(defaults["repetition_penalty"])
    if "stop" not in given and defaults.get("stop"):
        found["stop"] = list(defaults["stop"])
    return found
