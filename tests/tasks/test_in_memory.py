"""Tasks without a file: plain values, rows in memory, and all splits at once."""

import json
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest

from softhub.errors import DatasetError, SoftHubWarning, TaskError
from softhub.tasks import DatasetSource, Example, Splits, Task, Template, Verbalizer
from softhub.tasks.sampling import choose_per_label

TEMPLATE = "Review: {text}\nSentiment:"
LABELS = ["negative", "positive"]
ROWS = [{"text": f"review {n}", "label": LABELS[n % 2], "author": f"a{n // 4}"} for n in range(40)]


@pytest.fixture
def task() -> Task:
    return Task(template=TEMPLATE, labels=LABELS)


@pytest.fixture(autouse=True)
def no_warnings() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error", SoftHubWarning)
        yield


def test_a_template_and_labels_make_a_classification(task: Task) -> None:
    assert (task.name, task.kind) == ("classification", "classification")
    assert (task.text_column, task.label_column) == ("text", "label")
    assert task.template == Template(TEMPLATE)
    assert task.verbalizer == Verbalizer.from_mapping(
        {"negative": " negative", "positive": " positive"}
    )
    assert Task.from_record(task.to_record()).to_record() == task.to_record()


def test_a_template_alone_makes_a_generation() -> None:
    task = Task(template="English: {english}\nFrench:\n", hard_templates=["{english} in French:\n"])
    assert (task.name, task.kind, task.verbalizer) == ("generation", "generation", None)
    assert (task.text_column, task.target_column) == ("english", "target")
    assert task.hard_templates == (Template("{english} in French:\n"),)


def test_labels_may_bring_their_words() -> None:
    task = Task(template=TEMPLATE, labels={"1": " great", "0": [" bad", " awful"]})
    assert task.verbalizer is not None
    assert task.verbalizer.labels == ("1", "0")
    assert task.verbalizer.words_of("0") == (" bad", " awful")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"labels": ["VERY_GOOD", "so-so"]}, (" very good", " so so")),
        ({"labels": ["a", "b"], "multilabel": True}, (" a?", " b?")),
        ({"labels": ["a", "b"], "system": "Answer with a letter."}, ("a", "b")),
    ],
)
def test_names_of_labels_become_words_as_running_text_has_them(
    settings: dict[str, Any], words: tuple[str, ...]
) -> None:
    task = Task(template=TEMPLATE, **settings)
    assert task.verbalizer is not None
    assert tuple(word for _, (word,) in task.verbalizer.words) == words


def test_a_task_with_another_verbalizer_or_template_is_still_sound(task: Task) -> None:
    words = Verbalizer.from_mapping({"no": " bad", "yes": " good"})
    assert replace(task, verbalizer=words).verbalizer == words
    assert replace(task, template=Template("{text} It is")).verbalizer == task.verbalizer


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": LABELS, "kind": "generation"}, "labels: does not belong to .* generation"),
        ({"labels": ["only"]}, "labels: .*expected at least two"),
        ({"labels": "positive"}, "labels: found 'positive'.*expected a list of labels"),
        ({"labels": [0, 1]}, "labels: found 0, expected text"),
        ({"labels": ["a", "b"], "verbalizer": Verbalizer.from_mapping({"a": " a", "b": " b"})},
         "labels: found together with a verbalizer.*only one of the two"),
        ({"template": 5}, "template: found 5, expected text"),
        ({"hard_templates": "{text}"}, "hard_templates: found '{text}'; expected a list"),
        ({"labels": LABELS, "metrics": "accuracy"}, "metrics: found 'accuracy'; expected a list"),
        ({"template": "{text} of {author}\nMood:", "text_column": "review"}, "0 times"),
        ({"template": "{title}: {review}\nMood:"}, r"template: .*\{text\} 0 times.*'text'"),
        ({"kind": "clasification"}, "unknown kind .*did you mean 'classification'"),
    ],
)  # fmt: skip
def test_plain_values_that_make_no_task_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Task(**{"template": TEMPLATE, **settings})


def test_a_task_file_may_name_labels_too(tmp_path: Path) -> None:
    content = "name: mood\nkind: classification\nlabels: [bad, good]\ntemplate: '{text} It is'\n"
    (tmp_path / "task.yaml").write_text(content)
    task = Task.from_file(tmp_path / "task.yaml")
    assert task.verbalizer == Verbalizer.from_mapping({"bad": " bad", "good": " good"})
    (tmp_path / "task.yaml").write_text(content.replace("[bad, good]", "{bad: ' bad', no: ' no'}"))
    with pytest.raises(TaskError, match=r"task.yaml: labels: found False, .* in quotes"):
        Task.from_file(tmp_path / "task.yaml")


