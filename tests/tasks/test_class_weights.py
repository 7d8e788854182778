"""Class weights: scikit-learn's balance, and a mean of 1 over the training examples."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.utils.class_weight import compute_class_weight

from softhub.errors import TaskError
from softhub.tasks import Example, Task, Template, Verbalizer

TASK = Task(
    name="triage",
    kind="classification",
    template=Template("{text}\nUrgency:"),
    verbalizer=Verbalizer.from_mapping({"low": " low", "high": " high", "now": " now"}),
)


def examples(**counts: int) -> list[Example]:
    return [
        Example(row={"text": "x"}, label=label)
        for label, count in counts.items()
        for _ in range(count)
    ]


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    train = examples(low=20, high=5, now=1)
    found = replace(TASK, class_weights="balanced").training_weights(train)
    labels = [example.label for example in train]
    expected = compute_class_weight("balanced", classes=np.array(["low", "high", "now"]), y=labels)
    assert found is not None
    assert list(found) == ["low", "high", "now"]
    assert list(found.values()) == pytest.approx(list(expected))


@pytest.mark.parametrize("weights", ["balanced", {"low": 1, "high": 3, "now": 0.5}])
def test_weights_have_a_mean_of_one_over_the_examples(weights: str | Mapping[str, float]) -> None:
    train = examples(low=7, high=2, now=4)
    found = replace(TASK, class_weights=weights).training_weights(train)
    assert found is not None
    assert np.mean([found[str(example.label)] for example in train]) == pytest.approx(1)
    if isinstance(weights, dict):
        assert found["high"] / found["low"] == pytest.approx(3)


def test_a_label_without_examples_counts_as_one_with_a_single_example() -> None:
    found = replace(TASK, class_weights="balanced").training_weights(examples(low=8, high=1))
    assert found is not None
    assert found["now"] == pytest.approx(found["high"])


def test_without_weights_there_are_none() -> None:
    assert TASK.training_weights(examples(low=1, high=1)) is None


@pytest.mark.parametrize(
    ("weights", "problem"),
    [
        ("balnced", "class_weights: found 'balnced'; expected 'balanced'"),
        ({"low": 1, "hihg": 2}, "no label 'hihg'; did you mean 'high'"),
        ({"low": 1, "high": 2}, "the label 'now' has no weight"),
        ({"low": 1, "high": 2, "now": 0}, "the label 'now' has the weight 0"),
        ({"low": 1, "high": 2, "now": float("nan")}, "the weight nan"),
        ({"low": 1, "high": 2, "now": True}, "'now' has True, expected a number"),
        (3, "class_weights: found 3, expected 'balanced' or a weight for each label"),
        ([1, 2], r"class_weights: found \[1, 2\], expected 'balanced' or a weight for each label"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights: object, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "task.yaml"
    words = {"low": " low", "high": " high", "now": " now"}
    content = {"name": "triage", "kind": "classification", "template": "{text}\nUrgency:"}
    file.write_text(yaml.safe_dump({**content, "verbalizer": words, "class_weights": weights}))
    with pytest.raises(TaskError, match=problem):
        Task.from_file(file)


def test_weights_are_for_training_and_not_in_the_record(tmp_path: Path) -> None:
    task = replace(TASK, class_weights={"low": 1, "high": 2, "now": 4})
    assert "class_weights" not in task.to_record()
    with pytest.raises(TaskError, match="class_weights: does not belong"):
        Task(name="a", kind="generation", template=Template("{text}"), class_weights="balanced")
