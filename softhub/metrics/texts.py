"""Metrics of generated texts, each equal to its library's score divided by 100.

The library counts n-grams. The formula over the counts is written here for arrays, so that a
thousand resamples are scored at once.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from softhub.metrics.base import Floats, Metric
from softhub.metrics.classification import Accuracy


class ExactMatch(Accuracy):
    """Share of generated texts that equal the reference, ignoring surrounding white space."""

    name = "exact_match"
    description = "Share of generated texts that equal the reference, ignoring outer white space."
    kinds = ("generation",)

    def _right(self, prediction: str, reference: str) -> bool:
        return prediction.strip() == reference.strip()


class SacreBleu(Metric):
    """Corpus BLEU as in sacreBLEU (Post 2018): 13a tokenization, exponential smoothing.

    Signature: nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp.
    """

    name = "sacrebleu"
    title = "BLEU"
    description = "Corpus BLEU (sacreBLEU, 13a tokenization), from 0 to 1."
    kinds = ("generation",)

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> Floats:
        """Return `[N, 10]`: length, reference length, matching n-grams (4), all n-grams (4)."""
        from sacrebleu.metrics.bleu import BLEU

        # `force` silences a warning about tokenized input.
        return _counts_of(BLEU(force=True), predictions, references)

    def score(self, totals: Floats) -> Floats:
        """Return brevity penalty times the geometric mean of the n-gram precisions."""
        length, reference_length = totals[..., 0], totals[..., 1]  # [...]
        right, found = totals[..., 2:6], totals[..., 6:10]  # [..., 4]
        # NIST's smoothing: each order without a match counts half as much as the one before.
        halvings = np.cumsum(right == 0, axis=-1)
        smoothed = np.where(right == 0, 0.5**halvings, right)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = np.exp(np.log(smoothed / found).mean(axis=-1))
            penalty = np.exp(np.minimum(0.0, 1 - reference_length / length))
            scores = penalty * mean
        defined = (found > 0).all(axis=-1) & (right > 0).any(axis=-1)
        return np.asarray(np.where(defined, scores, 0.0))


class ChrF(Metric):
    """Corpus chrF2 as in sacreBLEU (Popović 2015): character n-grams of orders 1 to 6.

    Signature: nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no.
    """

    name = "chrf"
    title = "chrF"
    description = "Corpus chrF2 (sacreBLEU), from 0 to 1."
    kinds = ("generation",)

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> Floats:
        """Return `[N, 18]`: for each order the n-grams of the answer, the reference, and both."""
        from sacrebleu.metrics.chrf import CHRF

        return _counts_of(CHRF(), predictions, references)

    def score(self, totals: Floats) -> Floats:
        """Return the F2 of mean precision and mean recall over the orders that occur."""
        # [..., 18] to three times [..., 6]
        found, wanted, both = np.moveaxis(totals.reshape(*totals.shape[:-1], -1, 3), -1, 0)
        occurs = (found > 0) & (wanted > 0)
        orders = np.maximum(occurs.sum(axis=-1), 1)
        precision = (both / np.where(occurs, found, 1) * occurs).sum(axis=-1) / orders
        recall = (both / np.where(occurs, wanted, 1) * occurs).sum(axis=-1) / orders
        weighted = 4 * precision + recall  # beta = 2: recall counts twice as much
        return np.asarray(5 * precision * recall / np.where(weighted > 0, weighted, 1))


def _counts_of(metric: Any, predictions: Sequence[str], references: Sequence[str]) -> Floats:
    """Return the counts of each text from which a sacreBLEU metric computes its score."""
    counts = metric._extract_corpus_statistics(predictions, [references])
    return np.array(counts, dtype=np.float64)


class Rouge(Metric):
    """Mean ROUGE F1 as in rouge-score (Lin 2004), without stemming.

    Its tokens consist of the letters a-z and digits, so it is meant for English.
    """

    kinds = ("generation",)
    _TITLES: ClassVar = {"1": "words", "2": "pairs of words", "L": "the longest common subsequence"}

    def __init__(self, variant: str) -> None:
        """Choose `1`, `2` or `L`."""
        self.name, self.title = f"rouge{variant}", f"ROUGE-{variant}"
        self.description = f"Mean ROUGE-{variant} F1 (rouge-score): {self._TITLES[variant]}."

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> Floats:
        """Return `[N, 2]`: F1, and 1."""
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer([self.name])
        pairs = zip(predictions, references, strict=True)
        scores = [scorer.score(right, found)[self.name].fmeasure for found, right in pairs]
        return np.array([[score, 1.0] for score in scores])

    def score(self, totals: Floats) -> Floats:
        """Return the mean."""
        return np.asarray(totals[..., 0] / totals[..., 1])
