"""Which rows run together as one batch, by what forward passes have cost so far."""

from __future__ import annotations

from collections.abc import Sequence


class PassCost:
    """What a forward pass costs besides its tokens, from the passes so far.

    A line is fitted to the seconds of passes over their tokens, with pads, by least squares of
    relative errors, since whatever else a machine does slows a large pass by more seconds than a
    small one; older passes count less. Where a small pass takes as long as a large one, as on a GPU
    that waits for its next kernel, the fixed part is large, and full batches are best in spite of
    their pads.
    """

    def __init__(self) -> None:
        # Weight, and weighted sums of x, y, x², xy, where x is 1 / tokens and y seconds / tokens:
        # the slope of y over x is the fixed part of a pass, and the intercept a token's part.
        self._sums = [0.0] * 5

    def observe(self, tokens: int, seconds: float) -> None:
        """Take the time of one more pass; one over no tokens says nothing."""
        if not tokens:
            return
        x, y = 1 / tokens, seconds / tokens
        new = (1.0, x, y, x * x, x * y)
        self._sums = [_DECAY * old + each for old, each in zip(self._sums, new, strict=True)]

    @property
    def tokens(self) -> float:
        """How many tokens take as long as the fixed part of a pass."""
        weight, x, y, xx, xy = self._sums
        variance, covariance = weight * xx - x * x, weight * xy - x * y
        if weight < _LEAST_PASSES or variance < _LEAST_SPREAD * weight * xx:
            return _TYPICAL
        fixed = covariance / variance
        of_token = (y - fixed * x) / weight
        if of_token <= 0:  # large passes were no slower than small ones
            return _MOST
        return min(_MOST, max(0.0, fixed / of_token))


_DECAY = 0.98
_LEAST_PASSES, _LEAST_SPREAD = 4, 1e-2  # with less, a line says nothing
_TYPICAL = 64.0  # of a base of 135 million parameters on two cores
_MOST = 1e9


def choose_batch(lengths: Sequence[int], size: int, pass_cost: float) -> list[int]:
    """Return the indices of the rows of the next batch: of `split_by_length`, that of the first.

    Args:
        lengths: Tokens of each waiting row, the one that has waited longest first.
        size: Maximum number of rows.
        pass_cost: Tokens that take as long as the fixed part of a pass.
    """
    return next(rows for rows in split_by_length(lengths, size, pass_cost) if 0 in rows)


def split_by_length(lengths: Sequence[int], size: int, pass_cost: float) -> list[list[int]]:
    """Divide rows into batches so that all of them together cost the least.

    A batch costs its tokens, with pads, and the fixed part of a pass.

    Args:
        lengths: Tokens of each row.
        size: Maximum number of rows of a batch.
        pass_cost: Tokens that take as long as the fixed part of a pass.

    Returns:
        The indices of the rows of each batch, in order of their length.
    """
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    # The lowest cost of the first rows in that order, and where their last batch starts.
    lowest = [(0.0, 0)]
    for end, last in enumerate(order, start=1):
        costs = (
            (lowest[start][0] + (end - start) * lengths[last] + pass_cost, start)
            for start in reversed(range(max(0, end - size), end))
        )
        # Of equal costs that of the latest start, so that batches are full from the first row on.
        lowest.append(min(costs, key=lambda cost: cost[0]))
    found, end = list[list[int]](), len(order)
    while end:
        start = lowest[end][1]
        found.insert(0, order[start:end])
        end = start
    return found
