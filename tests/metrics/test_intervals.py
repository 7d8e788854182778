"""Intervals: known by hand, by the normal approximation, and by their coverage."""

import math
import warnings

import numpy as np
import pytest

from softhub.errors import DatasetError, SoftHubWarning
from softhub.metrics import compute
from softhub.metrics.intervals import Interval, Resamples, bootstrap_interval, paired_difference

RNG = np.random.default_rng(7)


def _answers(correct: np.ndarray) -> tuple[list[str], list[str]]:
    """Predictions and references of two labels that are right where `correct` says so."""
    references = ["yes" if number % 2 else "no" for number in range(len(correct))]
    flipped = {"yes": "no", "no": "yes"}
    pairs = zip(references, correct, strict=True)
    return [right if hit else flipped[right] for right, hit in pairs], references


def _width(interval: Interval) -> float:
    return interval.high - interval.low


def test_two_groups_by_hand() -> None:
    # One group all right, one all wrong: resamples score 0, 1/2, 1/2, 1 with equal probability.
    predictions, references = _answers(np.array([1, 1, 0, 0]))
    with pytest.warns(SoftHubWarning, match="over 2 independent groups is only a rough estimate"):
        interval = bootstrap_interval(predictions, references, "accuracy", ["a", "a", "b", "b"])
    assert interval == Interval(0.5, 0.0, 1.0)


def test_accuracy_agrees_with_the_normal_approximation() -> None:
    correct = np.arange(1000) % 10 < 8
    interval = bootstrap_interval(*_answers(correct), "accuracy", resamples=4000)
    half = 1.96 * np.sqrt(0.8 * 0.2 / 1000)
    assert interval.value == 0.8
    assert interval.low == pytest.approx(0.8 - half, abs=0.003)
    assert interval.high == pytest.approx(0.8 + half, abs=0.003)


def test_macro_f1_has_the_value_of_the_metric_inside_its_interval() -> None:
    predictions, references = _answers(np.arange(300) % 7 > 0)
    interval = bootstrap_interval(predictions, references, "macro_f1")
    assert interval.value == pytest.approx(compute("macro_f1", predictions, references))
    assert interval.low < interval.value < interval.high


def test_groups_that_agree_widen_the_interval_as_theory_says() -> None:
    # Ten equal answers in each group are worth one: the standard error grows by sqrt(10).
    correct = np.repeat(RNG.random(200) < 0.8, 10)
    groups = [f"review {number // 10}" for number in range(2000)]
    alone = bootstrap_interval(*_answers(correct), "accuracy", resamples=4000)
    grouped = bootstrap_interval(*_answers(correct), "accuracy", groups, resamples=4000)
    assert _width(grouped) / _width(alone) == pytest.approx(np.sqrt(10), rel=0.08)


def test_groups_of_one_change_nothing() -> None:
    answers = _answers(RNG.random(100) < 0.7)
    alone = bootstrap_interval(*answers, "accuracy")
    assert bootstrap_interval(*answers, "accuracy", [str(n) for n in range(100)]) == alone
    assert bootstrap_interval(*answers, "accuracy", [None] * 100) == alone


def test_ninety_five_intervals_in_a_hundred_hold_the_truth() -> None:
    held = 0
    for trial in range(400):
        correct = np.random.default_rng(trial).random(200) < 0.8
        interval = bootstrap_interval(*_answers(correct), "accuracy", resamples=400, seed=trial)
        held += interval.low <= 0.8 <= interval.high
    assert 0.92 <= held / 400 <= 0.98


def test_the_same_seed_gives_the_same_interval() -> None:
    answers = _answers(RNG.random(500) < 0.7)
    first = bootstrap_interval(*answers, "macro_f1", seed=1)
    assert bootstrap_interval(*answers, "macro_f1", seed=1) == first
    assert bootstrap_interval(*answers, "macro_f1", seed=2) != first


def test_enough_groups_are_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bootstrap_interval(*_answers(np.ones(10)), "accuracy")


@pytest.mark.parametrize(
    ("predictions", "references", "groups", "message"),
    [
        ([], [], None, "nothing to score"),
        (["a"], ["a", "b"], None, "1 predictions and 2 references"),
        (["a", "b"], ["a", "b"], ["g"], "1 groups for 2 examples"),
    ],
)
def test_lengths_that_do_not_match_are_refused(
    predictions: list[str], references: list[str], groups: list[str] | None, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        bootstrap_interval(predictions, references, "accuracy", groups)


def test_a_paired_difference_agrees_with_the_normal_approximation() -> None:
    # 60 examples only A has right, 30 only B: the paired standard error counts these alone.
    a, b = np.ones(1000), np.ones(1000)
    a[:30], b[30:90] = 0, 0
    interval = paired_difference(a, b, resamples=4000)
    half = 1.96 * np.sqrt(90 - 30**2 / 1000) / 1000
    assert interval.value == pytest.approx(0.03)
    assert interval.low == pytest.approx(0.03 - half, abs=0.0015)
    assert interval.high == pytest.approx(0.03 + half, abs=0.0015)


def test_systems_that_agree_may_still_differ_as_tango_says() -> None:
    # No text on which only one is right: Tango's score interval is z² / (n + z²) to both sides.
    correct = np.arange(100) % 5 > 0
    reach = 1.96**2 / (100 + 1.96**2)
    interval = paired_difference(correct, correct)
    assert (interval.value, interval.low, interval.high) == pytest.approx(
        (0, -reach, reach), abs=1e-5
    )


@pytest.mark.parametrize("size", [1, 5, 20, 300])
@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "multilabel_micro_f1", "rougeL"])
def test_all_right_and_all_wrong_have_the_interval_of_wilson(metric: str, size: int) -> None:
    right, wrong = ["yes"] * size, ["no"] * size
    reach = 1.96**2 / (size + 1.96**2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SoftHubWarning)
        best, worst = (bootstrap_interval(given, right, metric) for given in (right, wrong))
    assert best == pytest.approx((1, 1 - reach, 1), abs=1e-5)
    assert worst == pytest.approx((0, 0, reach), abs=1e-5)


