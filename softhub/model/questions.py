"""Rows that a base is asked about, its own results for each alone, and how they are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import LogitsProcessor

from softhub.model.assembly import PADDED, PaddedBatch, group_rows, pad_rows
from softhub.model.generation_inputs import generation_inputs
from softhub.model.grouping import PreparedPrompt, row_lengths
from softhub.model.kv_cache import Prefix, encode_prefix
from softhub.model.packing import SharedPrompt
from softhub.model.scoring import EncodedBatch, along_rows, encode_rows

if TYPE_CHECKING:
    from softhub.model.base import BaseModel

Pair = tuple[torch.Tensor, torch.Tensor]
"""Log-probabilities that were found, and those expected."""

_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
_ROUGH = 0.05
"""Largest deviation in half precision, of the largest log-probability; see `Rows.bound`."""

_ROUNDINGS = 2
"""How far half precision may move results, in units of what the last bit of embeddings moves.

Exact ways move those of SmolLM2-135M by up to 1 unit and those of tiny models by 0.4; keys that
ignore a window move tiny models by 10 or more.
"""

_UNABLE = (
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What models raise for arguments, shapes or caches that they do not support."""


class Rows:
    """Rows to ask about, and the model's own log-probabilities for each of them alone, from ids.

    Prompts are the embeddings of tokens, so that a row with a prompt can also run from ids. The
    rows are: a long one without a prompt, and with it one that is a few tokens shorter, one of the
    same length, and a short one. The shorter ones have pads however they run, some of them within
    a block or a window and some beyond it.

    Args:
        base: The base model.
        length: Tokens of the longer rows.
    """

    def __init__(self, base: BaseModel, length: int) -> None:
        self.base = base
        self.prompt, self.word = _ordinary_tokens(base, 2, 40), _ordinary_tokens(base, 2, 70)
        lengths = (length, max(1, length - 7), max(1, length - 2), 1)
        texts = [_ordinary_tokens(base, n, 7 * n) for n in lengths]
        self._rows = [(None, texts[0]), *((self.prompt, text) for text in texts[1:])]
        self._alone: dict[int, torch.Tensor] = {}
        self._bound: float | None = None

    @cached_property
    def vectors(self) -> torch.Tensor:
        """The prompt, `[2, H]`."""
        return self.base.embed(torch.tensor(self.prompt))

    @cached_property
    def prefix(self) -> Prefix:
        """The prompt's keys and values."""
        return encode_prefix(self.base, self.vectors)

    def tokens(self, row: int) -> list[int]:
        """Return a row's tokens, with those of its prompt."""
        prompt, text = self._rows[row]
        return [*(prompt or ()), *text]

    def batch(
        self, rows: Sequence[int], form: PreparedPrompt
    ) -> tuple[list[PreparedPrompt], PaddedBatch]:
        """Return rows with their prompt in one of its forms, or in the ids if that is None."""
        prompts = [form if self._rows[row][0] else None for row in rows]
        texts = [self._rows[row][1] if form is not None else self.tokens(row) for row in rows]
        return prompts, pad_rows(texts).to(self.base.device)

    def expected(self, rows: Sequence[int]) -> torch.Tensor:
        """Return what follows each row alone and its word's tokens, `[rows, 1 + S, V]`."""
        for row in rows:
            if row not in self._alone:
                self._alone[row] = self.alone(row)
        return torch.stack([self._alone[row] for row in rows])

    def bound(self) -> float:
        """Return the deviation up to which a way is exact, of the largest log-probability.

        Half precision rounds at each step. How far that moves a result depends on the base, and is
        measured by what the last bit of its embeddings moves; another window moves it further.
        """
        scale = self.base.capabilities.embedding_scale
        if self._bound is None:
            self._bound = largest_bound(self.base.dtype)
            if self.base.dtype not in _TOLERANCE and scale is not None:
                noise = max(self._moved_by_last_bit(row, scale) for row in (0, 1))
                least = torch.finfo(self.base.dtype).eps
                self._bound = min(self._bound, max(least, _ROUNDINGS * noise))
        return self._bound

    def _moved_by_last_bit(self, row: int, scale: float) -> float:
        return _share(self.alone(row, scale=scale, rounded=True), self.expected([row])[0])

    def alone(
        self,
        row: int,
        *,
        scale: float | None = None,
        rounded: bool = False,
        word: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """Run a row and a word as plain transformers does, `[1 + S, V]`.

        Args:
            row: The row.
            scale: Run embeddings times this factor instead of ids.
            rounded: Whether each number of the embeddings changes by about its last bit.
            word: Another word than `word`.
        """
        base, options = self.base, dict[str, Any]()
        word = self.word if word is None else [*word]
        tokens, keep = self.tokens(row), len(word) + 1
        if base.is_encoder_decoder:
            options["decoder_input_ids"] = torch.tensor([[base.start_id, *word]]).to(base.device)
        else:
            tokens = tokens + word
            if "logits_to_keep" in base.forward_parameters:
                options["logits_to_keep"] = keep
        ids = torch.tensor([tokens], device=base.device)
        if scale is None:
            options["input_ids"] = ids
        else:
            embedded = base.model.get_input_embeddings()(ids) * scale
            options["inputs_embeds"] = _rounded(embedded) if rounded else embedded
        logits = base.model(**options, attention_mask=torch.ones_like(ids), use_cache=False).logits
        return cast(torch.Tensor, logits[0, -keep:].float().log_softmax(-1))

    # --- as the rows are scored ---

    def scored(self, rows: Sequence[int], form: PreparedPrompt, batching: str) -> Iterator[Pair]:
        """Yield what follows the texts of a batch; of an encoder-decoder along the word too."""
        prompts, texts = self.batch(rows, form)
        encoded = encode_rows(self.base, prompts, texts, keep_cache=False, batching=batching)
        yield self._after_texts(encoded, rows)
        if encoded.encoder is not None:  # a shorter word, which has pads behind it
            found = self._along_words(encoded, [self.word, self.word[:1]])[1][:1, :2]
            yield found[0], self.alone(rows[0], word=self.word[:1])

    def continued(self, rows: Sequence[int], form: PreparedPrompt) -> Iterator[Pair]:
        """Yield what follows the texts of a batch, then what follows the word from its cache."""
        prompts, texts = self.batch(rows, form)
        encoded = encode_rows(self.base, prompts, texts, keep_cache=True, batching=PADDED)
        yield self._after_texts(encoded, rows)
        yield self._along_word(encoded), self.expected(rows)[:, 1:]

    def packed(self) -> Iterator[Pair]:
        """Yield the same for two texts in one packed row; the second one may not see the first."""
        texts = pad_rows([self._rows[2][1], self._rows[1][1]]).to(self.base.device)
        prompts = [SharedPrompt(self.vectors)] * 2
        encoded = encode_rows(self.base, prompts, texts, keep_cache=True, batching=PADDED)
        second, expected = encoded.select([1]), self.expected([1])
        yield self._after_texts(second, [1])
        yield self._along_word(second), expected[:, 1:]

    def _after_texts(self, encoded: EncodedBatch, rows: Sequence[int]) -> Pair:
        if encoded.logits is None:
            return self._along_word(encoded), self.expected(rows)
        return encoded.logits[:, -1].float().log_softmax(-1), self.expected(rows)[:, 0]

    def _along_word(self, encoded: EncodedBatch) -> torch.Tensor:
        return self._along_words(encoded, [self.word])[0]

    def _along_words(
        self, encoded: EncodedBatch, words: Sequence[Sequence[int]]
    ) -> list[torch.Tensor]:
        return along_rows(self.base, encoded, [tuple(word) for word in words])

    # --- as the rows are generated ---

    def generated_alone(self, rows: Sequence[int]) -> torch.Tensor:
        """Return what the model's own `generate` makes of each row's ids, `[rows, S, V]`."""
        inputs = [torch.tensor([self.tokens(row)], device=self.base.device) for row in rows]
        masked = ({"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in inputs)
        return torch.cat([self._generated(row) for row in masked])

    def generated(
        self, rows: Sequence[int], form: PreparedPrompt, batching: str, expected: torch.Tensor
    ) -> Iterator[Pair]:
        """Yield what `generate` makes of the rows in groups, with prompts in one form."""
        prompts, texts = self.batch(rows, form)
        for group in group_rows(row_lengths(prompts, texts), batching):
            inputs = generation_inputs(self.base, [prompts[i] for i in group], texts.select(group))
            yield self._generated(inputs), expected[group, : len(self.word)]

    def _generated(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        model: Any = self.base.model
        output = model.generate(
            **inputs,
            max_new_tokens=len(self.word),
            do_sample=False,
            num_beams=1,
            logits_processor=[_Forced(self.word)],
            output_logits=True,
            return_dict_in_generate=True,
        )
        return torch.stack(output.logits, dim=1).float().log_softmax(-1)  # [B, S, V]


class _Forced(LogitsProcessor):
    """Lets `generate` choose a given word, so that a near tie cannot change what follows."""

    def __init__(self, word: Sequence[int]) -> None:
        self._rest = list(word)

    def __call__(self, input_ids: torch.LongTensor, scores: Any) -> torch.FloatTensor:
        """Return scores `[B, V]` that only allow the next token of the word."""
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self._rest.pop(0)] = 0.0
        return forced  # type: ignore[return-value]


# --- comparing ------------------------------------------------------------------------------------


def largest_bound(dtype: torch.dtype) -> float:
    """Return the deviation beyond which nothing is exact in a dtype, however it rounds."""
    return _TOLERANCE.get(dtype, _ROUGH)


def why_not(question: Callable[[], Iterable[Pair]], bound: Callable[[], float]) -> str | None:
    """Return why a way is not exact, or None if it is.

    Args:
        question: Returns what was found and what was expected.
        bound: Returns the largest share of the largest log-probability by which they may differ.
    """
    try:
        return _deviation(question(), bound())
    except _UNABLE as error:
        if isinstance(error, torch.OutOfMemoryError) or "memory" in str(error):
            raise  # says nothing about the model
        lines = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__}: {lines[0].split('. ')[0]:.200}".rstrip(": .")


def _deviation(pairs: Iterable[Pair], bound: float) -> str | None:
    for found, expected in pairs:
        if found.shape != expected.shape:
            return f"the shape {[*found.shape]} was found, not {[*expected.shape]}"
        if not (share := _share(found, expected)) <= bound:
            return f"log-probabilities differ by {share:.1%} of the largest"
    return None


def _share(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest deviation, relative to the largest log-probability."""
    both = found.isnan() & expected.isnan()
    difference = (found - expected).abs().nan_to_num(torch.inf).masked_fill(both, 0.0)
    size = expected.abs().nan_to_num(posinf=0.0).max().clamp_min(1e-6)
    return float(difference.max() / size)


def _rounded(values: torch.Tensor) -> torch.Tensor:
    """Return each number changed by about its last bit, up or down at random."""
    up = torch.rand(values.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    last = torch.finfo(values.dtype).eps
    return values * torch.where(up, 1 + last, 1 - last).to(values)


def _ordinary_tokens(base: BaseModel, count: int, start: int) -> list[int]:
    """Return ids of tokens that the config does not name."""
    config = base.model.config.get_text_config().to_dict()
    named = {value for name, value in config.items() if str(name).endswith("token_id")}
    size = base.embedding.shape[0]
    ordinary = [index for index in range(size // 3, size) if index not in named][:97]
    return [ordinary[(start + 5 * i + i * i) % len(ordinary)] for i in range(count)]
