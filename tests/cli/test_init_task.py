"""init-task: from a table to a prompt that is trained on it; nothing is replaced unasked."""

import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from softhub.tasks import Task
from tests.command import Command
from tests.tasks.datasets_server import serve

LINES = [
    f'"The {thing} is {word}, ""really"", on day {day}.",{mood}\n'
    for day in range(10)
    for thing in ("sound", "price")
    for mood, word in (("positive", "great"), ("negative", "a waste"))
]
# In one process, because importing `datasets` takes a while.
WITHOUT_SUBSET_THEN_WITH = """
import sys
from softhub.cli import main
for arguments in (["org/reviews"], ["org/reviews", "--subset", "default"]):
    sys.argv = ["softhub", "init-task", *arguments, "-o", "t.yaml"]
    try:
        main()
    except SystemExit as done:
        print("code", done.code)
"""


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """A table of 40 reviews."""
    file = tmp_path / "reviews.csv"
    file.write_text("text,mood\n" + "".join(LINES))
    return file


def test_a_table_is_divided_drafted_and_shown(
    softhub: Command, reviews: Path, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    task, base = tmp_path / "mood" / "task.yaml", tiny_base("llama")
    done = softhub("init-task", reviews, "--split", "-o", task, "--base", base)
    assert done.code == 0, done.err
    assert "kind    classification\ntexts   text\nlabels  mood\n" in done.out
    assert "Rows: train 32, dev 4, test 4" in done.out
    assert "Length in tokens: median " in done.out
    assert done.out.count("\nExample ") == 3
    assert "  Mood:[ positive]\n" in done.out
    assert f"Wrote {task}" in done.out
    assert "warning: test has 4 rows" in done.err
    assert f"softhub train --task {task} --base-model {base} --output-dir runs/reviews" in done.err
    assert len(Task.from_file(task).load("train")) == 32
    again = softhub("init-task", reviews, "--split", "-o", task)
    assert (again.code, again.out) == (1, "")
    assert "already exists" in again.err and "--force" in again.err
    assert softhub("init-task", reviews, "--split", "-o", task, "--force").code == 0


def test_texts_that_will_be_cut(
    softhub: Command, reviews: Path, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    reviews.write_text(reviews.read_text() + f"{'long ' * 500},positive\n{'x ' * 8},negative\n")
    base = tiny_base("llama")
    done = softhub("init-task", reviews, "-o", tmp_path / "t.yaml", "--base", base)
    assert "warning: 1 of 42 training texts have more than 384 tokens" in done.err


def test_json_has_what_the_page_has(softhub: Command, reviews: Path, tmp_path: Path) -> None:
    done = softhub("init-task", reviews, "-o", tmp_path / "t.yaml", "--json")
    record = json.loads(done.out)
    assert record["written"] == [str(tmp_path / "t.yaml")]
    assert record["task"]["name"] == "reviews"
    labels = [item["label"] for item in record["task"]["verbalizer"]]
    assert labels == ["negative", "positive"]
    assert record["rows"] == {"train": 40}
    assert "no test split" in record["warnings"][0]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([""], "the name of the data is empty"),
        (["missing.csv"], "missing.csv: there is no such file"),
        (["REVIEWS", "--label", "mod"], "there is no column 'mod'; did you mean 'mood'?"),
        (["REVIEWS", "--test", "REVIEWS"], "is given twice"),
        (["REVIEWS", "--base", "./nowhere"], "No base model at './nowhere'"),
        (["REVIEWS", "--subset", "x"], "has no subset; remove --subset"),
        (["org/reviews", "--dev", "REVIEWS"], "remove --dev and --test"),
        (["org/reviews"], "the Hub did not answer"),
        (["REVIEWS", "--multilabel", "--target", "text"], "choose one"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    softhub: Command, reviews: Path, tmp_path: Path, arguments: list[str], reason: str
) -> None:
    given = [str(reviews) if item == "REVIEWS" else item for item in arguments]
    done = softhub("init-task", *given, "-o", tmp_path / "t.yaml")
    assert (done.code, done.out) == (1, ""), done.err
    assert done.err.startswith("error: ") and done.err.count("\n") == 1
    assert reason in done.err
    assert not (tmp_path / "t.yaml").exists()


HUB_FILES = {
    "README.md": b"""---
configs:
- config_name: default
  data_files:
  - {split: train, path: train.csv}
  - {split: validation, path: dev.csv}
  - {split: test, path: test.csv}
- config_name: other
  data_files: train.csv
dataset_info:
- config_name: default
  features:
  - {name: sentence, dtype: string}
  - {name: label, dtype: {class_label: {names: {'0': neg, '1': pos}}}}
---
""",
    "train.csv": (
        "sentence,label\n" + "".join(f"so it is {n},{n % 2}\n" for n in range(40))
    ).encode(),
    "dev.csv": b"sentence,label\nfine,1\nfoul,0\n",
    "test.csv": b"sentence,label\nwho knows,-1\n",
}


def test_a_dataset_of_the_hub(tmp_path: Path) -> None:
    server = serve({"org/reviews": HUB_FILES})
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0",
        "HF_DATASETS_OFFLINE": "0",
    }

    try:
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_SUBSET_THEN_WITH],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert [line for line in done.stdout.splitlines() if line[:5] == "code "] == [
        "code 1",
        "code 0",
    ]
    assert "choose a subset; use --subset with one of default, other" in done.stderr
    assert "the test split has no labels; dev serves as test" in done.stderr
    task = Task.from_file(tmp_path / "t.yaml")
    assert task.dataset is not None and task.verbalizer is not None
    assert task.dataset.path == "org/reviews" and task.dataset.name is None
    assert dict(task.dataset.splits) == {"train": "train", "test": "validation"}
    assert task.verbalizer.labels == ("neg", "pos")


