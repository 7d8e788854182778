"""Cells as pandas, numpy and datasets give them: what is no value, and what is one."""

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest

from softhub.errors import DatasetError, SoftHubWarning
from softhub.tasks import DatasetSource, Example, Task
from softhub.tasks.data_files import flatten
from softhub.tasks.drafting import find_source

CLASSES = Task(template="{text} Label:", labels=["a", "b"])
SETS = replace(CLASSES, multilabel=True)
GROUPS = replace(CLASSES, group_column="group")
WRITING = Task(template="Text: {text}\nSummary:\n")
FULL: dict[str, Any] = {"text": "x", "label": "a", "group": "g", "target": "y"}


@pytest.mark.parametrize(
    ("task", "column"),
    [
        *((CLASSES, "text"), (CLASSES, "label"), (SETS, "label"), (GROUPS, "group")),
        *((WRITING, "text"), (WRITING, "target")),
    ],
)
@pytest.mark.parametrize("nothing", [None, math.nan, np.float32("nan")])
def test_nan_is_no_value(task: Task, column: str, nothing: Any) -> None:
    assert len(task.to_examples([FULL])) == 1
    rows = pd.DataFrame([FULL, FULL]).to_dict("records")
    rows[1][column] = nothing
    with pytest.raises(DatasetError, match=rf"rows\[1\]: '{column}' is missing"):
        task.to_examples(rows)


@pytest.mark.parametrize("labels", [[math.nan], ["a", None], [None]])
def test_a_list_of_labels_that_lacks_one_has_no_value(labels: list[Any]) -> None:
    with pytest.raises(DatasetError, match=r"rows\[0\]: 'label' is missing"):
        SETS.to_examples([{**FULL, "label": labels}])


@pytest.mark.parametrize(
    ("task", "column"), [(SETS, "label"), (WRITING, "target"), (GROUPS, "group")]
)
def test_rows_with_nan_are_dropped_where_the_task_says_so(
    tmp_path: Path, task: Task, column: str
) -> None:
    rows = [FULL, {**FULL, column: math.nan}, FULL]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {split: str(tmp_path / "rows.jsonl") for split in ("train", "dev")}
    source = DatasetSource(data_files=files, drop_incomplete=True)
    with pytest.warns(SoftHubWarning, match="1 of 3 rows lack a value"):
        assert len(replace(task, dataset=source).load("train")) == 2


def test_a_class_that_is_missing_among_several_is_told() -> None:
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.Sequence(datasets.ClassLabel(names=["a", "b"])),
        }
    )
    rows = {"text": ["x", "y"], "label": [[0, 1], [0, None]]}
    table = datasets.Dataset.from_dict(rows, features=features)
    with pytest.raises(DatasetError, match=r"rows\[1\]: 'label' is missing"):
        SETS.to_examples(table)


@pytest.mark.parametrize(
    ("value", "name"),
    [(np.int64(1), "1"), (np.bool_(True), "True"), (np.str_("a"), "a"), (np.float32(0.5), "0.5")],
)
def test_scalars_of_numpy_are_values(value: Any, name: str) -> None:
    task = Task(template="{text} Label:", labels=[name, "other"])
    (example,) = task.to_examples([{"text": np.str_("x"), "label": value}])
    assert (example.label, type(example.row["text"])) == (name, str)
    several = replace(task, multilabel=True)
    (example,) = several.to_examples([{"text": "x", "label": np.array([value])}])
    assert example.label == name


def test_examples_know_their_place_and_are_equal_without_it() -> None:
    first, second = CLASSES.to_examples([FULL, FULL])
    assert (first.place, second.place) == ("rows[0]", "rows[1]")
    assert first == second and "rows" not in repr(first)


def test_half_of_a_surrogate_pair_in_a_key_of_the_division_is_told(tmp_path: Path) -> None:
    rows = [{**FULL, "text": f"text {n}"} for n in range(20)] + [{**FULL, "text": "x\ud83d"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = replace(
        CLASSES, dataset=DatasetSource(data_files={"train": str(tmp_path / "rows.jsonl")})
    )
    with (
        pytest.warns(SoftHubWarning, match="no dev split"),
        pytest.raises(DatasetError, match="line 21: 'text' contains half of a surrogate pair"),
    ):
        task.load("train"), task.load("dev")


def test_a_table_without_rows_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pd.DataFrame({"text": [], "label": []}).to_parquet(path)
    task = replace(CLASSES, dataset=DatasetSource(data_files={"train": str(path)}))
    for read in (lambda: task.load("train"), lambda: find_source(str(path))):
        with pytest.raises(DatasetError, match=r"rows\.parquet: is empty"):
            read()


def test_a_nested_column_does_not_replace_another(tmp_path: Path) -> None:
    row = {"a.b": "one", "a": {"b": "two"}}
    with pytest.raises(DatasetError, match=r"column 'a\.b' is there twice"):
        flatten(row)
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DatasetError, match=r"rows\.jsonl, line 1: the column 'a\.b' is there tw"):
        find_source(str(tmp_path / "rows.jsonl"))
    assert flatten({"a": {"b": 1, "c": 2}, "b": 3}) == {"a.b": 1, "a.c": 2, "b": 3}


@pytest.mark.parametrize("task", [CLASSES, SETS])
def test_a_label_that_no_training_row_has_is_told(task: Task) -> None:
    rows = [{**FULL, "text": f"text {n}"} for n in range(8)]
    with pytest.warns(SoftHubWarning, match=r"no row of 1 of the 2 labels .* \('b'\)"):
        task.to_splits({"train": rows, "dev": rows})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task.to_splits({"train": [*rows, {**FULL, "label": "b"}], "dev": rows})
        unlabeled = [Example({"text": f"text {n}"}) for n in range(8)]  # which a teacher answers
        task.to_splits({"train": unlabeled, "dev": unlabeled})
