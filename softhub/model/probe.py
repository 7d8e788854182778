"""Ask a base what it computes exactly, instead of believing its class, its cache or its name.

A few rows run through the model in each way that softhub has: from ids and from embeddings, alone
and in a batch with pads, with shared keys and values, packed, continued from a cache, and by
`generate`. Each result is compared with the model's own, for the row alone and from ids. What is
exact is used, and the fastest of it; what is exact in no way is refused with the reason.

A window or a switch of rotary factors changes what is exact beyond a length. The base is therefore
asked again, once, when the first row appears that is longer than a length that its config names.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, cast

import torch
from transformers import LogitsProcessor
from transformers.modeling_outputs import BaseModelOutput

from softhub.errors import BaseModelError
from softhub.model.assembly import (
    ALONE,
    EQUAL,
    PADDED,
    PaddedBatch,
    embed_rows,
    group_rows,
    pad_rows,
)
from softhub.model.base import BaseModel
from softhub.model.kv_cache import Prefix, encode_prefix, join_prefixes
from softhub.model.packing import SharedPrompt, can_run_packed
from softhub.model.scoring import (
    EncodedBatch,
    PreparedPrompt,
    along_rows,
    encode_rows,
    row_lengths,
)

_BATCHINGS = (PADDED, EQUAL, ALONE)
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
_ROUGH = 0.05
"""Largest deviation in half precision, relative to the largest logit."""

_WINDOW = re.compile(r"(window|window_size|original_max_position_embeddings|chunk_size)$")
"""Names of the lengths in a config beyond which a model may compute something else."""

_SHORTEST_WINDOW = 8
"""Windows below are exceeded by every row that is asked about."""

_SCALE = re.compile(r"scale|multiplier")
_UNABLE = (
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What models raise for arguments, shapes or caches that they do not support."""

_Pair = tuple[torch.Tensor, torch.Tensor]
"""Found and expected log-probabilities."""


@dataclass(frozen=True)
class RowAnswers:
    """How rows of some lengths are exact.

    Attributes:
        batching: Which rows may share a batch, see `assembly`; empty if not even a row alone is
            what the model computes from ids.
        shares_keys: Whether a prompt's keys and values can be shared by all rows of a batch.
        continues: Whether label words can continue rows from a copied cache.
        packs: Whether a prompt and its texts can run as one packed row.
        reasons: For each way that is not exact, what was found.
    """

    batching: str = ""
    shares_keys: bool = False
    continues: bool = False
    packs: bool = False
    reasons: Mapping[str, str] = field(default_factory=dict)


_UNASKED = RowAnswers(PADDED)
"""For a base of which each process has only a part, so that one process alone cannot ask."""


@dataclass(frozen=True)
class TextAnswers:
    """How `generate` is exact.

    Attributes:
        batching: Which rows may share a batch; empty if none is exact.
        from_cache: Whether prompts are given as a filled cache, and not as embeddings.
        reasons: For each way that is not exact, what was found.
    """

    batching: str = ""
    from_cache: bool = False
    reasons: Mapping[str, str] = field(default_factory=dict)