def test_a_group_is_one_text_at_the_edge_too() -> None:
    answers, groups = _answers(np.ones(100)), [str(number // 5) for number in range(100)]
    assert bootstrap_interval(*answers, "accuracy", groups).low == pytest.approx(0.8389, abs=1e-4)


@pytest.mark.parametrize("size", [5, 10, 20, 50])
@pytest.mark.parametrize("rate", [0.5, 0.8, 0.95, 0.99])
def test_intervals_hold_the_truth_at_the_edge_and_for_few_texts(size: int, rate: float) -> None:
    held = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SoftHubWarning)
        for right in range(size + 1):
            chance = math.comb(size, right) * rate**right * (1 - rate) ** (size - right)
            interval = bootstrap_interval(*_answers(np.arange(size) < right), "accuracy")
            held += chance * (interval.low <= rate <= interval.high)
    assert held >= 0.93


def test_differences_hold_the_truth_at_the_edge() -> None:
    held = 0
    for trial in range(300):
        a, b = np.random.default_rng(trial).random((2, 20)) < np.array([[0.97], [0.93]])
        interval = paired_difference(a, b, resamples=200)
        held += interval.low <= 0.04 <= interval.high
    assert held / 300 >= 0.93


def test_a_metric_without_bounds_keeps_the_bootstrap() -> None:
    tokens = [[-1.0 - number / 10, 0.0] for number in range(20)]
    interval = bootstrap_interval(tokens, [""] * 20, "perplexity")
    assert interval.low < interval.value < interval.high < np.exp(3)


def test_seeds_by_hand() -> None:
    # Two of three trainings are always right. Of three drawn, all are wrong with 1/27 and all are
    # right with 8/27, so the interval reaches both ends although all examples agree.
    a = np.array([[1.0] * 20, [0.0] * 20, [1.0] * 20])
    interval = paired_difference(a, np.zeros(20))
    assert interval.value == pytest.approx(2 / 3)
    assert (interval.low, interval.high) == pytest.approx((0.0, 1.0))


def test_seeds_that_disagree_widen_the_interval() -> None:
    base = RNG.random(1000) < 0.8
    alike = np.stack([RNG.random(1000) < 0.9] * 3)
    apart = np.stack([RNG.random(1000) < share for share in (0.8, 0.9, 1.0)])
    assert _width(paired_difference(apart, base)) > 2 * _width(paired_difference(alike, base))


def test_both_sides_may_have_seeds_and_not_equally_many() -> None:
    a = np.stack([RNG.random(500) < 0.9 for _ in range(3)])
    b = np.stack([RNG.random(500) < 0.6 for _ in range(2)])
    interval = paired_difference(a, b)
    assert interval.value == pytest.approx(a.mean() - b.mean())
    swapped = paired_difference(b, a)
    assert (swapped.value, swapped.low, swapped.high) == pytest.approx(
        (-interval.value, -interval.high, -interval.low), abs=0.01
    )


def test_groups_widen_a_difference_too() -> None:
    a = np.repeat(RNG.random(100) < 0.9, 10)
    b = np.repeat(RNG.random(100) < 0.7, 10)
    groups = [str(number // 10) for number in range(1000)]
    assert _width(paired_difference(a, b, groups)) > 2.5 * _width(paired_difference(a, b))


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([], [], "at least one"),
        ([1, 0], [1], "A has scores of 2 examples and B of 1"),
        (np.ones((2, 2, 2)), np.ones(2), r"shape \(2, 2, 2\)"),
    ],
)
def test_scores_that_cannot_be_compared_are_refused(a: object, b: object, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        paired_difference(a, b)  # type: ignore[arg-type]


def test_a_difference_of_any_metric_is_paired_and_crossed_with_runs() -> None:
    # With accuracy, which has both ways, the general one gives the same interval.
    references = _answers(np.ones(600))[1]
    runs = {"a": [RNG.random(600) < 0.9 for _ in range(3)], "b": [RNG.random(600) < 0.8]}
    answers = {name: [_answers(run)[0] for run in of_name] for name, of_name in runs.items()}
    groups = [str(number // 5) for number in range(600)]
    draws = Resamples(600, groups)
    a, b = (draws.score(answers[name], references, "accuracy") for name in ("a", "b"))
    assert (a - b).interval() == paired_difference(np.stack(runs["a"]), np.stack(runs["b"]), groups)


def test_runs_that_predict_other_labels_have_a_macro_f1_in_common() -> None:
    references = ["yes", "no"] * 50
    runs = [["yes"] * 100, ["maybe"] * 100, references]
    resampled = Resamples(100).score(runs, references, "macro_f1")
    each = [compute("macro_f1", run, references) for run in runs]
    assert resampled.value == pytest.approx(np.mean(each))
    assert (resampled - resampled).value == 0


def test_nothing_is_not_resampled() -> None:
    with pytest.raises(DatasetError, match="nothing to score"):
        Resamples(0)
