"""Ask a base what it computes exactly, instead of believing its class, its cache or its name.

A few rows run through the model in each way that softhub has: from ids and from embeddings, alone
and in a batch with pads, with shared keys and values, packed, continued from a cache, and by
`generate`. Each result is compared with the model's own, for the row alone and from ids. What is
exact is used, and the fastest of it; what is exact in no way is refused with the reason.

A window or a switch of rotary factors changes what is exact beyond a length. The base is therefore
tested again, once, when the first row appears that is longer than a length that its config names;
and so it is after it was moved to another device or cast.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch

from softhub.errors import BaseModelError
from softhub.model.as_in_use import as_in_use
from softhub.model.assembly import ALONE, EQUAL, PADDED
from softhub.model.base import BaseModel
from softhub.model.config_lengths import named_windows
from softhub.model.packing import can_run_packed
from softhub.model.questions import Pair, Rows, largest_bound, why_not

_BATCHINGS = (PADDED, EQUAL, ALONE)
_SOME, _ALL = (0, 1), (0, 1, 2, 3)
"""Rows that show whether pads matter, and those that also show whether equal lengths do."""

_LONG, _BEYOND = 8, 19
"""Tokens of the longer rows, and by how much they exceed a window: to no multiple of a chunk."""

_IN_WORDS = {
    PADDED: "exact, with pads",
    EQUAL: "exact, by equal length",
    ALONE: "exact, one at a time",
    "": "refused",
}

_SCALE = re.compile(r"scale|multiplier")


@dataclass(frozen=True)
class RowAnswers:
    """How rows of some lengths are exact.

    Attributes:
        batching: Which rows may share a batch, see `assembly`; empty if not even a row alone is
            what the model computes from ids.
        shares_keys: Whether a prompt's keys and values can be shared by all rows of a batch.
        continues: Whether label words can continue rows from a copied cache.
        reasons: For each way that is not exact, what was found.
    """

    batching: str = ""
    shares_keys: bool = False
    continues: bool = False
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
        self._placement = base.placement
        self._lock = threading.RLock()
        self._rows: dict[int, RowAnswers] = {}
        self._texts: dict[tuple[int, bool, bool], TextAnswers] = {}

    @property
    def is_current(self) -> bool:
        """Whether the base is where it was tested, or cannot be tested again."""
        return self._placement == self._base.placement or _is_divided(self._base)

    @cached_property
    def windows(self) -> tuple[int, ...]:
        """Lengths, in order, beyond which the base is tested again."""
        return named_windows(self._base.model.config.get_text_config().to_dict())

    @cached_property
    def embedding_scale(self) -> float | None:
        """Factor of embedded tokens that the model applies to ids only; None if none is exact.

        Without one, embeddings are not what the model makes of ids (Gemma 3n looks up more), so
        that no prompt can precede a text.
        """
        if _is_divided(self._base):
            return 1.0
        with self._lock, as_in_use(self._base):
            return _find_scale(self._base, self._asked(0))

    def rows(self, width: int) -> RowAnswers:
        """Return how rows are scored.

        Args:
            width: Tokens of the longest prompt, the longest text and what follows, together.
        """
        level = self._level(width)
        with self._lock:
            if level not in self._rows:
                if _is_divided(self._base):
                    return _UNASKED
                some = _ALL if level else _SOME
                with as_in_use(self._base):
                    self._rows[level] = _ask_rows(self._base, self._asked(level), some)
            return self._rows[level]

    @cached_property
    def packs(self) -> bool:
        """Whether a prompt and texts that fit into a window can run as one packed row."""
        base = self._base
        if not can_run_packed(base) or _is_divided(base) or self.embedding_scale is None:
            return False
        with self._lock, as_in_use(base):
            return why_not(self._asked(0).packed, self._asked(0).bound) is None

    def batching(self, width: int) -> str:
        """Return which rows may share a batch.

        Raises:
            BaseModelError: The base computes such rows exactly in no way.
        """
        answers = self.rows(width)
        return answers.batching or self._refuse("score texts", width, answers.reasons)

    def texts(self, length: int, width: int, *, prompted: bool) -> TextAnswers:
        """Return how rows are continued by `generate`.

        Args:
            length: Tokens of the shortest row's prompt and text.
            width: Tokens of the longest prompt, the longest text and the answer, together.
            prompted: Whether a row has a prompt.

        Raises:
            BaseModelError: The base continues such rows exactly in no way.
        """
        self.require_prompts(prompted)
        level = self._level(width)
        grows = self._level(length) < level
        with self._lock:
            if (level, grows, prompted) not in self._texts:
                if _is_divided(self._base):
                    return TextAnswers(PADDED)
                with as_in_use(self._base):
                    self._texts[level, grows, prompted] = self._ask_texts(level, grows, prompted)
            answers = self._texts[level, grows, prompted]
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
                f"The base model {self._base.name!r} ({self._kind}) gives different results for "
                "embeddings than for the same token ids, so it cannot run soft prompts. Use it "
                "without a prompt, or use another base model."
            )

    def findings(self) -> dict[str, Any]:
        """Ask about rows within the shortest window, and return what was found in plain words."""
        rows, prompts = self.rows(0), self.embedding_scale is not None
        decoder = not self._base.is_encoder_decoder
        found = {
            "base model": self._base.name,
            "context": self._base.max_positions or "unlimited",
            "soft prompts": "exact"
            if prompts
            else "refused: embeddings give other results than ids",
            "embedding scale": self.embedding_scale,
            "texts in a batch": _IN_WORDS[rows.batching],
        }
        if decoder and prompts:
            found["prompt in a batch"] = "shared" if rows.shares_keys else "in each row"
            found["prompt in a training step"] = "packed" if self.packs else "not packed"
        if decoder:
            found["long label words"] = "from the cache" if rows.continues else "recomputed"
        for name, prompted in {"generate": False, "generate with a prompt": True}.items():
            try:
                found[name] = _IN_WORDS[self.texts(0, 0, prompted=prompted).batching]
            except BaseModelError as refused:
                found[name] = f"refused: {refused}"
        found["tested again beyond"] = ", ".join(f"{each} tokens" for each in self.windows)
        return {**found, **{f"not exact: {way}": why for way, why in rows.reasons.items()}}

    @property
    def _kind(self) -> str:
        return str(self._base.model.config.model_type)

    def _level(self, width: int) -> int:
        return sum(window < width for window in self.windows)

    @cached_property
    def _short_rows(self) -> Rows:
        window = min(self.windows, default=_LONG + 4)  # prompt and word take 4 tokens of it
        return Rows(self._base, max(1, min(_LONG, window - 4)))

    def _asked(self, level: int) -> Rows:
        return Rows(self._base, self._longer_than(level) + _BEYOND) if level else self._short_rows

    def _ask_texts(self, level: int, grows: bool, prompted: bool) -> TextAnswers:
        base, scored = self._base, self.rows(self._longer_than(level) + 1)
        every = [self._asked(level)]
        if grows:
            every.append(Rows(base, self._longer_than(level)))  # exceeds it with what follows
        shares = prompted and scored.shares_keys
        embeds = prompted or base.is_encoder_decoder
        embeds = embeds and self.embedding_scale is not None
        # What changes scores changes texts, although a few of them may not show it.
        batchings = _BATCHINGS[_BATCHINGS.index(scored.batching or ALONE) :]
        ask = partial(_ask_texts, every, _ALL if level else _SOME, embeds, shares, batchings)
        if not grows:  # the model's own `generate` continues most rows as its forward scores them
            answers = ask(Rows.expected)
            if answers.batching:
                return answers
        return ask(Rows.generated_alone)

    def _longer_than(self, level: int) -> int:
        return self.windows[level - 1] if level else 0

    def _refuse(self, what: str, width: int, reasons: Mapping[str, str]) -> str:
        longer = self._longer_than(self._level(width))
        rows = f"rows of more than {longer} tokens" if longer else "any rows"
        raise BaseModelError(
            f"The base model {self._base.name!r} ({self._kind}) cannot {what} exactly for {rows}: "
            f"{[*reasons.values()][-1]}. The results must be those of each row alone; use "
            f"{'shorter texts, or ' if longer else ''}another base model."
        )


def _is_divided(base: BaseModel) -> bool:
    """Return whether FSDP or DeepSpeed has divided the weights among processes."""
    return base.is_sharded or any(hasattr(each, "ds_id") for each in base.model.parameters())


# --- asking ---------------------------------------------------------------------------------------


class _Reasons:
    """Asks questions, and remembers why a way is not exact."""

    def __init__(self, bound: Callable[[], float]) -> None:
        self._bound = bound
        self.found: dict[str, str] = {}

    def exact(self, way: str, question: Callable[[], Iterable[Pair]]) -> bool:
        reason = why_not(question, self._bound)
        if reason is not None:
            self.found[way] = reason
        return reason is None


def _find_scale(base: BaseModel, rows: Rows) -> float | None:
    """Return the factor with which embeddings are what the model makes of ids; None without one."""
    expected, bound = rows.expected([0])[0], partial(largest_bound, base.dtype)

    def same(scale: float) -> list[Pair]:
        return [(rows.alone(0, scale=scale), expected)]

    def runs(scale: float) -> list[Pair]:
        found = rows.alone(1, scale=scale)
        return [(found, found)]

    for scale in _scales(base):
        if why_not(partial(same, scale), bound) is None:
            # A prompt is no token's embedding, of which some models look up the id (Gemma 4).
            return scale if why_not(partial(runs, 1.01 * scale), bound) is None else None
    return None


def _scales(base: BaseModel) -> Iterator[float]:
    """Yield factors that the model may apply: 1, and those that its parts and its config name."""
    yield 1.0
    values = [value for part in base.model.modules() for value in _numbers(vars(part))]
    values += _numbers(base.model.config.get_text_config().to_dict())
    yield from sorted({base.hidden_size**0.5, *values} - {0.0, 1.0})


def _numbers(fields: Mapping[str, Any]) -> list[float]:
    return [
        float(value)
        for name, value in fields.items()
        if _SCALE.search(str(name)) and type(value) in (int, float)
    ]


def _ask_rows(base: BaseModel, rows: Rows, some: Sequence[int]) -> RowAnswers:
    """Ask how rows are exact, the fastest way first; `some` of them show what pads do."""
    reasons, embeds = _Reasons(rows.bound), base.capabilities.embedding_scale is not None
    form, decoder = rows.vectors if embeds else None, not base.is_encoder_decoder
    cached = decoder and embeds and "past_key_values" in base.forward_parameters
    shares = continues = False
    if cached:
        shares = continues = reasons.exact("keys", lambda: rows.continued(some, rows.prefix))
    if decoder and not continues:
        continues = reasons.exact("cache", lambda: rows.continued(some, form))
        if cached and not continues:  # no continuation is exact: that says nothing of the keys
            shares = reasons.exact("keys", lambda: rows.scored(some, rows.prefix, PADDED))
    for batching in _BATCHINGS:
        asked = some if batching == PADDED else _ALL
        if reasons.exact(batching, partial(rows.scored, asked, form, batching)):
            padded = batching == PADDED
            return RowAnswers(batching, shares, continues and padded, reasons.found)
    return RowAnswers(reasons=reasons.found)


def _ask_texts(
    every: Sequence[Rows],
    some: Sequence[int],
    embeds: bool,
    shares_keys: bool,
    batchings: Sequence[str],
    expected: Callable[[Rows, Sequence[int]], torch.Tensor],
) -> TextAnswers:
    """Ask how `generate` is exact, the fastest way first; `expected` is for rows alone."""
    reasons = _Reasons(lambda: max(each.bound() for each in every))

    def asked(batching: str, *, cache: bool = False) -> Iterator[Pair]:
        rows = some if batching == PADDED else _ALL
        for each in every:
            form = each.prefix if cache else each.vectors if embeds else None
            yield from each.generated(rows, form, batching, expected(each, rows))

    if shares_keys and reasons.exact("keys", lambda: asked(PADDED, cache=True)):
        return TextAnswers(PADDED, True, reasons.found)
    for batching in batchings:
        if reasons.exact(batching, partial(asked, batching)):
            return TextAnswers(batching, False, reasons.found)
    return TextAnswers(reasons=reasons.found)
