"""Sets of labels: how they are read, spelled and scored."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from datasets import ClassLabel, Dataset, Features, Sequence, Value
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from softhub.errors import DatasetError, TaskError
from softhub.metrics import compute, find_metric
from softhub.metrics.label_sets import join_labels, split_labels
from softhub.tasks import Example, Task, Template, Verbalizer
from softhub.tasks.decision import Decision

LABELS = ("price", "sound", "battery")
TASK = Task(
    name="aspects",
    kind="classification",
    multilabel=True,
    template=Template("Review: {text}\nAbout the"),
    verbalizer=Verbalizer.from_mapping({label: f" {label}?" for label in LABELS}),
    label_column="aspects",
)
SETS = st.frozensets(st.sampled_from(LABELS))
PAIRS = st.lists(st.tuples(SETS, SETS), min_size=1, max_size=20)


def spelled(sets: list[Any]) -> list[str]:
    return [join_labels(labels, LABELS) for labels in sets]


def test_a_set_is_spelled_in_one_way() -> None:
    assert join_labels({"battery", "price"}, LABELS) == "price;battery"
    assert join_labels([], LABELS) == ""
    assert split_labels("price; battery") == ("price", "battery")
    assert split_labels(" ") == ()


def score(name: str, predictions: list[str], references: list[str]) -> float:
    metric = find_metric(name)
    return float(metric.score(metric.statistics(predictions, references).sum(axis=0)))


@settings(max_examples=40, deadline=None)
@given(PAIRS)
def test_metrics_are_those_of_scikit_learn(pairs: list[tuple[Any, Any]]) -> None:
    predictions, references = ([pair[side] for pair in pairs] for side in (0, 1))
    binarizer = MultiLabelBinarizer(classes=LABELS).fit([])
    right, chosen = binarizer.transform(references), binarizer.transform(predictions)
    texts = spelled(predictions), spelled(references)
    assert score("accuracy", *texts) == pytest.approx(accuracy_score(right, chosen))
    occurring = [i for i in range(len(LABELS)) if (right | chosen)[:, i].any()]
    for average in ("micro", "macro") if occurring else ():
        expected = f1_score(right, chosen, average=average, labels=occurring, zero_division=0)
        assert score(f"multilabel_{average}_f1", *texts) == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(PAIRS, st.data())
@pytest.mark.parametrize("average", ["micro", "macro"])
def test_weighted_statistics_score_like_repeated_examples(
    average: str, pairs: list[tuple[Any, Any]], data: st.DataObject
) -> None:
    counts = st.lists(st.integers(0, 3), min_size=len(pairs), max_size=len(pairs))
    weights = np.array(data.draw(counts.filter(any)))
    predictions, references = (spelled([pair[side] for pair in pairs]) for side in (0, 1))
    metric = find_metric(f"multilabel_{average}_f1")
    found = metric.score(weights @ metric.statistics(predictions, references))
    repeated = [list(np.repeat(texts, weights)) for texts in (predictions, references)]
    assert found == pytest.approx(score(metric.name, *repeated))


def test_no_label_at_all_is_a_right_answer() -> None:
    for name in ("accuracy", "multilabel_micro_f1", "multilabel_macro_f1"):
        assert compute(name, ["", ""], ["", ""]) == 1


# --- data ---


def write(folder: Path, name: str, content: str) -> Task:
    (folder / name).write_text(content)
    dataset = {"data_files": {"test": name}}
    task = {"name": "aspects", "kind": "classification", "multilabel": True, "dataset": dataset}
    task |= {"template": TASK.template.text, "label_column": "aspects"}
    task["verbalizer"] = {label: f" {label}?" for label in LABELS}
    (folder / "task.yaml").write_text(yaml.safe_dump(task, sort_keys=False))
    return Task.from_file(folder / "task.yaml")


def lines(*answers: object) -> str:
    return "".join(json.dumps({"text": "x", "aspects": answer}) + "\n" for answer in answers)


def test_labels_are_read_from_lists_and_from_cells(tmp_path: Path) -> None:
    task = write(tmp_path, "rows.jsonl", lines(["battery", "price"], [], ["sound"]))
    assert [e.label for e in task.load("test")] == ["price;battery", "", "sound"]
    task = write(tmp_path, "rows.csv", "text,aspects\nx,battery; price\nx,\nx,sound\n")
    assert [e.label for e in task.load("test")] == ["price;battery", "", "sound"]


def test_labels_of_the_hub_are_numbers_with_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = Features(
        {"text": Value("string"), "aspects": Sequence(ClassLabel(names=list(LABELS)))}
    )
    rows = Dataset.from_dict({"text": ["x", "y"], "aspects": [[2, 0], []]}, features=features)
    rows.to_parquet(tmp_path / "rows.parquet")
    task = write(tmp_path, "unused.jsonl", lines([]))
    assert task.dataset is not None
    files = {"test": str(tmp_path / "rows.parquet")}
    task = replace(task, dataset=replace(task.dataset, data_files=files))
    assert [e.label for e in task.load("test")] == ["price;battery", ""]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (["pirce"], r"line 1: 'aspects' is 'pirce'; expected one of 'price'"),
        (3, r"line 1: 'aspects' is 3; expected a list of labels"),
        (None, r"line 1: 'aspects' is missing; fill it or drop the row"),
        (["price", None], r"line 1: 'aspects' is missing; fill it or drop the row"),
        (float("nan"), r"line 1: 'aspects' is missing; fill it or drop the row"),
    ],
)
def test_what_is_no_set_of_labels_is_refused(answer: object, problem: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=problem):
        write(tmp_path, "rows.jsonl", lines(answer)).load("test")


def test_balanced_weights_are_negatives_over_positives() -> None:
    train = [Example({"text": "x"}, label=label) for label in ("price", "price;sound", "", "price")]
    found = replace(TASK, class_weights="balanced").training_weights(train)
    assert found == {"price": 1 / 3, "sound": 3, "battery": 4}
    given_weights = {"price": 1, "sound": 2, "battery": 5}
    assert replace(TASK, class_weights=given_weights).training_weights(train) == given_weights


# --- the task ---


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"metrics": ("macro_f1",)}, "macro_f1 does not support multilabel; use accuracy, multil"),
        ({"yes_no": (" yes",)}, "yes_no: found .* expected two words"),
        ({"yes_no": (" yes ", " no")}, "yes_no: found .* expected two words"),
        ({"yes_no": (" yes", "yes")}, "yes_no: found ' yes' twice"),
        (
            {"verbalizer": Verbalizer.from_mapping({"a;b": " a", "c": " c"})},
            "the label 'a;b' contains ';'",
        ),
        ({"multilabel": False, "yes_no": (" ja", " nein")}, "yes_no: is for multi-label tasks"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(TaskError, match=problem):
        replace(TASK, **changes)


def test_multilabel_metrics_are_not_for_single_labels() -> None:
    with pytest.raises(TaskError, match="multilabel_micro_f1 does not support classification"):
        replace(TASK, multilabel=False, metrics=("multilabel_micro_f1",))
    with pytest.raises(TaskError, match="multilabel and decision are for classification"):
        Task(name="a", kind="generation", template=Template("{text}"), multilabel=True)


def test_the_record_keeps_what_predict_needs_and_only_where_it_is_in_use() -> None:
    decision = Decision(temperature=1.5, threshold=0.4, abstain_below=0.7)
    task = replace(TASK, label_column=None, yes_no=(" ja", " nein"), decision=decision)
    assert Task.from_record(json.loads(json.dumps(task.to_record()))) == task
    plain = replace(TASK, multilabel=False)
    assert not {"multilabel", "yes_no", "decision"} & set(plain.to_record())


@pytest.mark.parametrize(
    ("decision", "problem"),
    [
        ({"temprature": 1}, "decision: unknown key 'temprature'; did you mean 'temperature'"),
        ({"temperature": 0}, "temperature is 0; expected a positive number"),
        ({"temperature": "hot"}, "temperature is 'hot'; expected a number"),
        ({"threshold": 1}, "threshold is 1; expected a number between 0 and 1"),
        ({"abstain_below": 80}, "abstain_below is 80; expected a number from 0 to 1"),
    ],
)
def test_a_rule_out_of_range_is_refused(decision: dict[str, Any], problem: str) -> None:
    record = {**replace(TASK, label_column=None).to_record(), "decision": decision}
    with pytest.raises(TaskError, match=problem):
        Task.from_record(record)
