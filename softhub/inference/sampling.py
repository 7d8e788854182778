"""Choose the next token of one row: greedily or at random, with a generator of its own.

The processors are transformers' own, in the order of its `generate`. A row's choices depend on its
own logits, tokens and seed only, so they are the same in any batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from softhub.errors import ConfigError

DEFAULT_TOP_K = 50
"""What `generate` uses if sampling is on and `top_k` is not given; 0 is no limit."""


@dataclass(frozen=True)
class TokenLogprob:
    """A generated token and its log-probability, before temperature and the like.

    Attributes:
        token: Token id.
        text: The token decoded by itself.
        logprob: Its log-probability.
        top: The most probable tokens at this position, as pairs of text and log-probability.
    """

    token: int
    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass
class Sampler:
    """Chooses the tokens of one row.

    Args:
        do_sample: Whether to draw; otherwise the most probable token is taken.
        processors: Change the scores before the choice.
        generator: Source of randomness; None for the global one.
    """

    do_sample: bool = False
    processors: LogitsProcessorList = field(default_factory=LogitsProcessorList)
    generator: torch.Generator | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any], device: torch.device) -> Sampler:
        """Return the sampler of generation options.

        Raises:
            ConfigError: The value of an option is out of its range.
        """
        try:
            processors = _processors(options)
        except ValueError as error:
            raise ConfigError(f"An option of generate is out of its range: {error}") from error
        seed, generator = options.get("seed"), None
        if seed is not None:
            generator = torch.Generator(device).manual_seed(int(seed))
        return cls(bool(options.get("do_sample")), processors, generator)

    def choose(self, seen: Sequence[int], logits: torch.Tensor) -> int:
        """Return the next token.

        Args:
            seen: The row's tokens so far: text and answer, without the prompt.
            logits: `[V]`, float32.
        """
        if not self.do_sample and not self.processors:
            return int(logits.argmax())
        ids = torch.tensor([list(seen)], device=logits.device)  # [1, T]
        scores = self.processors(ids, logits.unsqueeze(0).clone())  # type: ignore[arg-type]
        if not self.do_sample:
            return int(scores.argmax())
        chances = scores.softmax(dim=-1)  # [1, V]
        return int(torch.multinomial(chances, 1, generator=self.generator))


def _processors(options: Mapping[str, Any]) -> LogitsProcessorList:
    found = LogitsProcessorList()
    penalty = options.get("repetition_penalty")
    if penalty not in (None, 1.0):
        found.append(RepetitionPenaltyLogitsProcessor(float(penalty)))
    if not options.get("do_sample"):
        return found
    temperature, top_p = options.get("temperature"), options.get("top_p")
    top_k = options.get("top_k")
    top_k = DEFAULT_TOP_K if top_k is None else int(top_k)
    if temperature not in (None, 1.0):
        found.append(TemperatureLogitsWarper(float(temperature)))
    if top_k != 0:
        found.append(TopKLogitsWarper(top_k))
    if top_p not in (None, 1.0):
        found.append(TopPLogitsWarper(float(top_p)))
    return found
