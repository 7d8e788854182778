"""Tables, folders and chats as people have them: drafted, or told what is missing."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from huggingface_hub import constants

from softhub.errors import DatasetError
from softhub.tasks import Task
from softhub.tasks.drafting import Choices, draft_task, find_source

Rows = Sequence[Mapping[str, Any]]
pytestmark = pytest.mark.filterwarnings("ignore:.*no dev split")


def rows(count: int = 40, start: int = 0) -> list[dict[str, str]]:
    return [
        {"text": f"part {n} of it is {('good', 'bad')[n % 2]}", "mood": ("fine", "poor")[n % 2]}
        for n in range(start, start + count)
    ]


def jsonl(path: Path, table: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in table))
    return path


def drafted(place: Path, **choices: Any) -> Task:
    """Draft, write and read a task, and load its rows."""
    target = place.parent / "drafted" / "task.yaml"
    draft_task(find_source(str(place)), target, choices=Choices(**choices)).write(force=True)
    task = Task.from_file(target)
    assert task.load("train")
    return task


def files(folder: Path) -> None:
    for split, start in (("train", 0), ("valid", 40), ("test", 80)):
        jsonl(folder / f"{split}.jsonl", rows(start=start))


def shards(folder: Path) -> None:
    for split, start in (("train", 0), ("validation", 40), ("test", 80)):
        table = Dataset.from_list(rows(start=start))
        table.to_parquet(folder / f"{split}-00000-of-00001.parquet")


def saved(folder: Path) -> None:
    splits = {"train": 0, "validation": 40, "test": 80}
    DatasetDict(
        {split: Dataset.from_list(rows(start=start)) for split, start in splits.items()}
    ).save_to_disk(folder)


@pytest.mark.parametrize("write", [files, shards, saved])
def test_a_folder_of_splits(tmp_path: Path, write: Callable[[Path], None]) -> None:
    folder = tmp_path / "reviews"
    folder.mkdir()
    write(folder)
    task = drafted(folder)
    assert task.name == "reviews" and task.dataset is not None
    assert task.dataset.split_names == ("train", "dev", "test")
    found = [example.text for split in ("train", "dev", "test") for example in task.load(split)]
    assert found == [row["text"] for row in rows(120)]


def test_a_saved_dataset_and_a_lone_file_are_train(tmp_path: Path) -> None:
    Dataset.from_list(rows()).save_to_disk(tmp_path / "saved")
    (tmp_path / "lone").mkdir()
    jsonl(tmp_path / "lone" / "reviews.jsonl", rows())
    for place in ("saved", "lone"):
        task = drafted(tmp_path / place)
        assert task.dataset is not None and task.dataset.split_names == ("train",)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([], "found none that can be read"),
        (["notes.txt"], "found none that can be read"),
        (["a.csv", "b.csv"], r"expected data files for train, .*; found a\.csv, b\.csv"),
        (["dev.csv", "test.csv"], "expected data files for train"),
        (["train.csv", "train.jsonl"], "has several files for train"),
    ],
)
def test_a_folder_without_splits_is_told_what_it_holds(
    tmp_path: Path, names: list[str], reason: str
) -> None:
    for name in names:
        (tmp_path / name).write_text("text,mood\na,b\n")
    with pytest.raises(DatasetError, match=reason):
        find_source(str(tmp_path))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (("premise", "hypothesis"), ("premise", "hypothesis")),
        (("title", "body"), ("title", "body")),
        (("question", "explanation"), ("question",)),
        (("text", "label_text"), ("text",)),
    ],
)
def test_texts_are_offered_together_and_answers_are_not(
    tmp_path: Path, columns: Sequence[str], expected: tuple[str, ...]
) -> None:
    first, second = columns
    table = [
        {"id": str(n), first: f"this is a long text number {n}", "label": "ab"[n % 2],
         second: f"another text of {n // 3} here", "day": f"2020-01-{n:02}", "name": f"A{n} B{n}"}
        for n in range(30)
    ]  # fmt: skip
    task = drafted(jsonl(tmp_path / "t.jsonl", table))
    assert task.template.columns == expected
    assert task.text_column == first
    assert drafted(tmp_path / "t.jsonl", texts=(second,)).template.columns == (second,)


def test_a_text_that_some_rows_lack_is_not_offered(tmp_path: Path) -> None:
    table = [{**row, "title": f"title of text {n}"} for n, row in enumerate(rows())]
    table[3]["title"] = ""
    assert drafted(jsonl(tmp_path / "t.jsonl", table)).template.columns == ("text",)


def chat(number: int, **more: str) -> dict[str, Any]:
    said = {**more, "user": f"What is {number}?", "assistant": f"It is the number {number}."}
    return {"messages": [{"role": role, "content": text} for role, text in said.items()]}


@pytest.mark.parametrize(
    ("more", "texts"),
    [
        ({}, ("messages.user",)),
        ({"system": "Answer in a sentence."}, ("messages.system", "messages.user")),
    ],
)
def test_chats_of_one_turn_are_answered(
    tmp_path: Path, more: dict[str, str], texts: tuple[str, ...]
) -> None:
    file = jsonl(tmp_path / "chats.jsonl", [chat(number, **more) for number in range(30)])
    task = drafted(file)
    assert (task.kind, task.target_column) == ("generation", "messages.assistant")
    assert task.template.columns == texts
    assert task.load("train")[0].target is not None


def test_labels_of_chats_are_classified(tmp_path: Path) -> None:
    table = [{**chat(number), "label": "ab"[number % 2]} for number in range(30)]
    task = drafted(jsonl(tmp_path / "chats.jsonl", table), label="label")
    assert task.kind == "classification"
    assert task.template.columns == ("messages.user", "messages.assistant")


FEW = [{"text": f"text number {n}", "label": "ab"[n % 2]} for n in range(3)]
ONE = [{"text": f"text number {n}", "label": "a"} for n in range(30)]
LONG = {"messages": chat(1)["messages"] + chat(2)["messages"]}


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (FEW, "3 rows are too few to tell which column contains the answers"),
        (FEW[:1], "'label' has the same value in all rows"),
        (ONE, "'label' has the same value in all rows, and a classification needs two"),
        ([{"text": row["text"], "sentiment": 1} for row in ONE], "'sentiment' has the same value"),
        ([LONG] * 30, "'messages' contains chats of several turns; expected one text and one"),
        ([*[chat(n) for n in range(30)], LONG], "'messages' contains chats of several turns"),
        ([{"a": f"w {n}", "b": f"v {n}"} for n in range(30)], "cannot tell which column"),
    ],
)
def test_what_a_table_lacks_is_told(tmp_path: Path, table: Rows, reason: str) -> None:
    with pytest.raises(DatasetError, match=reason):
        drafted(jsonl(tmp_path / "t.jsonl", table))


@pytest.mark.parametrize("place", ["reviews", "org/reviews"])
def test_a_hub_that_does_not_answer_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(DatasetError, match=f"{place}: there is no such file, and the Hub did not"):
        find_source(place)
    assert time.monotonic() - started < 20  # the import of `datasets` included


def test_dev_serves_as_a_missing_test(tmp_path: Path) -> None:
    source = find_source(
        str(jsonl(tmp_path / "train.jsonl", rows())), dev=jsonl(tmp_path / "d.jsonl", rows(9, 50))
    )
    made = draft_task(source, tmp_path / "task.yaml")
    assert dict(made.sizes) == {"train": 40, "test": 9}
    said = "there is no test split; dev serves as test, and a tenth of the groups of train as dev"
    assert made.warnings[0] == said
