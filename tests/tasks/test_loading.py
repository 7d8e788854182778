"""Examples out of local files: read as written, or refused with file and line."""

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from softhub.errors import DatasetError, SoftHubWarning
from softhub.tasks import DatasetSource, Example, Task, Template, Verbalizer, dataset_hash
from softhub.tasks.row_source import RowSource

NASTY = 'He said "{label}",\nthen\tleft; \u2028 NA \U0001f600 é'
TaskOn = Callable[..., Task]


@pytest.fixture
def task_on(tmp_path: Path) -> TaskOn:
    """Return `task_on(file_name, content, **fields)`: a task whose train split is that file."""

    def make(name: str, content: bytes | str, **fields: Any) -> Task:
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(data)
        settings: dict[str, Any] = {
            "name": "mood",
            "kind": "classification",
            "template": Template("Review: {text}\nMood:"),
            "verbalizer": Verbalizer.from_mapping({"good": " good", "bad": " bad"}),
            "label_column": "label",
            "dataset": _files({"train": tmp_path / name, "dev": tmp_path / name}),
        }
        return Task(**{**settings, **fields})

    return make


def _files(paths: Mapping[str, Path], **keys: str) -> DatasetSource:
    return DatasetSource(data_files={split: str(path) for split, path in paths.items()}, **keys)


