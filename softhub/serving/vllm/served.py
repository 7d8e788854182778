"""A base model and a prompt as vLLM's process knows them, and the token ids of texts for them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from softhub.adapter.adapter import Adapter
from softhub.adapter.layout import sha256_of
from softhub.errors import ConfigError, IncompatiblePrompt, UnsupportedAdapter
from softhub.model.encoding import Candidates, EncodedText, Encoder, render_chat
from softhub.model.fingerprint import compare_fingerprints
from softhub.tasks import Task, Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NOT_OF_VLLM = {"num_beams": 1, "no_repeat_ngram_size": 0}
"""Generation options without an equivalent in vLLM, and the value that has no effect."""
_PLAIN = Template("{text}")

logger = logging.getLogger("vllm.softhub")


@dataclass(frozen=True, eq=False)
class ServedBase:
    """What vLLM's process knows of its base model.

    Attributes:
        names: Names under which vLLM serves it.
        hidden_size: Width H of the input embeddings.
        max_length: Maximum number of tokens of a row, with its answer.
        dtype: Dtype of the embeddings.
        identity: A fingerprint without the weights, which are in other processes.
        tokenizer: Its tokenizer; the encoder works on a copy.
    """

    names: tuple[str, ...]
    hidden_size: int
    max_length: int
    dtype: torch.dtype
    identity: Mapping[str, Any]
    tokenizer: PreTrainedTokenizerBase

    @cached_property
    def encoder(self) -> Encoder:
        """What turns texts and label words into token ids."""
        return Encoder(self.tokenizer, is_encoder_decoder=False)


@dataclass(frozen=True, eq=False)
class ServedPrompt:
    """A prompt as a request finds it; a later load under its name does not change it.

    Attributes:
        name: The name it is loaded under.
        vectors: `[P, H]` in the base's dtype.
        digest: SHA-256 of the vectors as they were stored.
        task: Its task with the chat rendered; None in adapters of plain PEFT.
        candidates: Its label words, for classification.
    """

    name: str
    vectors: torch.Tensor
    digest: str
    task: Task | None
    candidates: Candidates | None


def prepare_prompt(base: ServedBase, name: str, adapter: Adapter) -> ServedPrompt:
    """Check that an adapter is right for a base, and return its prompt.

    Args:
        base: The base model.
        name: The name under which the prompt is served.
        adapter: The adapter, whose files were checked.

    Raises:
        UnsupportedAdapter: vLLM cannot take an adapter of its kind.
        IncompatiblePrompt: It was made for another base.
        ConfigError: Its task generates in a way that vLLM cannot.
    """
    check_kind(adapter)
    _check_base(base, adapter)
    record = adapter.manifest.task if adapter.manifest else None
    task = render_chat(Task.from_record(record), base.tokenizer) if record else None
    if task is not None:
        _check_generation(task)
    return ServedPrompt(
        name,
        torch.from_numpy(adapter.vectors).to(base.dtype),
        sha256_of(adapter.vectors.tobytes()),
        task,
        base.encoder.candidates_of(task) if task else None,
    )


def encode_rows(
    base: ServedBase,
    prompt: ServedPrompt,
    rows: Sequence[str | Mapping[str, Any]],
    answers: Sequence[int],
) -> list[EncodedText]:
    """Return the token ids of texts, in the template of the prompt's task if it has one.

    Args:
        base: The base model.
        prompt: The prompt, for whose virtual tokens room is kept.
        rows: Texts, or values of the template's columns.
        answers: For each row the number of tokens for which room is kept after it.

    Raises:
        TaskError: The template alone does not fit, or a row lacks one of its columns.
    """
    task, longest = prompt.task, base.max_length - prompt.vectors.shape[0]
    template, column = (task.template, task.text_column) if task else (_PLAIN, "text")
    limit = (task.max_length if task else None) or longest
    return [
        base.encoder.encode(
            template,
            {column: row} if isinstance(row, str) else row,
            text_column=column,
            room=min(limit, longest - answer),
        )
        for row, answer in zip(rows, answers, strict=True)
    ]


def check_kind(adapter: Adapter) -> None:
    """Refuse adapters that are not input embeddings of a decoder.

    Raises:
        UnsupportedAdapter: It has keys and values, or belongs to an encoder-decoder.
    """
    method, task_type = adapter.config.get("peft_type"), adapter.config.get("task_type")
    if method != "PROMPT_TUNING":
        raise UnsupportedAdapter(
            f"{adapter.origin} is of the type {method}: keys and values of every layer, which "
            "vLLM cannot take with a request. Serve it with `softhub serve`, or train a prompt of "
            "input embeddings for vLLM."
        )
    if task_type != "CAUSAL_LM":
        raise UnsupportedAdapter(
            f"{adapter.origin} is for an encoder-decoder ({task_type}); vLLM serves prompts of "
            "decoders only. Serve it with `softhub serve`."
        )


def _check_base(base: ServedBase, adapter: Adapter) -> None:
    width = adapter.shape[1]
    if width != base.hidden_size:
        raise IncompatiblePrompt(
            f"{adapter.origin} has vectors of width {width}; the base model "
            f"{base.names[0]} has {base.hidden_size}. Serve the base it was made for."
        )
    recorded = adapter.manifest.fingerprint if adapter.manifest else None
    verdict = compare_fingerprints(recorded, base.identity)
    if verdict.kind == "different":
        raise IncompatiblePrompt(
            f"{adapter.origin} was not made for {base.names[0]}: {verdict.reason}. Serve "
            "the base it was made for."
        )
    if recorded is None:
        logger.warning("%s records no base; only its width was checked.", adapter.origin)


def _check_generation(task: Task) -> None:
    for option, neutral in _NOT_OF_VLLM.items():
        value = task.generation.get(option, neutral)
        if value != neutral:
            raise ConfigError(
                f"The task {task.name!r} generates with {option}={value}, which vLLM does not "
                "support. Serve it with `softhub serve`, or train it without this option."
            )