TEXTS = [(f"part {n} of it is {n % 7}", f"title {n} of all", "ab"[n % 2]) for n in range(40)]


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("one.csv", "text;mood\n" + "".join(f"{a}, so;{c}\n" for a, _, c in TEXTS), []),
        (
            "two.json",
            json.dumps({"rows": [{"a": a, "b": b, "label": c} for a, b, c in TEXTS]}),
            [],
        ),
        ("train.tsv", "t\tu\tv\n" + "".join(f"{a}\t{b}\t{c}\n" for a, b, c in TEXTS), []),
        ("my file.csv", "text,mood\n" + "".join(LINES), ["--text", "text", "--label", "mood"]),
        (
            "chats.jsonl",
            "".join(
                json.dumps(
                    {"m": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]}
                )
                + "\n"
                for a, b, _ in TEXTS
            ),
            [],
        ),
    ],
)
def test_the_printed_commands_lead_to_a_trained_prompt(
    softhub: Command,
    recipe: Command,
    tiny_base: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: str,
    options: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOFTHUB_BASE", str(tiny_base("llama")))
    Path(name).write_text(content)
    first = softhub("init-task", name, *options)
    assert first.code == 0, first.err
    divided = softhub(*printed(first.err)[1:])
    assert divided.code == 0, divided.err
    verb, *arguments = printed(divided.err)[1:]
    assert verb == "train"
    script = "classification"
    if arguments[0] == "--recipe":
        script, arguments = arguments[1], arguments[2:]
    few = ["--max-steps", 1, "--eval-steps", 1, "--save-steps", 1, "--use-cpu", "--init", "random"]
    trained = recipe(script, *arguments, *few)
    assert trained.code == 0, trained.err
    again = recipe(script, *arguments, *few)
    assert (again.code, again.out) == (1, "")
    assert "already holds a finished run" in again.err and "--overwrite" in again.err


def printed(text: str) -> list[str]:
    """The command of the line `next:`."""
    (line,) = [line for line in text.splitlines() if line.startswith("next: ")]
    return shlex.split(line[line.index("softhub ") :])


def test_rows_that_cannot_be_divided_are_said_to_be_too_few(
    softhub: Command, tmp_path: Path
) -> None:
    file = tmp_path / "few.csv"
    file.write_text("text,label\na b,x\nc d,y\ne f,x\ng h,y\n")
    done = softhub("init-task", file, "-o", tmp_path / "task.yaml")
    assert done.code == 0, done.err
    (line,) = [line for line in done.err.splitlines() if line.startswith("next: ")]
    assert "found 4 different texts; expected 10 or more" in line
    assert "softhub" not in line