def _jsonl(*rows: Mapping[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


GOOD, BAD = {"text": NASTY, "label": "good"}, {"text": "meh", "label": "bad"}


INCOMPLETE = _jsonl(GOOD, {"text": " ", "label": "good"}, {"text": "meh", "label": None}, BAD)


def test_incomplete_rows_are_left_out_where_the_task_says_so(
    task_on: TaskOn, tmp_path: Path
) -> None:
    strict = task_on("a.jsonl", INCOMPLETE)
    with pytest.raises(DatasetError, match=r"line 2: 'text' is missing; .* drop_incomplete: true"):
        strict.load("train")
    assert strict.dataset is not None
    lax = replace(strict, dataset=replace(strict.dataset, drop_incomplete=True))
    with pytest.warns(SoftHubWarning, match=r"2 of 4 rows lack a value .* dropped"):
        kept = lax.load("train")
    assert [example.text for example in kept] == [NASTY, "meh"]
    (tmp_path / "a.jsonl").write_text(_jsonl({"text": "", "label": "good"}))
    with pytest.raises(DatasetError, match=r"1 of 1 rows lack .* none is left"):
        lax.load("train")


def _written_as(ending: str, folder: Path) -> bytes:
    import datasets

    table = datasets.Dataset.from_list([GOOD, BAD])
    path = folder / "written"
    match ending:
        case "csv":
            table.to_csv(path)
        case "parquet":
            table.to_parquet(path)
        case "json":
            path.write_text(json.dumps([GOOD, BAD], indent=1), encoding="utf-8")
        case "jsonl":
            path.write_text(_jsonl(GOOD, BAD), encoding="utf-8")
    return path.read_bytes()


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
def test_every_format_gives_the_same_examples_letter_for_letter(
    task_on: TaskOn, tmp_path: Path, ending: str
) -> None:
    task = task_on(f"train.{ending}", _written_as(ending, tmp_path))
    assert task.load("train") == [
        Example(row={"text": NASTY}, label="good"),
        Example(row={"text": "meh"}, label="bad"),
    ]


@pytest.mark.parametrize("texts", [["007", "08", "1.50"], ["NA", "null", "true"]])
def test_csv_values_stay_as_written(task_on: TaskOn, texts: list[str]) -> None:
    rows = "".join(f"{text},good\n" for text in texts)
    task = task_on("a.csv", f"text,label\n{rows}")
    assert [example.text for example in task.load("train")] == texts


def test_a_date_in_json_stays_text(task_on: TaskOn) -> None:
    task = task_on("a.jsonl", _jsonl({"text": "2020-01-01", "label": "good"}))
    assert task.load("train")[0].text == "2020-01-01"


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_byte_order_mark_blank_lines_and_windows_line_ends_do_no_harm(
    task_on: TaskOn, name: str
) -> None:
    csv = "text,label\r\n\r\nfine,good\r\n\r\n"
    content = csv if name == "a.csv" else _jsonl({"text": "fine", "label": "good"}) + "\r\n"
    task = task_on(name, b"\xef\xbb\xbf" + content.encode())
    assert task.load("train") == [Example(row={"text": "fine"}, label="good")]


def test_a_file_without_a_last_line_end_is_sound(task_on: TaskOn) -> None:
    assert len(task_on("a.jsonl", _jsonl(GOOD, BAD).rstrip("\n")).load("train")) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "", "a.jsonl: is empty"),
        ("a.jsonl", "\n \n", "a.jsonl: is empty"),
        ("a.json", "", "a.json: is empty"),
        ("a.json", "[]", "a.json: is empty"),
        ("a.csv", "", "a.csv: is empty"),
        ("a.csv", "text,label\n", "a.csv: is empty"),
        (
            "a.jsonl",
            _jsonl(GOOD) + '{"text": "it br',
            "a.jsonl, line 2: the file ends in the middle",
        ),
        ("a.json", '[{"text": "a",\n"label": "go', "a.json, line 2: the file ends in the middle"),
        ("a.csv", 'text,label\nx,good\n"it br', "a.csv, line 3: not valid CSV.*never closed"),
        ("a.csv", "text,label\nx,good\nit br", "a.csv, line 3: has 1 fields and the header 2"),
        ("a.csv", "text,label\nx,good\ny,go", "a.csv, line 3: 'label' is 'go'; expected one"),
        ("a.parquet", b"PAR1\x00\x00", "a.parquet: cannot be read"),
        ("a.jsonl", '{"text": "a" "label": "good"}\n{}\n', r"line 1: not valid JSON \(Expecting"),
        ("a.json", '[{"text" "a"}]', "a.json, line 1: not valid JSON"),
        ("a.jsonl", '["a", "good"]\n', "a.jsonl, line 1: .*expected an object"),
        ("a.json", '["a", "good"]', "a.json: found texts alone"),
        ("a.jsonl", b'{"text": "a", "label": "good"}\n{"text": "\xe9"}\n', "line 2: is not UTF-8"),
        ("a.csv", b"text,label\n\xe9,good\n", "a.csv, line 2: is not UTF-8"),
        ("a.csv", "id,text,label\nx,good\n", "a.csv, line 2: has 2 fields and the header 3"),
        ("a.csv", "text,label\n1,x,good\n2,y,bad\n", "line 2: has 3 fields and the header 2"),
        ("a.csv", "text,text,label\na,b,good\n", "a.csv: repeats the column name 'text'"),
        ("a.jsonl", _jsonl({"txt": "a", "label": "good"}), "no column 'text'.*are txt, label"),
        ("a.csv", "text,lable\na,good\n", "no column 'label'.*are text, lable"),
        ("a.jsonl", _jsonl(GOOD, {"text": "a"}), "a.jsonl, line 2: 'label' is missing"),
        (
            "a.jsonl",
            _jsonl(GOOD) + "\n" + _jsonl({"text": None, "label": "good"}),
            "line 3: 'text'",
        ),
        ("a.jsonl", _jsonl(GOOD, {"text": " \n", "label": "bad"}), "line 2: 'text' is missing"),
        ("a.csv", 'text,label\n"a\nb",good\n,bad\n', "a.csv, line 4: 'text' is missing"),
        ("a.csv", "text,label\nx,\n", "a.csv, line 2: 'label' is missing"),
        ("a.json", json.dumps([GOOD, {"text": "a", "label": None}]), "a.json, row 2: 'label'"),
        ("a.jsonl", _jsonl(GOOD, {"text": "a", "label": "god"}), "line 2: 'label' is 'god'"),
        ("a.jsonl", _jsonl(GOOD, {"text": "a", "label": 1}), "line 2: 'label' is '1'"),
        ("a.jsonl", _jsonl({"text": [1], "label": "good"}), "line 1: 'text' was read as list"),
        (
            "a.jsonl",
            '{"text": "\\ud83d", "label": "good"}',
            "line 1: 'text' contains half of a surr",
        ),
        ("a.txt", "fine\n", r"ends in one of \.json, \.jsonl, .*\.csv, .*\.parquet"),
    ],
)
def test_a_damaged_file_is_refused_with_file_and_line(
    task_on: TaskOn, name: str, content: bytes | str, message: str
) -> None:
    with pytest.raises(DatasetError, match=f"(?s){message}"):
        task_on(name, content).load("train")


@pytest.mark.parametrize("column", ["text", "label"])
def test_a_missing_value_in_parquet_is_refused_with_its_row(
    task_on: TaskOn, tmp_path: Path, column: str
) -> None:
    import datasets

    datasets.Dataset.from_list([GOOD, {**BAD, column: None}]).to_parquet(tmp_path / "a.parquet")
    task = task_on("a.parquet", (tmp_path / "a.parquet").read_bytes())
    with pytest.raises(DatasetError, match=f"a.parquet, row 2: '{column}' is missing"):
        task.load("train")