class Capabilities:
    """What one base computes exactly; asked when first needed, and then remembered.

    Args:
        base: The base model.
    """

    def __init__(self, base: BaseModel) -> None:
        self._base = base
        self._lock = threading.RLock()
        self._rows: dict[int, RowAnswers] = {}
        self._texts: dict[tuple[int, bool], TextAnswers] = {}

    @cached_property
    def named_lengths(self) -> tuple[int, ...]:
        """Lengths that the config names, in order, at which the base may change."""
        return tuple(sorted(_named_lengths(self._base.model.config.get_text_config().to_dict())))

    @property
    def windows(self) -> tuple[int, ...]:
        """Lengths, in order, beyond which the base is asked again."""
        return tuple(length for length in self.named_lengths if length >= _SHORTEST_WINDOW)

    @cached_property
    def embedding_scale(self) -> float | None:
        """Factor of embedded tokens that the model applies to ids only; None if none is exact.

        Without one, embeddings are not what the model makes of ids (Gemma 3n looks up more), so
        that no prompt can precede a text.
        """
        with self._lock, torch.no_grad():
            return _embedding_scale(self._base)

    def rows(self, width: int) -> RowAnswers:
        """Return how rows are scored.

        Args:
            width: Tokens of the longest prompt, the longest text and what follows, together.
        """
        level = self._level(width)
        with self._lock, torch.no_grad():
            if level not in self._rows:
                if _is_divided(self._base):
                    return _UNASKED
                self._rows[level] = _ask_rows(self._asked(level), packing=not level)
            return self._rows[level]

    def batching(self, width: int) -> str:
        """Return which rows may share a batch.

        Raises:
            BaseModelError: The base computes such rows exactly in no way.
        """
        answers = self.rows(width)
        return answers.batching or self._refuse("score texts", width, answers.reasons)

    def texts(self, width: int, *, prompted: bool) -> TextAnswers:
        """Return how rows are continued by `generate`.

        Args:
            width: Tokens of the longest prompt, the longest text and the answer, together.
            prompted: Whether a row has a prompt.

        Raises:
            BaseModelError: The base continues such rows exactly in no way.
        """
        self.require_prompts(prompted)
        level = self._level(width)
        with self._lock, torch.no_grad():
            if (level, prompted) not in self._texts:
                if _is_divided(self._base):
                    return TextAnswers(PADDED)
                rows = self._asked(level)
                shares = self.rows(width).shares_keys
                self._texts[level, prompted] = _ask_texts(rows, prompted, shares)
            answers = self._texts[level, prompted]
        if not answers.batching:
            what = "generate with a prompt" if prompted else "generate"
            self._refuse(what, width, answers.reasons)
        return answers

    def require_prompts(self, prompted: bool = True) -> None:
        """Refuse prompts for a base that does not compute from embeddings what it does from ids.

        Raises:
            BaseModelError: It does not, and rows have prompts.
        """
        if prompted and self.embedding_scale is None:
            raise BaseModelError(
                f"The base model {self._base.name!r} ({self._kind}) computes something else from "
                "embeddings than from token ids, so that soft prompts cannot precede its texts; "
                "expected a base that needs no ids. Use it without a prompt, or another base."
            )

    @property
    def _kind(self) -> str:
        return str(self._base.model.config.model_type)

    def _level(self, width: int) -> int:
        return sum(window < width for window in self.windows)

    def _asked(self, level: int) -> _Rows:
        return _Rows(self._base, self._longer_than(level))

    def _longer_than(self, level: int) -> int:
        return self.windows[level - 1] if level else 0

    def _refuse(self, what: str, width: int, reasons: Mapping[str, str]) -> str:
        longer = self._longer_than(self._level(width))
        rows = f"rows of more than {longer} tokens" if longer else "any rows"
        raise BaseModelError(
            f"The base model {self._base.name!r} ({self._kind}) cannot {what} exactly for {rows}: "
            f"{[*reasons.values()][-1]}. Expected the result that it has for a row alone; use "
            f"{'shorter texts, or ' if longer else ''}another base."
        )


def _named_lengths(config: Mapping[str, Any]) -> set[int]:
    """Return the lengths in a config, also in nested entries such as those of rotary positions."""
    found: set[int] = set()
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= _named_lengths(value)
        elif _WINDOW.search(str(name)):
            lengths = value if isinstance(value, list | tuple) else [value]
            found |= {length for length in lengths if type(length) is int}
    return found


def _is_divided(base: BaseModel) -> bool:
    """Return whether FSDP or DeepSpeed has divided the weights among processes."""
    return base.is_sharded or any(hasattr(each, "ds_id") for each in base.model.parameters())


# --- comparing ------------------------------------------------------------------------------------


def _deviation(pairs: Iterable[_Pair]) -> str | None:
    """Return how far logits are from those expected; None if they are equal but for rounding."""
    for found, expected in pairs:
        if found.shape != expected.shape:
            return f"its logits have the shape {tuple(found.shape)}, not {tuple(expected.shape)}"
        bound = _TOLERANCE.get(expected.dtype, _ROUGH)
        difference = (found.float() - expected.float()).abs().nan_to_num(torch.inf)
        both = found.isnan() & expected.isnan()
        share = float(difference.masked_fill(both, 0.0).max() / expected.abs().nan_to_num().max())
        if not share <= bound:
            return f"logits differ by {share:.1g} of the largest"
    return None


