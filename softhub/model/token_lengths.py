"""Measure texts in a base model's tokens, by its tokenizer and configuration, without weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from softhub.errors import TaskError
from softhub.model.config_lengths import position_limit
from softhub.model.encoding import Encoder
from softhub.model.loading import load_tokenizer
from softhub.tasks import Task, Template
from softhub.tasks.drafting.lengths import LengthCounter

_RESERVED = 128
"""Positions reserved for the soft prompt and the answer; more than most prompts take."""


@dataclass(frozen=True, kw_only=True)
class TokenCounter(LengthCounter):
    """Counts the tokens that a base model would read.

    Attributes:
        encoder: Turns rows into token ids, as in training.
    """

    encoder: Encoder
    unit: str = "tokens"

    @classmethod
    def from_pretrained(cls, ref: str) -> TokenCounter:
        """Read a base's tokenizer and configuration.

        Args:
            ref: Hub repo id, local folder, or path of a `.gguf` file.

        Raises:
            BaseModelError: The model does not exist, or cannot be read.
        """
        tokenizer, config = load_tokenizer(ref)
        encoder = Encoder(tokenizer, is_encoder_decoder=bool(config.is_encoder_decoder))
        positions = position_limit(config)
        limit = positions and max(positions - _RESERVED, positions // 2)
        return cls(encoder=encoder, limit=limit)

    def length(self, template: Template, row: Mapping[str, Any]) -> int:
        """Return the number of tokens of the rendered row."""
        return len(self.encoder.encode(template, row).ids)

    def problem(self, task: Task) -> str | None:
        """Return why the label words or template do not suit the tokenizer; None if they do."""
        try:
            if task.verbalizer is not None:
                self.encoder.candidates(task.template, task.verbalizer)
        except TaskError as error:
            return str(error)
        return None