def test_a_missing_file_says_how_to_make_it(task_on: TaskOn, tmp_path: Path) -> None:
    nowhere = _files({"train": tmp_path / "none.jsonl"}, prepare="python make_data.py")
    task = task_on("a.jsonl", _jsonl(GOOD), dataset=nowhere)
    with pytest.raises(DatasetError, match=r"none\.jsonl: .*create it with: python make_data\.py"):
        task.load("train")


def test_label_map_takes_the_values_of_the_dataset(task_on: TaskOn) -> None:
    rows = _jsonl({"text": "a", "label": 1}, {"text": "b", "label": 0})
    task = task_on("a.jsonl", rows, label_map={"0": "bad", "1": "good"})
    assert [example.label for example in task.load("train")] == ["good", "bad"]


def test_values_that_label_map_lacks_are_refused(task_on: TaskOn) -> None:
    rows = _jsonl({"text": "a", "label": "1"}, {"text": "b", "label": "good"})
    task = task_on("a.jsonl", rows, label_map={"0": "bad", "1": "good"})
    with pytest.raises(DatasetError, match="line 2: 'label' is 'good'; expected one of '0', '1'"):
        task.load("train")


def test_examples_hold_the_columns_that_templates_read_and_no_other(task_on: TaskOn) -> None:
    row = {**GOOD, "product": "lamp", "note": "", "secret": "x"}
    task = task_on(
        "a.jsonl",
        _jsonl(row),
        template=Template("{product}: {text}\nMood:"),
        hard_templates=(Template("{note}{text} It is"),),
        group_column="secret",
    )
    (example,) = task.load("train")
    assert example.row == {"text": NASTY, "product": "lamp", "note": ""}
    assert example.group == "x"


def test_a_generation_example_has_a_target(task_on: TaskOn) -> None:
    fields: dict[str, Any] = {"kind": "generation", "verbalizer": None, "label_column": None}
    task = task_on("a.jsonl", _jsonl(GOOD, BAD), target_column="label", **fields)
    assert [(example.label, example.target) for example in task.load("train")] == [
        (None, "good"),
        (None, "bad"),
    ]


MANY = [
    {"text": f"sentence {n}", "label": "good" if n % 3 else "bad", "review": f"r{n // 4}"}
    for n in range(200)
]


def test_limit_is_a_fixed_subset_in_the_order_of_the_file(task_on: TaskOn) -> None:
    task = task_on("a.jsonl", _jsonl(*MANY))
    everything = task.load("train")
    some = task.load("train", limit=50, seed=3)
    assert some == task.load("train", limit=50, seed=3)
    assert some == [example for example in everything if example in some]
    assert len(some) == 50
    assert some != task.load("train", limit=50, seed=4)
    assert some != everything[:50]
    assert all(example in some for example in task.load("train", limit=20, seed=3))
    assert task.load("train", limit=1000) == everything


def test_a_limit_of_none_at_all_is_refused(task_on: TaskOn) -> None:
    with pytest.raises(DatasetError, match=r"limit of train: found 0.*--max-train-examples"):
        task_on("a.jsonl", _jsonl(GOOD)).load("train", limit=0)


def test_without_a_dev_split_whole_groups_of_train_are_held_out(
    task_on: TaskOn, tmp_path: Path
) -> None:
    task = task_on("a.jsonl", _jsonl(*MANY), group_column="review")
    task = replace(task, dataset=_files({"train": tmp_path / "a.jsonl"}))
    with pytest.warns(SoftHubWarning, match=r"no dev split, so 20 of 200 rows .* by 'review'"):
        train, dev = task.load("train"), task.load("dev", seed=1)
    assert len(train) + len(dev) == len(MANY)
    assert len(dev) == 20
    assert not {e.group for e in train} & {e.group for e in dev}
    with pytest.warns(SoftHubWarning):
        assert task.load("dev", seed=2) == dev


def test_without_groups_equal_texts_stay_on_one_side(task_on: TaskOn, tmp_path: Path) -> None:
    rows = [{"text": f"text {n % 10}", "label": "good"} for n in range(100)]
    task = task_on("a.jsonl", _jsonl(*rows))
    task = replace(task, dataset=_files({"train": tmp_path / "a.jsonl"}))
    with pytest.warns(SoftHubWarning, match="by 'text'"):
        train, dev = task.load("train"), task.load("dev")
    assert {len(train), len(dev)} == {90, 10}
    assert not {e.text for e in train} & {e.text for e in dev}


def test_one_group_cannot_be_divided(task_on: TaskOn, tmp_path: Path) -> None:
    task = task_on("a.jsonl", _jsonl(GOOD, GOOD))
    task = replace(task, dataset=_files({"train": tmp_path / "a.jsonl"}))
    with pytest.raises(DatasetError, match="train cannot be divided"):
        task.load("dev")