def _attempt(question: Callable[[], Iterable[_Pair]]) -> str | None:
    """Return why a way is not exact, or None if it is."""
    try:
        return _deviation(question())
    except _UNABLE as error:
        if isinstance(error, torch.OutOfMemoryError) or "memory" in str(error):
            raise  # says nothing about the model
        lines = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__}: {lines[0]}".rstrip(": .")


def _embedding_scale(base: BaseModel) -> float | None:
    ids = torch.tensor([_token_ids(base, 5)], device=base.device)  # [1, 5]
    embedded = base.model.get_input_embeddings()(ids)
    model: Any = base.model.get_encoder() if base.is_encoder_decoder else base.model
    expected = _first_output(model(input_ids=ids))
    for scale in _scales(base):
        found = _attempt(
            lambda scale=scale: [(_first_output(model(inputs_embeds=embedded * scale)), expected)]
        )
        if found is None:
            return scale
    return None


def _first_output(output: Any) -> torch.Tensor:
    """Return an encoder's hidden states or a decoder's logits."""
    found: torch.Tensor = output[0] if getattr(output, "logits", None) is None else output.logits
    return found


def _scales(base: BaseModel) -> list[float]:
    """Return factors that the model may apply: those that its parts and its config name."""
    values = [value for part in base.model.modules() for value in _numbers(vars(part))]
    values += _numbers(base.model.config.get_text_config().to_dict())
    others = {base.hidden_size**0.5, *values} - {0.0, 1.0}
    return [1.0, *sorted(others)]


def _numbers(fields: Mapping[str, Any]) -> list[float]:
    return [
        float(value)
        for name, value in fields.items()
        if _SCALE.search(str(name)) and type(value) in (int, float)
    ]


# --- rows -----------------------------------------------------------------------------------------


