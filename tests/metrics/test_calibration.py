"""Calibration and scores by label: equal to scikit-learn, to PyTorch, and to counting by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    confusion_matrix,
    multilabel_confusion_matrix,
    precision_recall_fscore_support,
)
from sklearn.preprocessing import MultiLabelBinarizer

from softhub.errors import DatasetError
from softhub.metrics.calibration import (
    expected_calibration_error,
    fit_temperature,
    operating_point,
    threshold_for_accuracy,
)
from softhub.metrics.intervals import bootstrap_interval
from softhub.metrics.per_class import class_report

ANSWERS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40)


def overconfident(size: int = 400, labels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Scores three times as large as those that the answers are drawn by."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(size, labels))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    right = np.array([generator.choice(labels, p=row) for row in chances])
    return 3 * logits, right


def test_temperature_is_what_gradient_descent_finds() -> None:
    scores, right = overconfident()
    found = fit_temperature(scores, right)
    log_temperature = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100)
    logits, labels = torch.tensor(scores), torch.tensor(right)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(logits / log_temperature.exp(), labels)
        value.backward()
        return value

    optimizer.step(loss)
    assert found == pytest.approx(float(log_temperature.detach().exp()), rel=1e-3)
    assert 2.5 < found < 3.5


def test_temperature_stays_in_bounds_where_the_data_says_little() -> None:
    assert fit_temperature([[0.0, -1.0], [-2.0, 0.0]], [0, 1]) == 1
    assert fit_temperature([[0.0, -1.0], [-2.0, 0.0]], [1, 0]) == pytest.approx(20)
    with pytest.raises(DatasetError, match="nothing to calibrate on"):
        fit_temperature(np.zeros((0, 2)), [])


@settings(max_examples=50, deadline=None)
@given(ANSWERS, st.integers(1, 15))
def test_calibration_error_is_what_counting_gives(
    answers: list[tuple[float, bool]], bins: int
) -> None:
    expected = 0.0
    for b in range(bins):
        inside = [
            (sure, right)
            for sure, right in answers
            if b / bins < sure <= (b + 1) / bins or (b == 0 and sure == 0)
        ]
        if inside:
            accuracy = np.mean([right for _, right in inside])
            confidence = np.mean([sure for sure, _ in inside])
            expected += len(inside) / len(answers) * abs(accuracy - confidence)
    sure, right = zip(*answers, strict=True)
    if any(abs(each * bins - round(each * bins)) < 1e-9 and each * bins % 1 for each in sure):
        return  # on an edge but for rounding
    assert expected_calibration_error(sure, right, bins) == pytest.approx(expected, abs=1e-9)


def test_calibration_error_by_hand() -> None:
    assert expected_calibration_error([0.95, 0.95, 0.55, 0.55], [1, 1, 1, 0], 10) == pytest.approx(
        (2 * 0.05 + 2 * 0.05) / 4
    )
    with pytest.raises(DatasetError, match="nothing to measure calibration on"):
        expected_calibration_error([], [])


def test_fitting_lowers_the_error_on_other_examples() -> None:
    scores, right = overconfident(800)
    temperature = fit_temperature(scores[:400], right[:400])

    def error(scale: float) -> float:
        chances = torch.tensor(scores[400:] / scale).softmax(dim=1)
        sure, best = chances.max(dim=1)
        return expected_calibration_error(sure.numpy(), best.numpy() == right[400:])

    assert error(temperature) < error(1) / 2


@settings(max_examples=50, deadline=None)
@given(ANSWERS, st.floats(0, 1))
def test_the_threshold_answers_most_at_the_wanted_accuracy(
    answers: list[tuple[float, bool]], accuracy: float
) -> None:
    sure, right = zip(*answers, strict=True)
    points = [operating_point(sure, right, each) for each in {0.0, *sure}]
    fine = [p for p in points if p.accuracy is not None and p.accuracy >= accuracy]
    found = threshold_for_accuracy(sure, right, accuracy)
    if found is None:
        assert not fine
    else:
        assert found.coverage == max(point.coverage for point in fine)
        assert found.accuracy is not None and found.accuracy >= accuracy


def test_nothing_answered_has_no_accuracy() -> None:
    point = operating_point([0.2, 0.3], [True, False], 0.5)
    assert (point.coverage, point.accuracy) == (0, None)


# --- by label ---

LABELS = ("cat", "dog", "owl")
PAIRS = st.lists(st.tuples(*[st.sampled_from(LABELS)] * 2), min_size=1, max_size=25)


@pytest.mark.filterwarnings("ignore::softhub.errors.SoftHubWarning")
@settings(max_examples=25, deadline=None)
@given(PAIRS)
def test_scores_by_label_are_those_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    predictions, references = ([pair[side] for pair in pairs] for side in (0, 1))
    found = class_report(predictions, references, LABELS, resamples=20)
    expected = precision_recall_fscore_support(
        references, predictions, labels=LABELS, zero_division=0
    )
    for each, *scores, support in zip(found.classes, *expected, strict=True):
        assert [each.precision.value, each.recall.value, each.f1.value] == pytest.approx(scores)
        assert each.support == support
        assert each.predicted == predictions.count(each.label)
        for interval in (each.precision, each.recall, each.f1):
            assert 0 <= interval.low <= interval.high <= 1
    assert found.confusion is not None
    matrix = confusion_matrix(references, predictions, labels=LABELS)
    assert [list(row) for row in found.confusion] == matrix.tolist()


def test_scores_of_sets_are_those_of_scikit_learn() -> None:
    right = ["cat;dog", "", "owl", "cat", "cat;owl"] * 3
    given_ = ["cat", "dog", "owl", "", "cat;owl"] * 3
    found = class_report(given_, right, LABELS, multilabel=True, resamples=20)
    binarizer = MultiLabelBinarizer(classes=LABELS).fit([])
    tables = [binarizer.transform([filter(None, t.split(";")) for t in x]) for x in (right, given_)]
    expected = precision_recall_fscore_support(*tables, zero_division=0)
    counts = multilabel_confusion_matrix(*tables)
    for each, *scores, support in zip(found.classes, *expected, strict=True):
        assert [each.precision.value, each.recall.value, each.f1.value] == pytest.approx(scores)
        assert each.support == support
    assert [each.predicted for each in found.classes] == counts[:, :, 1].sum(axis=1).tolist()
    assert found.confusion is None


def test_intervals_are_of_the_same_resamples_as_those_of_the_metrics() -> None:
    """With two labels of which one is never given, recall of the other is its accuracy."""
    generator = np.random.default_rng(1)
    predictions = [str(each) for each in generator.choice(["cat", "dog"], size=60)]
    references = ["cat"] * 60
    groups = [str(index // 3) for index in range(60)]
    found = class_report(predictions, references, ("cat", "dog"), groups=groups)
    expected = bootstrap_interval(predictions, references, "accuracy", groups=groups)
    assert found.classes[0].recall == expected
    assert found.classes[1].recall == (0, 0, 1)  # nothing is known of a label without examples


def test_the_record_is_plain_json() -> None:
    found = class_report(["cat"] * 12, ["cat", "dog"] * 6, ("cat", "dog"), resamples=20)
    record = found.to_record()
    assert record["confusion"] == ((6, 0), (6, 0))
    assert record["classes"][0]["precision"]["value"] == 0.5
    never = {"value": 0.0, "low": 0.0, "high": 1.96**2 / (6 + 1.96**2)}  # 0 of 6 are found
    assert record["classes"][1]["f1"] == pytest.approx(never, abs=1e-4)