def test_with_a_dev_split_nothing_is_held_out_and_nothing_warned(task_on: TaskOn) -> None:
    task = task_on("a.jsonl", _jsonl(*MANY))
    with warnings.catch_warnings():
        warnings.simplefilter("error", SoftHubWarning)
        assert len(task.load("train")) == len(MANY)


@pytest.mark.parametrize(
    ("split", "message"),
    [("test", "no test split, only train, dev"), ("trian", "did you mean 'train'")],
)
def test_a_split_that_is_not_there_is_refused(task_on: TaskOn, split: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        task_on("a.jsonl", _jsonl(GOOD)).load(split)


def test_a_task_out_of_a_manifest_has_no_data(task_on: TaskOn) -> None:
    task = Task.from_record(task_on("a.jsonl", _jsonl(GOOD)).to_record())
    with pytest.raises(DatasetError, match="the task mood has no dataset"):
        task.load("train")


def test_a_rewritten_file_is_read_anew(task_on: TaskOn) -> None:
    assert task_on("a.jsonl", _jsonl(GOOD)).load("train") != task_on("a.jsonl", _jsonl(BAD)).load(
        "train"
    )


def test_the_hash_of_a_dataset_depends_on_all_that_training_sees() -> None:
    example = Example(row={"text": "a"}, label="good", group="1")
    others = [
        replace(example, row={"text": "b"}),
        replace(example, label="bad"),
        replace(example, label=None, target="good"),
        replace(example, group=None),
    ]
    hashes = {dataset_hash([item]) for item in (example, *others)}
    hashes |= {dataset_hash([]), dataset_hash([example, example])}
    hashes |= {dataset_hash([example, others[0]]), dataset_hash([others[0], example])}
    assert len(hashes) == 9
    assert dataset_hash([example]) == dataset_hash(iter([replace(example)]))


PAIR = {
    "verbalizer": None,
    "label_column": None,
    "kind": "generation",
    "template": Template("Write: {text}\n"),
    "target_column": "body",
}


def test_references_that_a_stop_string_cuts_off_are_counted(task_on: TaskOn) -> None:
    rows = [{"text": "a", "body": body} for body in ("one", "one\ntwo", "one\n")]
    task = task_on("a.jsonl", _jsonl(*rows), **PAIR, generation={"stop": ["\n\n", "\n"]})
    with pytest.warns(SoftHubWarning, match=r"a.jsonl: 2 of 3 reference texts continue after"):
        task.load("train")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        replace(task, generation={"stop": ["\n\n"]}).load("train")


def test_code_and_tests_come_with_the_row_and_tests_are_never_blank(task_on: TaskOn) -> None:
    row = {"text": "Add.", "head": "def f():\n", "body": "    pass", "test": "f()", "more": 1}
    keys = {**PAIR, "code_column": "head", "test_column": "test", "metrics": ("pass_at_1",)}
    task = task_on("a.jsonl", _jsonl(row, {**row, "head": ""}), **keys)
    first, second = task.load("train")
    assert first.row == {key: row[key] for key in ("text", "head", "test")}
    assert second.row["head"] == ""
    blank = task_on("b.jsonl", _jsonl(row, {**row, "test": " "}), **keys)
    with pytest.raises(DatasetError, match=r"b.jsonl, line 2: 'test' is missing"):
        blank.load("train")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file that cannot be read")
def test_a_file_of_inputs_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "rows.csv").symlink_to("/proc/self/mem")
    with pytest.raises(DatasetError, match=r"rows\.csv: cannot be read"):
        RowSource.of_file(tmp_path / "rows.csv")


def test_a_file_that_is_named_for_two_splits_is_noticed(task_on: TaskOn, tmp_path: Path) -> None:
    task = task_on("rows.jsonl", _jsonl(GOOD, BAD, {"text": "fine", "label": "good"}))
    (tmp_path / "other.jsonl").write_text(_jsonl({"text": "new", "label": "bad"}, GOOD, GOOD))
    rows, other = tmp_path / "rows.jsonl", tmp_path / "other.jsonl"
    same = replace(task, dataset=_files({"train": rows, "dev": other, "test": rows}))
    message = "3 of the 3 different texts of test are in train too, so scores on test are too high"
    with pytest.warns(SoftHubWarning, match=message) as caught:
        splits = same.load_splits()
    assert len(caught) == 1
    with pytest.warns(SoftHubWarning, match=message):
        task.to_splits(splits._asdict())
