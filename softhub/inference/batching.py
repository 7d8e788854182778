"""Group requests into batches of similar length and equal options; share their beginning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import TypeVar

import torch

from softhub.errors import ConfigError, expected_instead
from softhub.inference.requests import LoadedPrompt, Request, is_prefix
from softhub.model.base import BaseModel
from softhub.model.device_settings import settings_of
from softhub.model.encoding import EncodedText
from softhub.terminal import phase, warn_in_phase

_Answer = TypeVar("_Answer")


def answer_in_batches(
    requests: Sequence[Request],
    size: int,
    answer: Callable[[list[Request]], Sequence[_Answer]],
    *,
    rounds: Mapping[LoadedPrompt, int] | None = None,
    progress: str | None = None,
) -> list[_Answer]:
    """Answer requests batch by batch.

    Args:
        requests: All rows of a call.
        size: Maximum number of rows of a batch.
        answer: Answers one batch.
        rounds: Prompts of a higher round are answered later, see `PrefixCache.rounds`; those that
            are missing belong to round 0. None for one round.
        progress: What `terminal.phase` says is being done; None says nothing.

    Returns:
        The answers in the order of the requests.

    Raises:
        ConfigError: `size` is not positive.
    """
    if expected := expected_instead(size, int, 1):
        raise ConfigError(f"batch_size is {size!r}; expected {expected}.")
    answers: dict[int, _Answer] = {}
    with phase(progress, len(requests), "text") as advance:
        warn_about_truncation([request.text for request in requests])
        for indices in _batches(requests, size, rounds or {}):
            found = answer([requests[index] for index in indices])
            answers.update(zip(indices, found, strict=True))
            advance(len(indices))
    return [answers[index] for index in range(len(requests))]


def _batches(
    requests: Sequence[Request], size: int, rounds: Mapping[LoadedPrompt, int]
) -> Iterator[list[int]]:
    """Yield indices of requests with equal options, sorted by round and length, for few pads."""

    def place(index: int) -> tuple[int, int]:
        request = requests[index]
        found = rounds.get(request.prompt, 0) if request.prompt else 0
        length = len(request.text.ids)
        # Every second round goes from long to short: a batch of two rounds has similar lengths.
        return found, -length if found % 2 else length

    by_options: dict[str, list[int]] = {}
    for index, request in enumerate(requests):
        by_options.setdefault(repr(request.options), []).append(index)
    for _, indices in sorted(by_options.items()):
        indices.sort(key=place)
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


def cached_prompts(requests: Sequence[Request]) -> list[LoadedPrompt]:
    """Return the prompts of rows whose keys and values are computed and cached, each once."""
    prompts = dict.fromkeys(request.prompt for request in requests)
    return [each for each in prompts if each and not is_prefix(each)]


def answer_apart(
    requests: Sequence[Request], answer: Callable[[list[Request]], Sequence[_Answer]]
) -> list[_Answer]:
    """Answer a batch that is too wide for cached keys and values: rows with a prefix apart.

    A base that computes the widest row exactly only where the prompt runs with the text may compute
    narrower ones with a prefix, which other rows of their batch must not change. Rows that all have
    a prefix are answered one by one.
    """
    prefixes = [row for row, each in enumerate(requests) if is_prefix(each.prompt)]
    others = [row for row, each in enumerate(requests) if not is_prefix(each.prompt)]
    found: dict[int, _Answer] = {}
    for part in [prefixes, others] if others else [[row] for row in prefixes]:
        found.update(zip(part, answer([requests[row] for row in part]), strict=True))
    return [found[row] for row in range(len(requests))]


def widest(requests: Sequence[Request]) -> int:
    """Return the most columns that a batch of rows can have, with their answers."""
    virtual = max(
        (0 if each.prompt is None else each.prompt.length for each in requests), default=0
    )
    return virtual + max((len(each.text.ids) + each.answer for each in requests), default=0)


def share_beginning(base: BaseModel, requests: Sequence[Request]) -> list[Request]:
    """Take the tokens that all texts of the bare base begin with as if they were a prompt.

    Their keys and values are then computed once, which is exact, and many times faster where texts
    follow the same solved examples.

    Args:
        base: A base for which `shares_prefixes` holds.
        requests: All rows of a call.
    """
    bare = [request.text.ids for request in requests if request.prompt is None]
    # Each row retains at least one token, whose logits predict the next one.
    most = min(map(len, bare), default=1) - 1
    columns = zip(*(ids[:most] for ids in bare), strict=True)
    length = sum(1 for _ in takewhile(lambda column: len({*column}) == 1, columns))
    if len(bare) < 2 or length < settings_of(base.device).least_shared:
        return list(requests)
    with torch.no_grad():
        vectors = base.embed(torch.tensor(bare[0][:length]))  # [P, H]
    beginning = LoadedPrompt(vectors, None, tuple(bare[0][:length]))
    return [_continuing(each, beginning, length) for each in requests]


def _continuing(request: Request, beginning: LoadedPrompt, length: int) -> Request:
    if request.prompt is not None:
        return request
    text = EncodedText(request.text.ids[length:], request.text.truncated)
    return replace(request, text=text, prompt=beginning)


def warn_about_truncation(texts: Sequence[EncodedText]) -> None:
    """Warn the caller of a public method how many texts were truncated."""
    truncated = [text.truncated for text in texts if text.truncated]
    if truncated:
        warn_in_phase(
            f"{len(truncated)} of {len(texts)} texts were too long and have been truncated; "
            f"{sum(truncated)} characters at their ends were dropped.",
            stacklevel=4,
        )
