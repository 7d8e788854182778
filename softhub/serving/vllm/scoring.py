"""Log-probabilities of label words and of reference texts, by vLLM's engine.

vLLM returns the log-probabilities of chosen tokens at the next position. A word of several tokens
needs that after each of its beginnings: one row of a single token for each beginning that occurs.
All words of a label set share these rows, and the prefix cache shares their text.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from softhub.model.encoding import Candidates
from softhub.serving.vllm.rows import assemble, engine_input
from softhub.serving.vllm.served import ServedPrompt

NextLogprobs = Callable[[Sequence[int], Sequence[int]], Awaitable[dict[int, float]]]
"""Takes the token ids of a text and tokens that may follow, and returns their log-probabilities."""


async def sequence_logprobs(
    next_logprobs: NextLogprobs, ids: Sequence[int], sequences: Sequence[Sequence[int]], most: int
) -> list[list[float]]:
    """Score sequences of tokens as continuations of a text.

    Args:
        next_logprobs: Runs one row of the engine.
        ids: The text.
        sequences: What may follow it; none is empty.
        most: Maximum number of tokens that one row may ask for.

    Returns:
        For each sequence the log-probabilities of its tokens.
    """
    wanted = next_tokens(sequences)
    chunks = [
        (beginning, tokens[start : start + most])
        for beginning, tokens in wanted.items()
        for start in range(0, len(tokens), most)
    ]
    answers = await asyncio.gather(
        *(next_logprobs([*ids, *beginning], tokens) for beginning, tokens in chunks)
    )
    found: dict[tuple[int, ...], dict[int, float]] = {}
    for (beginning, _), answer in zip(chunks, answers, strict=True):
        found.setdefault(beginning, {}).update(answer)
    return [
        [found[tuple(sequence[:i])][token] for i, token in enumerate(sequence)]
        for sequence in sequences
    ]


def next_tokens(sequences: Sequence[Sequence[int]]) -> dict[tuple[int, ...], list[int]]:
    """Return for each proper beginning of the sequences the tokens that follow it in one."""
    wanted: dict[tuple[int, ...], dict[int, None]] = {}
    for sequence in sequences:
        for i, token in enumerate(sequence):
            wanted.setdefault(tuple(sequence[:i]), {})[token] = None
    return {beginning: list(tokens) for beginning, tokens in wanted.items()}


def label_scores(candidates: Candidates, words: Sequence[Sequence[float]]) -> list[float]:
    """Return the score of each label, as `softhub.model.scoring.label_scores` defines it.

    Args:
        candidates: The label words.
        words: For each word the log-probabilities of its tokens.
    """
    of_labels: dict[int, list[float]] = {}
    for owner, word in zip(candidates.owners, words, strict=True):
        of_labels.setdefault(owner, []).append(math.fsum(word))
    scores = [_logsumexp(of_labels[owner]) for owner in range(max(candidates.owners) + 1)]
    if not candidates.yes_no:
        return scores
    return [yes - no for yes, no in zip(scores[0::2], scores[1::2], strict=True)]


def next_logprobs_of(engine: Any, prompt: ServedPrompt, request_id: str) -> NextLogprobs:
    """Return what runs rows with a prompt on vLLM's engine."""
    from vllm.sampling_params import SamplingParams

    count = 0

    async def run(ids: Sequence[int], tokens: Sequence[int]) -> dict[int, float]:
        nonlocal count
        count += 1
        params = SamplingParams(
            temperature=0.0, max_tokens=1, logprob_token_ids=list(tokens), detokenize=False
        )
        inputs = engine_input(assemble(prompt, ids))
        outputs = engine.generate(inputs, params, f"{request_id}-{count}")
        (last,) = [output async for output in outputs if output.finished]
        step = last.outputs[0].logprobs[0]
        return {token: float(step[token].logprob) for token in tokens}

    return run


def _logsumexp(values: Sequence[float]) -> float:
    most = max(values)
    return most + math.log(math.fsum(math.exp(value - most) for value in values))