def _token_ids(base: BaseModel, count: int, start: int = 0) -> list[int]:
    """Return ids of ordinary tokens, none of which the config names."""
    size = base.embedding.shape[0]
    config = base.model.config.get_text_config().to_dict()
    special = {value for name, value in config.items() if str(name).endswith("token_id")}
    ordinary = [index for index in range(size // 3, size) if index not in special][:97]
    return [ordinary[(start + 5 * i + i * i) % len(ordinary)] for i in range(count)]


class _Rows:
    """Rows to ask about, and the model's own logits for each of them alone, from ids.

    Prompts are the embeddings of tokens, so that a row with a prompt can also run from ids. Of two
    rows that are longer than a window one has a prompt; a short one, with a prompt, is between.

    Args:
        base: The base model.
        window: Length that the longer rows exceed.
    """

    def __init__(self, base: BaseModel, window: int) -> None:
        self.base = base
        below = [length for length in base.capabilities.named_lengths if length < _SHORTEST_WINDOW]
        more = window or max(below, default=0)
        self.prompt, self.word = _token_ids(base, 2, 40), _token_ids(base, 2, 70)
        self.texts = [_token_ids(base, more + 4), *(_token_ids(base, n, 7) for n in (1, more + 2))]
        self.prompted = [False, True, True]
        self.window = window

    def growing_too(self) -> _Rows:
        """Return these rows and two that exceed the window only with what follows."""
        rows = _Rows(self.base, self.window)
        if self.window:
            rows.texts += [_token_ids(self.base, n, 3) for n in (self.window, self.window - 2)]
            rows.prompted += [False, True]
        return rows

    @property
    def full(self) -> list[list[int]]:
        """The rows' tokens with those of their prompts."""
        return [tokens for _, tokens in self._joined(self.texts)]

    def _joined(self, texts: Sequence[list[int]]) -> list[tuple[bool, list[int]]]:
        pairs = zip(self.prompted, texts, strict=True)
        return [(prompted, self.prompt + text if prompted else text) for prompted, text in pairs]

    @cached_property
    def vectors(self) -> torch.Tensor:
        """The prompt, `[2, H]`."""
        return self.base.embed(torch.tensor(self.prompt))

    @cached_property
    def expected(self) -> torch.Tensor:
        """Log-probabilities of each row alone, after its text and along the word: `[B, 1 + S, V]`."""
        return torch.stack([self._alone(tokens) for tokens in self.full]).float().log_softmax(-1)

    @cached_property
    def prefix(self) -> Prefix:
        """The prompt's keys and values."""
        return encode_prefix(self.base, self.vectors)

    def _alone(self, tokens: list[int]) -> torch.Tensor:
        base, keep = self.base, len(self.word) + 1
        if base.is_encoder_decoder:
            decoder = torch.tensor([[base.start_id, *self.word]], device=base.device)
            options: dict[str, Any] = {"decoder_input_ids": decoder}
        else:
            tokens = tokens + self.word
            options = (
                {"logits_to_keep": keep} if "logits_to_keep" in base.forward_parameters else {}
            )
        ids = torch.tensor([tokens], device=base.device)
        output = base.model(ids, attention_mask=torch.ones_like(ids), use_cache=False, **options)
        return cast(torch.Tensor, output.logits[0, -keep:])

    def prompts(self, form: PreparedPrompt) -> list[PreparedPrompt]:
        """Return the prompt of each row, in one of the forms that a prompt has."""
        return [form if prompted else None for prompted in self.prompted]

    def found(self, encoded: EncodedBatch, *, ends: bool = True) -> Iterator[_Pair]:
        """Yield log-probabilities of an encoded batch, after its texts and along the word."""
        of_rows = self.expected[-encoded.mask.shape[0] :]
        if encoded.logits is None:
            yield along_rows(self.base, encoded, [tuple(self.word)])[0], of_rows
        elif ends:
            yield encoded.logits[:, -1].float().log_softmax(-1), of_rows[:, 0]
        else:
            yield along_rows(self.base, encoded, [tuple(self.word)])[0], of_rows[:, 1:]


def _ask_rows(rows: _Rows, *, packing: bool) -> RowAnswers:
    """Ask how rows are exact, the fastest way first."""
    base, reasons = rows.base, _Reasons()
    embeds = base.capabilities.embedding_scale is not None
    cached = embeds and not base.is_encoder_decoder
    shares = cached and reasons.exact("shared keys", lambda: _shared(rows))
    continues = shares and reasons.exact("continued", lambda: _shared(rows, ends=False))
    if cached and not shares:
        continues = reasons.exact("continued", lambda: _padded(rows, PADDED, ends=False))
    packs = packing and cached and can_run_packed(base)
    packs = packs and reasons.exact("packed", lambda: _packed(rows))
    for batching in _BATCHINGS:
        if reasons.exact(batching, lambda way=batching: _padded(rows, way)):
            padded = batching == PADDED
            return RowAnswers(batching, shares, continues and padded, packs, reasons.found)
    return RowAnswers(reasons=reasons.found)


class _Reasons:
    """Asks questions, and remembers why a way is not exact."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def exact(self, way: str, question: Callable[[], Iterable[_Pair]]) -> bool:
        reason = _attempt(question)
        if reason is not None:
            self.found[way] = reason
        return reason is None


def _shared(rows: _Rows, *, ends: bool = True) -> Iterator[_Pair]:
    prompts, texts = rows.prompts(rows.prefix), pad_rows(rows.texts)
    encoded = encode_rows(rows.base, prompts, texts, keep_cache=True, batching=PADDED)
    return rows.found(encoded, ends=ends)


def _padded(rows: _Rows, batching: str, *, ends: bool = True) -> Iterator[_Pair]:
    embeds = rows.base.capabilities.embedding_scale is not None
    texts = pad_rows(rows.texts if embeds else rows.full)
    prompts = rows.prompts(rows.vectors if embeds else None)
    encoded = encode_rows(rows.base, prompts, texts, keep_cache=not ends, batching=batching)
    return rows.found(encoded, ends=ends)


def _packed(rows: _Rows) -> Iterator[_Pair]:
    texts = [text for text, prompted in zip(rows.texts, rows.prompted, strict=True) if prompted]
    prompts = [SharedPrompt(rows.vectors)] * len(texts)
    encoded = encode_rows(rows.base, prompts, pad_rows(texts), keep_cache=True)
    yield from rows.found(encoded)
    yield from rows.found(encoded, ends=False)


# --- generating -----------------------------------------------------------------------------------


class _Forced(LogitsProcessor):
    """Lets `generate` choose a given word, so that a near tie cannot change what follows."""

    def __init__(self, word: Sequence[int]) -> None:
        self._rest = list(word)

    def __call__(self, input_ids: torch.LongTensor, scores: Any) -> torch.FloatTensor:
        """Return scores `[B, V]` that only allow the next token of the word."""
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self._rest.pop(0)] = 0.0
        return forced  # type: ignore[return-value]


def _logits_of(rows: _Rows, inputs: Mapping[str, Any]) -> torch.Tensor:
    """Return the log-probabilities `[B, S, V]` with which `generate` continues rows."""
    model: Any = rows.base.model
    options = {"max_new_tokens": len(rows.word), "do_sample": False, "num_beams": 1}
    output = model.generate(
        **inputs,
        **options,
        logits_processor=[_Forced(rows.word)],
        output_logits=True,
        return_dict_in_generate=True,
    )
    return torch.stack(output.logits, dim=1).float().log_softmax(-1)


def _ask_texts(rows: _Rows, prompted: bool, shares_keys: bool) -> TextAnswers:
    """Ask how `generate` is exact, the fastest way first."""
    base, reasons = rows.base, _Reasons()
    rows = rows.growing_too()
    expected, embeds = _generated_alone(rows), base.capabilities.embedding_scale is not None
    cached = prompted and shares_keys and not base.is_encoder_decoder
    if cached and reasons.exact("cache", lambda: _generated(rows, expected, rows.prefix, PADDED)):
        return TextAnswers(PADDED, True, reasons.found)
    prompt = rows.vectors if embeds and (prompted or base.is_encoder_decoder) else None
    for batching in _BATCHINGS:
        if reasons.exact(batching, partial(_generated, rows, expected, prompt, batching)):
            return TextAnswers(batching, False, reasons.found)
    return TextAnswers(reasons=reasons.found)


def _generated_alone(rows: _Rows) -> torch.Tensor:
    """Return what the model itself generates from each row's ids, `[B, S, V]`."""
    device = rows.base.device
    each = (torch.tensor([tokens], device=device) for tokens in rows.full)
    inputs = ({"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in each)
    return torch.cat([_logits_of(rows, row) for row in inputs])


def _generated(
    rows: _Rows, expected: torch.Tensor, form: PreparedPrompt, batching: str
) -> Iterator[_Pair]:
    """Yield what `generate` makes of the rows in groups, with prompts in one form."""
    prompts, texts = rows.prompts(form), rows.texts if form is not None else rows.full
    padded = pad_rows(texts).to(rows.base.device)
    for group in group_rows(row_lengths(prompts, padded), batching):
        some, of_them = [prompts[i] for i in group], padded.select(group)
        yield _logits_of(rows, _inputs(rows.base, some, of_them)), expected[group]


def _inputs(
    base: BaseModel, prompts: Sequence[PreparedPrompt], rows: PaddedBatch
) -> dict[str, Any]:
    """Return what `generate` receives for a batch, as in `softhub.inference.generation`."""
    if base.is_encoder_decoder:
        encoded = encode_rows(base, prompts, rows, keep_cache=False, batching=PADDED)
        output = BaseModelOutput(encoded.encoder)
        return {"encoder_outputs": output, "attention_mask": encoded.mask.long()}
    last = rows.ids[:, -1:]
    ids, mask, inputs = torch.where(rows.mask, rows.ids, last), rows.mask, dict[str, Any]()
    if any(isinstance(prompt, Prefix) for prompt in prompts):
        prefixes = [prompt if isinstance(prompt, Prefix) else None for prompt in prompts]
        inputs["past_key_values"], before = join_prefixes(base, prefixes)
        mask = torch.cat([before, mask], dim=1)  # [B, P + T]
    elif any(prompt is not None for prompt in prompts):
        vectors = [prompt if isinstance(prompt, torch.Tensor) else None for prompt in prompts]
        inputs["inputs_embeds"], mask = embed_rows(base, vectors, rows)  # [B, L, H]
    fillers = last.expand(-1, mask.shape[1] - ids.shape[1])
    return {**inputs, "input_ids": torch.cat([fillers, ids], 1), "attention_mask": mask.long()}