def test_rows_become_examples(task: Task) -> None:
    expected = [Example(row={"text": row["text"]}, label=row["label"]) for row in ROWS]
    assert task.to_examples(ROWS) == expected
    assert task.to_examples(datasets.Dataset.from_list(ROWS)) == expected
    assert task.to_examples(expected) == expected
    assert task.to_examples([]) == []


def test_classes_of_a_dataset_give_the_labels_their_names(task: Task) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=LABELS)}
    )
    rows = {"text": ["a", "b", "c"], "label": [1, 0, 1]}
    table = datasets.Dataset.from_dict(rows, features=features)
    assert [example.label for example in task.to_examples(table)] == [
        "positive",
        "negative",
        "positive",
    ]
    unlabelled = datasets.Dataset.from_dict({"text": ["a"], "label": [-1]}, features=features)
    with pytest.raises(DatasetError, match=r"rows\[0\]: has no label \(-1\)"):
        task.to_examples(unlabelled)


def test_columns_within_a_column_have_dotted_names() -> None:
    task = Task(template="{translation.en}\nFrench:\n", target_column="translation.fr")
    table = datasets.Dataset.from_list([{"translation": {"en": "yes", "fr": "oui"}}])
    assert (
        task.to_examples(table)
        == task.to_examples(table.to_list())
        == [Example(row={"translation.en": "yes"}, target="oui", text_column="translation.en")]
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a", "lable": "positive"}, r"rows\[1\]: 'label' is missing"),
        ({"text": "a\ud83d", "label": "positive"}, r"rows\[1\]: 'text' contains half of a surr"),
        ({"text": "a", "label": "good"}, r"rows\[1\]: 'label' is 'good'; expected one of 'neg"),
        ({"text": None, "label": "positive"}, r"rows\[1\]: 'text' is missing"),
        ({"text": [1], "label": "positive"}, r"rows\[1\]: 'text' was read as list; expected"),
        ("positive", r"rows\[1\]: found 'positive' \(str\); expected dicts.*or only Examples"),
    ],
)
def test_a_row_that_is_no_example_is_refused_with_its_place(
    task: Task, row: Any, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        task.to_examples([ROWS[0], row])
    with pytest.raises(DatasetError, match=message.replace("rows", "train")):
        task.to_splits({"train": [ROWS[0], row]})


def test_a_column_that_no_row_has_is_refused(task: Task) -> None:
    with pytest.raises(DatasetError, match=r"rows: has no column 'label'.*are text, lable"):
        task.to_examples([{"text": "a", "lable": "positive"}])


def test_splits_come_in_any_form(task: Task) -> None:
    train, dev, test = ROWS[:20], ROWS[20:30], ROWS[30:]
    splits = task.to_splits({"train": train, "dev": dev, "test": test})
    assert splits == Splits(*map(task.to_examples, (train, dev, test)))
    assert task.to_splits(splits) is splits
    tables = datasets.DatasetDict(
        {
            "train": datasets.Dataset.from_list(train),
            "validation": datasets.Dataset.from_list(dev),
            "test": datasets.Dataset.from_list(test),
        }
    )
    assert task.to_splits(tables) == splits
    assert task.to_splits({"train": train, "dev": dev}).test == []


@pytest.mark.parametrize("column", ["text", "author"])
def test_without_dev_train_is_divided_as_that_of_a_file_is(
    tmp_path: Path, task: Task, column: str
) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    task = replace(task, group_column="author" if column == "author" else None)
    on_file = replace(task, dataset=DatasetSource(data_files={"train": str(file)}))
    with pytest.warns(
        SoftHubWarning, match=f"so 4 of 40 rows .*a tenth of the groups by '{column}'"
    ):
        splits = task.to_splits({"train": ROWS})
    with pytest.warns(SoftHubWarning, match="no dev split"):
        assert splits == Splits(on_file.load("train"), on_file.load("dev"), [])
    assert {len(splits.train), len(splits.dev)} == {36, 4}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"test": ROWS}, "no train split, only test"),
        ({"train": ROWS, "tets": ROWS}, "unknown split 'tets'; did you mean 'test'"),
        ({"train": ROWS, "dev": ROWS, "validation": ROWS}, "both dev and validation"),
        ({"train": []}, "train: is empty; expected at least one row"),
        ({"train": ROWS, "dev": []}, "dev: is empty; expected at least one row"),
        (ROWS, r"found list; expected Splits, or a mapping of 'train'"),
    ],
)
def test_splits_that_cannot_be_trained_on_are_refused(task: Task, data: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        task.to_splits(data)


@pytest.fixture
def filed(tmp_path: Path) -> Task:
    files, unseen = {}, [{**row, "text": f"Unseen: {row['text']}"} for row in ROWS[:10]]
    for split, rows in {"train": ROWS, "dev": ROWS[:20], "test": unseen}.items():
        files[split] = str(tmp_path / f"{split}.jsonl")
        Path(files[split]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Task(
        template=TEMPLATE,
        labels=LABELS,
        label_column="label",
        dataset=DatasetSource(data_files=files),
    )


def test_all_splits_are_loaded_at_once(filed: Task) -> None:
    every = filed.load_splits()
    assert every == Splits(*(filed.load(split) for split in Splits._fields))
    some = filed.load_splits({"train": 30, "test": 5, "dev": None})
    assert some == Splits(filed.load("train", limit=30), every.dev, filed.load("test", limit=5))


def test_so_many_examples_of_each_label(filed: Task) -> None:
    few = filed.load_splits({"train": 30}, per_label=3, seed=1)
    for split in (few.train, few.dev):
        assert Counter(example.label for example in split) == {"negative": 3, "positive": 3}
    assert len(few.test) == 10
    assert set(map(str, few.train)) <= set(map(str, filed.load("train", limit=30)))
    assert few == filed.load_splits({"train": 30}, per_label=3, seed=1)
    assert few.train != filed.load_splits({"train": 30}, per_label=3, seed=2).train


def test_at_most_so_many_of_each_label_and_the_others_are_named(task: Task) -> None:
    rows = [{"text": f"review {n}", "label": LABELS[n < 2]} for n in range(40)]
    splits = task.to_splits({"train": rows, "dev": rows[:9]})
    chosen = choose_per_label(task, splits.train, 8, seed=0)
    assert Counter(example.label for example in chosen) == {"negative": 8, "positive": 2}


def test_a_label_with_fewer_rows_than_requested_is_named(filed: Task) -> None:
    with pytest.warns(SoftHubWarning) as caught:
        few = filed.load_splits(per_label=15)
    assert Counter(example.label for example in few.train) == {"negative": 15, "positive": 15}
    assert Counter(example.label for example in few.dev) == {"negative": 10, "positive": 10}
    (message,) = map(str, (each.message for each in caught))
    assert "dev: 2 of the 2 labels" in message and "fewer than 15" in message
    assert "('negative' 10, 'positive' 10)" in message


def test_a_label_whose_only_row_is_held_out_is_absent_from_train(task: Task) -> None:
    """Labels are looked for in what is left of train."""
    for index in range(40):
        rows = [{**row, "label": LABELS[n == index]} for n, row in enumerate(ROWS)]
        with pytest.warns(SoftHubWarning) as caught:
            splits = task.to_splits({"train": rows})
        absent = not any(example.label == "positive" for example in splits.train)
        warned = any("train has no row of 1 of the 2" in str(each.message) for each in caught)
        assert warned == absent
        if absent:
            return
    raise AssertionError("no row was held out")


def test_groups_of_unequal_size_are_held_out_and_their_rows_counted(task: Task) -> None:
    sizes = [1, 30, 2, 3, 4, 5, 6, 7, 8, 9]
    rows = [{**ROWS[n % 2], "author": f"a{n}"} for n, size in enumerate(sizes) for _ in range(size)]
    with pytest.warns(SoftHubWarning) as caught:
        dev = replace(task, group_column="author").to_splits({"train": rows}).dev
    assert f"so {len(dev)} of 75 rows are held out" in str(caught[0].message)
    assert len({example.group for example in dev}) == 1


def test_limits_that_cannot_be_met_are_refused(filed: Task) -> None:
    with pytest.raises(DatasetError, match="limits: unknown split 'trian'; did you mean 'train'"):
        filed.load_splits({"trian": 3})
    with pytest.raises(DatasetError, match=r"limit of train: found 0.*--max-train-examples"):
        filed.load_splits({"train": 0})
    with pytest.raises(DatasetError, match="per_label: found 0; expected 1 or more"):
        filed.load_splits(per_label=0)
    writing = replace(
        filed, kind="generation", verbalizer=None, label_column=None, target_column="label"
    )
    with pytest.raises(TaskError, match=r"per_label: the task .* has no labels; use limits"):
        writing.load_splits(per_label=3)
