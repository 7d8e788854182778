"""Perplexity of reference texts."""

import math
from collections.abc import Sequence

import numpy as np

from softhub.errors import DatasetError
from softhub.metrics.base import Floats, Metric


class Perplexity(Metric):
    """Exponential of the mean negative log-likelihood per token of the reference texts.

    The end-of-sequence token does not count: any text teaches a prompt where to stop.
    """

    name = "perplexity"
    description = "Perplexity per token of the reference texts, without the end of each text."
    kinds = ("generation",)
    input_kind = "log_probabilities"
    greater_is_better = False
    unit = ""

    def statistics(
        self, predictions: Sequence[Sequence[float]], references: Sequence[str]
    ) -> Floats:
        """Return `[N, 2]`: negative log-likelihood, and number of tokens.

        Args:
            predictions: The log-probabilities of each text's tokens; the last is the end's.
            references: The N texts, which do not matter here.

        Raises:
            DatasetError: No text has a token except its end.
        """
        texts = [tokens[:-1] for tokens in predictions]
        if texts and not any(texts):
            raise DatasetError(
                "perplexity: no reference text has a token except its end; expected at least one "
                "text that is not empty"
            )
        return np.array([[-math.fsum(tokens), len(tokens)] for tokens in texts], np.float64)

    def score(self, totals: Floats) -> Floats:
        """Return the exponential of the loss per token."""
        return np.exp(totals[..., 0] / totals[..., 1])
