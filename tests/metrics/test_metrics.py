"""Metrics: equal to scikit-learn's, without the Hub."""

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
    answers = ["passed"] * 2 if name == "pass_at_1" else ["x = f(1) + 2", "y = g(x) - x"]
    assert compute(name, answers, answers) == pytest.approx(1)


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
