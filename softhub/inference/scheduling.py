"""Which rows run together as one batch, by what forward passes have cost so far."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate


class PassCost:
    """What a forward pass costs besides its tokens, from the passes so far.

    A line is fitted to the seconds of passes over their tokens, with pads, by least squares; older
    passes count less. Where a small pass takes as long as a large one, as on a GPU that waits for
    its next kernel, the fixed part is large, and full batches are best in spite of their pads.
    """

    def __init__(self) -> None:
        # Weight, and weighted sums of x, y, x², xy, where x is tokens and y seconds.
        self._sums = [0.0] * 5

    def observe(self, tokens: int, seconds: float) -> None:
        """Take the time of one more pass."""
        new = (1.0, tokens, seconds, tokens * tokens, tokens * seconds)
        self._sums = [_DECAY * old + each for old, each in zip(self._sums, new, strict=True)]

    @property
    def tokens(self) -> float:
        """How many tokens take as long as the fixed part of a pass."""
        weight, x, y, xx, xy = self._sums
        variance, covariance = weight * xx - x * x, weight * xy - x * y
        if weight < _LEAST_PASSES or variance < _LEAST_SPREAD * weight * xx:
            return _TYPICAL
        if covariance <= 0:  # large passes were no slower than small ones
            return _MOST
        slope = covariance / variance
        return min(_MOST, max(0.0, (y - slope * x) / weight / slope))


_DECAY = 0.98
_LEAST_PASSES, _LEAST_SPREAD = 4, 1e-2  # with less, a line says nothing
_TYPICAL = 64.0  # of a base of 135 million parameters on two cores
_MOST = 1e9


def choose_batch(lengths: Sequence[int], size: int, pass_cost: float) -> list[int]:
    """Return the indices of the rows of the next batch; the first row is always one of them.

    Of the rows in order of their length, it is the run around the first row, which has waited
    longest, whose real tokens make up the largest share of what the batch costs: its tokens with
    pads, and the fixed part of a pass.

    Args:
        lengths: Tokens of each waiting row, the one that has waited longest first.
        size: Maximum number of rows.
        pass_cost: Tokens that take as long as the fixed part of a pass.
    """
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    first = order.index(0)
    before = [0, *accumulate(lengths[index] for index in order)]  # tokens of the rows before each
    best, found = -1.0, (first, first + 1)
    for start in range(max(0, first - size + 1), first + 1):
        for end in range(first + 1, min(len(order), start + size) + 1):
            tokens = before[end] - before[start]
            padded = (end - start) * lengths[order[end - 1]]
            share = tokens / (padded + pass_cost)
            if share > best:
                best, found = share, (start, end)
    return order[slice(*found)]


def split_by_length(lengths: Sequence[int], pass_cost: float) -> list[list[int]]:
    """Divide rows into batches so that all of them together cost the least.

    Args:
        lengths: Tokens of each row.
        pass_cost: Tokens that take as long as the fixed part of a pass.

    Returns:
        The indices of the rows of each batch, in order of their length.
    """
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    # The lowest cost of the first rows in that order, and where their last batch starts.
    lowest = [(0.0, 0)]
    for end, last in enumerate(order, start=1):
        lowest.append(
            min(
                (cost + (end - start) * lengths[last] + pass_cost, start)
                for start, (cost, _) in enumerate(lowest)
            )
        )
    found, end = list[list[int]](), len(order)
    while end:
        start = lowest[end][1]
        found.insert(0, order[start:end])
        end = start
    return found
