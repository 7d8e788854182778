"""Metrics: equal to scikit-learn's, without the Hub."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from softhub.errors import DatasetError, TaskError
from softhub.metrics import METRICS, compute, find_metric

PAIRS = st.lists(st.tuples(*[st.sampled_from(["cat", "dog", "owl"])] * 2), min_size=1, max_size=30)


@settings(max_examples=30, deadline=None)
@given(PAIRS)
def test_accuracy_and_macro_f1_are_those_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    predictions, references = ([pair[side] for pair in pairs] for side in (0, 1))
    assert compute("accuracy", predictions, references) == pytest.approx(
        accuracy_score(references, predictions)
    )
    assert compute("macro_f1", predictions, references) == pytest.approx(
        f1_score(references, predictions, average="macro", zero_division=0)
    )


@settings(max_examples=100, deadline=None)
@given(PAIRS, st.data())
def test_weighted_statistics_score_like_repeated_examples(
    pairs: list[tuple[str, str]], data: st.DataObject
) -> None:
    counts = st.lists(st.integers(0, 3), min_size=len(pairs), max_size=len(pairs))
    weights = np.array(data.draw(counts.filter(any)))
    predictions, references = ([pair[side] for pair in pairs] for side in (0, 1))
    metric = find_metric("macro_f1")
    score = metric.score(weights @ metric.statistics(predictions, references))
    expected = f1_score(
        np.repeat(references, weights), np.repeat(predictions, weights), average="macro"
    )
    assert score == pytest.approx(expected)


def test_macro_f1_by_hand() -> None:
    # a: precision 1, recall 1/2, F1 2/3; b: precision 1/2, recall 1, F1 2/3; c: never right, F1 0.
    assert compute("macro_f1", ["a", "b", "b"], ["a", "a", "b"]) == pytest.approx(2 / 3)
    assert compute("macro_f1", ["a", "c"], ["a", "a"]) == pytest.approx(1 / 3)


def test_exact_match_looks_past_white_space_around_and_nothing_else() -> None:
    generated = [" dyspnea\n", "Dyspnea", "dyspnea.", "short  breath"]
    references = ["dyspnea", "dyspnea", "dyspnea", "short breath"]
    assert compute("exact_match", generated, references) == 0.25


@pytest.mark.parametrize("name", METRICS)
def test_perfect_answers_score_one(name: str) -> None:
    texts = ["x = f(1) + 2", "y = g(x) - x"]
    inputs = {"outcomes": ["passed"] * 2, "log_probabilities": [[0.0, 0.0, -1.0], [0.0, -2.0]]}
    answers = inputs.get(METRICS[name].input_kind, texts)
    right = answers if name == "pass_at_1" else texts
    assert compute(name, answers, right) == pytest.approx(1)


def test_perplexity_is_per_token_and_leaves_the_end_out() -> None:
    scores = [[-1.0, -2.0, -50.0], [-3.0, -50.0]]
    assert compute("perplexity", scores, ["a", "b"]) == pytest.approx(math.exp(2))


def test_a_metric_knows_its_direction_and_its_unit() -> None:
    accuracy, perplexity = find_metric("accuracy"), find_metric("perplexity")
    assert accuracy.heading_with_unit == "accuracy, %"
    assert perplexity.heading_with_unit == "perplexity"
    assert accuracy.format(0.925, 0.9084, 0.9416) == "92.5 (90.8-94.2)"
    assert (accuracy.format(0.925), perplexity.format(14.83, 13.2, 16.5)) == (
        "92.5",
        "14.8 (13.2-16.5)",
    )
    assert max([14.8, 21.6], key=accuracy.goodness) == 21.6
    assert max([14.8, 21.6], key=perplexity.goodness) == 14.8
    assert [name for name in METRICS if not METRICS[name].greater_is_better] == ["perplexity"]


def test_an_unknown_metric_is_refused_with_what_may_have_been_meant() -> None:
    with pytest.raises(TaskError, match="'makro_f1'; did you mean 'macro_f1'"):
        compute("makro_f1", ["a"], ["a"])


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [([], [], "nothing to score"), (["a"], ["a", "b"], "1 predictions and 2 references")],
)
def test_answers_that_cannot_be_scored_are_refused(
    predictions: list[str], references: list[str], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        compute("accuracy", predictions, references)
