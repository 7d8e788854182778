"""Rows and options for vLLM's offline engine (`vllm.LLM`), which generates over large tables."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softhub.adapter.validation import check_folder
from softhub.serving.vllm.options import task_options
from softhub.serving.vllm.plugin import check_settings, served_base
from softhub.serving.vllm.rows import assemble
from softhub.serving.vllm.served import encode_rows, prepare_prompt
from softhub.serving.vllm.supported import check_version

logger = logging.getLogger("vllm.softhub")


class OfflinePrompt:
    """A prompt for generation with `vllm.LLM`, checked as the server checks it.

    Args:
        llm: The engine, with `enable_prompt_embeds=True`.
        folder: The adapter.

    Raises:
        ConfigError: vLLM's version was not run, or a setting does not allow right answers.
        InvalidAdapter: The folder is damaged.
        IncompatiblePrompt: The prompt was made for another base.
    """

    def __init__(self, llm: Any, folder: str | Path) -> None:
        import vllm

        check_version(vllm.__version__)
        check_settings(llm.model_config, None)
        config = llm.model_config
        self._base = served_base(config, llm.get_tokenizer(), (str(config.model),))
        self._prompt = prepare_prompt(self._base, Path(folder).name, check_folder(Path(folder)))
        self._options = task_options(self._prompt.task, (), "max_tokens")

    def sampling_params(self) -> Any:
        """Return vLLM's options as the task has them: by default greedy, at most 64 tokens."""
        from vllm.sampling_params import SamplingParams

        return SamplingParams(**self._options)

    def rows(self, texts: Sequence[str | Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return what `LLM.generate` takes for texts; texts that are too long are truncated.

        Args:
            texts: Texts, or values of the columns of the task's template.

        Raises:
            TaskError: The template alone does not fit, or a row lacks one of its columns.
        """
        answers = [self._options["max_tokens"]] * len(texts)
        encoded = encode_rows(self._base, self._prompt, texts, answers)
        truncated = sum(row.truncated > 0 for row in encoded)
        if truncated:
            logger.warning("%d of %d texts were truncated.", truncated, len(texts))
        penalty = self._options.get("repetition_penalty", 1.0)
        mixed = [assemble(self._prompt, row.ids, repetition_penalty=penalty) for row in encoded]
        return [
            {
                "prompt_embeds": row.embeds,
                "prompt_token_ids": row.ids,
                "prompt_is_token_ids": row.is_token,
                "cache_salt": row.cache_salt,
            }
            for row in mixed
        ]
