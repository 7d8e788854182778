"""Datasets of the Hub, by id: over the real protocol, from a server on the loopback.

`datasets` reads HF_ENDPOINT when it is imported, so the task is loaded in a process of its own.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from softhub.errors import DatasetError
from softhub.tasks import DatasetSource, Task, Template, Verbalizer
from tests.tasks.datasets_server import serve

CARD = b"""---
configs:
- config_name: default
  data_files:
  - {split: train, path: train.csv}
  - {split: validation, path: dev.csv}
  - {split: test, path: test.csv}
dataset_info:
  features:
  - {name: sentence, dtype: string}
  - {name: label, dtype: {class_label: {names: {'0': neg, '1': pos}}}}
---
"""
FILES = {
    "README.md": CARD,
    "train.csv": b"sentence,label\ngood,1\nbad,0\n",
    "dev.csv": b"sentence,label\nfine,1\n",
    "test.csv": b"sentence,label\nwho knows,-1\n",
}
PAIRS = b"""\
{"translation": {"de": "Hallo", "en": "Hello"}, "notes": ["one", "two"], "numbers": [1, 2]}
{"translation": {"de": "Danke", "en": "Thanks"}, "notes": [], "numbers": [3]}
"""
TASK = {
    "name": "mood",
    "kind": "classification",
    "template": "{sentence}\nMood:",
    "text_column": "sentence",
    "label_column": "label",
    "verbalizer": {"positive": " good", "negative": " bad"},
    "label_map": {"pos": "positive", "neg": "negative"},
    "dataset": {
        "path": "org/reviews",
        "splits": {"train": "train", "dev": "validation", "test": "test"},
    },
}
NESTED = {
    "name": "to-english",
    "kind": "generation",
    "template": "{notes}\n{translation.de}\nEnglish:",
    "text_column": "translation.de",
    "target_column": "translation.en",
    "dataset": {"path": "org/pairs", "splits": {"test": "train"}},
}
# Loads each split of each task file; prints a list of labels, or the error.
LOAD = """
import json, sys
from softhub.errors import DatasetError
from softhub.tasks import Task
for path, split in (argument.rsplit(":", 1) for argument in sys.argv[1:]):
    try:
        task = Task.from_file(path)
        print(json.dumps([(e.text, e.label or [e.target, e.row]) for e in task.load(split)]))
    except DatasetError as error:
        print(json.dumps(str(error)))
"""


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = serve({"org/reviews": FILES, "org/pairs": {"train.jsonl": PAIRS}})
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def _load(folder: Path, endpoint: str, cases: list[tuple[Mapping[str, Any], str]]) -> list[Any]:
    arguments = []
    for number, (task, split) in enumerate(cases):
        path = folder / f"{number}.yaml"
        path.write_text(json.dumps(task), encoding="utf-8")
        arguments.append(f"{path}:{split}")
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "home")}
    environment.update(HF_HUB_OFFLINE="0", HF_DATASETS_OFFLINE="0")
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def _with(dataset: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    task = {**TASK, "dataset": {**TASK["dataset"], **dataset}, **changes}  # type: ignore[dict-item]
    return {key: value for key, value in task.items() if value is not None}


def test_a_dataset_of_the_hub_is_read_by_its_id(tmp_path: Path, endpoint: str) -> None:
    numbers = {"0": "negative", "1": "positive"}
    train, dev, by_number, unmapped, test, split, name, nowhere = _load(
        tmp_path,
        endpoint,
        [
            (TASK, "train"),
            (TASK, "dev"),
            (_with({}, label_map=numbers), "train"),
            (_with({}, label_map=None), "train"),
            (TASK, "test"),
            (_with({"splits": {"test": "validaton"}}), "test"),
            (_with({"name": "plain"}), "train"),
            (_with({"path": "org/none"}), "train"),
        ],
    )
    assert train == by_number == [["good", "positive"], ["bad", "negative"]]
    assert dev == [["fine", "positive"]]
    assert "split train, row 1: 'label' is 'pos'; expected one of 'positive'" in unmapped
    assert "label_map: {'pos': <label>}" in unmapped
    assert "split test, row 1: has no label (-1)" in test
    assert "split validaton: cannot be read" in split and "'validation'" in split
    assert "'plain' not found" in name and "check name, revision and splits" in name
    assert "dataset org/none, split train: not found on the Hub" in nowhere


def test_nested_columns_have_dotted_names_and_lists_of_texts_are_lines(
    tmp_path: Path, endpoint: str
) -> None:
    numbers = {**NESTED, "template": "{numbers}\n{translation.de}\nEnglish:"}
    (first, second), refused = _load(tmp_path, endpoint, [(NESTED, "test"), (numbers, "test")])
    assert first == ["Hallo", ["Hello", {"translation.de": "Hallo", "notes": "one\ntwo"}]]
    assert second == ["Danke", ["Thanks", {"translation.de": "Danke", "notes": ""}]]
    assert "row 1: 'numbers' was read as list; expected text or a number" in refused


def test_a_hub_that_cannot_be_reached_is_a_dataset_error() -> None:
    task = Task(
        name="mood",
        kind="classification",
        template=Template("{text}\nMood:"),
        verbalizer=Verbalizer.from_mapping({"a": " a", "b": " b"}),
        label_column="label",
        dataset=DatasetSource(path="org/reviews", splits={"train": "train"}),
    )
    with pytest.raises(DatasetError, match=r"the Hub did not answer.*unset HF_HUB_OFFLINE"):
        task.load("train")
