"""Change logits row by row: each row is processed as if it were generated alone.

transformers hands its logits processors the token ids of a whole batch, in which pads and the
places of soft prompts are filled with other ids. Here every row has processors of its own, which
see the tokens of its own text and nothing else. Sampling is a last processor with a random number
generator for each row, so a row's text does not depend on the batch that it is in.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.modeling_outputs import BaseModelOutput

from softhub.errors import ConfigError
from softhub.inference.options import Options
from softhub.model.base import BaseModel

_LEAST_TEMPERATURE = 1e-20
"""Lower ones are greedy in float32 too, and scores divided by them would be infinite or NaN."""


@dataclass(frozen=True, eq=False)
class Row:
    """What a row of a batch is generated from.

    Attributes:
        ids: Token ids of its text, as processors see them.
        seed: Where its random numbers start, if it is sampled.
    """

    ids: Sequence[int]
    seed: int = 0


class RowProcessors(LogitsProcessor):
    """Applies to each row the processors, and the sampling, that it would have alone.

    Args:
        base: The base model.
        rows: The rows of the batch.
        options: Options from `resolve_options`.
        width: Number of ids before the new tokens in the batch.

    Raises:
        ConfigError: transformers rejects the value of an option.
    """

    def __init__(self, base: BaseModel, rows: Sequence[Row], options: Options, width: int) -> None:
        config = _config({k: v for k, v in options.items() if k != "stop"})
        first = _processors_of(base, rows[0].ids, config)
        others = [_processors_of(base, row.ids, config) for row in rows[1:]] if first else []
        self._processors = [first, *others] if first else [first] * len(rows)
        # A decoder's texts end at `width`; an encoder-decoder's ids are new ones only.
        self._starts = [0 if base.is_encoder_decoder else width - len(row.ids) for row in rows]
        self._generators = [_generator(row.seed) for row in rows] if config.do_sample else []

    @property
    def have_effect(self) -> bool:
        """Whether any logits are changed."""
        return any(self._processors) or bool(self._generators)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor) -> torch.Tensor:
        """Process scores `[B * beams, V]` of rows with the ids `[B * beams, L]`."""
        size = len(self._processors)
        ids, changed = input_ids.unflatten(0, (size, -1)), scores.unflatten(0, (size, -1))
        rows = []
        for index, processors in enumerate(self._processors):
            own = ids[index][:, self._starts[index] :]  # [beams, tokens of this row]
            row = _process(processors, own, changed[index])  # [beams, V]
            rows.append(_sampled(row, self._generators[index]) if self._generators else row)
        return torch.cat(rows)


def _config(options: Options) -> GenerationConfig:
    if 0 < options.get("temperature", 1.0) < _LEAST_TEMPERATURE:
        options = {**options, "temperature": _LEAST_TEMPERATURE}
    try:
        return GenerationConfig(**options)
    except (ValueError, TypeError) as error:
        raise _wrong_options(error) from error


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(probabilities: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw one index from probabilities `[V]`, by inversion; returns `[1]`, int64.

    One random number from the CPU, whatever the device, is enough for a token.
    """
    ends = probabilities.double().cumsum(0)  # [V]
    point = torch.rand(1, generator=generator, dtype=torch.float64).to(ends.device)
    # The first index whose end lies beyond the point, which never is one of probability 0.
    return torch.searchsorted(ends, point * ends[-1], right=True).clamp_max(len(ends) - 1)


def _sampled(scores: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return scores `[1, V]` in which only a drawn token is possible."""
    finite = scores[0].clamp(max=torch.finfo(scores.dtype).max)  # of several infinite, any
    token = draw(finite.softmax(dim=-1), generator)
    return torch.full_like(scores, -torch.inf).index_fill_(1, token, 0.0)


def _process(processors: LogitsProcessorList, ids: Any, scores: torch.Tensor) -> torch.Tensor:
    try:
        return processors(ids, scores)
    except (ValueError, TypeError, IndexError) as error:
        raise _wrong_options(error) from error


def _processors_of(
    base: BaseModel, ids: Sequence[int], config: GenerationConfig
) -> LogitsProcessorList:
    """Ask transformers for the processors of a row alone; no pass through the model is made."""

    def found(
        model: Any, input_ids: Any, logits_processor: LogitsProcessorList, **others: Any
    ) -> LogitsProcessorList:
        return logits_processor

    row = torch.tensor([ids], device=base.device)  # [1, T]
    inputs: dict[str, Any] = {"input_ids": row, "attention_mask": torch.ones_like(row)}
    if base.is_encoder_decoder:  # or the encoder would be run
        inputs["encoder_outputs"] = BaseModelOutput(row.new_zeros(1, len(ids), 1))
    try:
        processors: LogitsProcessorList = generate_with(
            base, config, **inputs, custom_generate=found
        )
        return processors
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise _wrong_options(error) from error


def generate_with(base: BaseModel, config: GenerationConfig, **arguments: Any) -> Any:
    """Call transformers' `generate` with a configuration to which the base's own adds nothing."""
    model: Any = copy(base.model)  # shares weights and modules; other threads are not affected
    model.generation_config = GenerationConfig()
    return model.generate(generation_config=config, **arguments)


def _wrong_options(error: Exception) -> ConfigError:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return ConfigError(f"transformers rejects the generation options: {reason[0]}")
