"""Mixtures of tasks: the share of each task in the batches when one prompt is trained on several.

As in T5 (Raffel et al. 2020, arXiv 1910.10683, section 3.5.2): proportional to size, equal, or in
between by a temperature.
"""

from collections.abc import Mapping

from softhub.errors import TaskError, did_you_mean

_POWERS = {"proportional": 1.0, "temperature": 0.5, "equal": 0.0}  # a temperature of 2
MIXTURES = tuple(_POWERS)


def mixture_weights(sizes: Mapping[str, int], mixture: str = "temperature") -> dict[str, float]:
    """Return the probability that a batch is of each task.

    Args:
        sizes: Number of training examples of each task.
        mixture: `proportional` to the sizes; `equal`; or `temperature`, proportional to the square
            roots of the sizes, so that small tasks are sampled more often than proportionally and
            less often than equally.

    Returns:
        Probabilities by task, which sum to 1.

    Raises:
        TaskError: The mixture is unknown, a task has no examples, or there is no task.
    """
    if mixture not in MIXTURES:
        raise TaskError(f"unknown mixture {mixture!r}{did_you_mean(mixture, MIXTURES)}")
    if not sizes or min(sizes.values()) < 1:
        empty = ", ".join(name for name, size in sizes.items() if size < 1) or "all of them"
        raise TaskError(f"a mixture needs examples of every task; there are none of {empty}")
    shares = {name: size ** _POWERS[mixture] for name, size in sizes.items()}
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()}
