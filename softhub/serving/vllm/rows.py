"""Rows of a vLLM batch: the vectors of a prompt, then the tokens of a text.

vLLM takes rows that mix embeddings and token ids. Its prefix cache identifies a block by token ids
alone and not by which of them stand for embeddings (vllm#56655), so each row carries the prompt's
digest as its cache salt. The salt also keeps prompts, and revisions of a prompt, apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from softhub.errors import ConfigError

if TYPE_CHECKING:
    from softhub.serving.vllm.served import ServedPrompt

SALT = "softhub:"
"""Beginning of the cache salts of rows with prompts; clients may not use it."""


@dataclass(frozen=True, eq=False)
class MixedRow:
    """A row of P virtual tokens and T tokens of text.

    Attributes:
        embeds: `[P + T, H]`; zeros where a token of the text stands.
        ids: P placeholders, then the ids of the text.
        is_token: False for virtual tokens, True for tokens of the text.
        cache_salt: What the prefix cache keeps apart.
    """

    embeds: torch.Tensor
    ids: list[int]
    is_token: list[bool]
    cache_salt: str


def assemble(
    prompt: ServedPrompt,
    ids: Sequence[int],
    *,
    repetition_penalty: float = 1.0,
    client_salt: str | None = None,
) -> MixedRow:
    """Put a prompt before a text.

    Args:
        prompt: The prompt.
        ids: Token ids of the text.
        repetition_penalty: That of the request. vLLM applies it to placeholders as well, so they
            are then a token that the text has anyway.
        client_salt: The cache salt of the request.

    Raises:
        ConfigError: The text has no tokens.
    """
    if not ids:
        raise ConfigError("The text has no tokens; expected at least one.")
    count, width = prompt.vectors.shape
    # The same placeholder for all texts, so that they share the blocks of the prompt.
    placeholder = 0 if repetition_penalty == 1.0 else ids[0]
    text = prompt.vectors.new_zeros(len(ids), width)
    return MixedRow(
        torch.cat([prompt.vectors, text]),  # [P + T, H]
        [placeholder] * count + list(ids),
        [False] * count + [True] * len(ids),
        f"{SALT}{prompt.digest}" + (f":{client_salt}" if client_salt else ""),
    )


def engine_input(row: MixedRow, text: str | None = None) -> Any:
    """Return a row as vLLM's engine client takes it.

    Args:
        row: The row.
        text: The text that it was made of, for vLLM's log.
    """
    from vllm.inputs.engine import embeds_input

    return embeds_input(
        row.embeds,
        prompt=text,
        cache_salt=row.cache_salt,
        prompt_token_ids=row.ids,
        is_token_ids=row.is_token,
    )
