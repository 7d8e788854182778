"""From files to a task file that loads: what is written is sound."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from softhub.errors import DatasetError, TaskError
from softhub.tasks import Task, Template
from softhub.tasks.drafting import Choices, Draft, LengthCounter, draft_task, find_source
from softhub.tasks.drafting.columns import Roles
from softhub.tasks.drafting.draft import quoted, write_document
from softhub.tasks.drafting.rows import read_rows
from softhub.tasks.drafting.templates import Labels, find_labels, heading, task_name
from softhub.tasks.split_table import SplitTable

# A task without a dev split says that it divides train.
pytestmark = pytest.mark.filterwarnings("ignore::softhub.errors.SoftHubWarning")

ROWS = [
    {"review": f"The phone is {word}, day {day}.", "mood": mood, "user": f"u{day % 12}"}
    for day in range(30)
    for mood, word in (("Positive", "great"), ("Negative", "broken"))
]
# What YAML, a template or a terminal might take for something else.
ODD = [
    "no",
    "1e3",
    "null",
    "a: b",
    '"x"',
    "it's",
    "# c",
    "{text}",
    "[",
    "- d",
    "ä…é",
    "\x1b[0m",
]


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def labels_of(values: Sequence[str]) -> Labels:
    roles = Roles("classification", ("text",), "text", "label", None)
    rows = [{"text": "x", "label": value} for value in values]
    return find_labels({"train": read_rows(SplitTable.of(rows, "", str), roles)}, roles)


def draft(file: Path, *, task: str = "task.yaml", **options: Any) -> Draft:
    choices = {key: options.pop(key) for key in Choices.__dataclass_fields__ if key in options}
    source = find_source(str(file))
    return draft_task(source, file.parent / task, choices=Choices(**choices), **options)


def written(file: Path, **options: Any) -> Task:
    made = draft(file, **options)
    made.write()
    return Task.from_file(made.path)


def test_a_table_becomes_a_task_that_loads(tmp_path: Path) -> None:
    task = written(write_csv(tmp_path / "reviews.csv", ROWS), group="user")
    assert (task.name, task.text_column, task.group_column) == ("reviews", "review", "user")
    assert task.template.text == "Review: {review}\nMood:"
    assert task.verbalizer is not None
    assert dict(task.verbalizer.words) == {"Negative": (" Negative",), "Positive": (" Positive",)}
    examples = task.load("train") + task.load("dev")
    assert len(examples) == len(ROWS)
    text = (tmp_path / "task.yaml").read_text()
    assert '"Negative": " Negative"  # 30 training rows' in text
    assert '\nlabel_column: "mood"\n' in text
    assert 'train: "reviews.csv"' in text


def test_dividing_writes_three_files_that_hold_every_column(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "all.csv", [*ROWS, {"review": "", "mood": "Positive", "user": "z"}])
    made = draft(file, task="new/task.yaml", split=True, group="user")
    names = [path.name for path in made.write()]
    assert names == ["train.jsonl", "dev.jsonl", "test.jsonl", "task.yaml"]
    task = Task.from_file(made.path)
    loaded = {split: task.load(split) for split in ("train", "dev", "test")}
    assert {split: len(rows) for split, rows in loaded.items()} == dict(made.sizes)
    assert sum(made.sizes.values()) == len(ROWS)
    users = [{example.group for example in rows} for rows in loaded.values()]
    assert sum(map(len, users)) == 12
    first = json.loads((tmp_path / "new" / "train.jsonl").read_text().splitlines()[0])
    assert set(first) == {"review", "mood", "user"}
    assert "'review' is missing, as in 1 of 61 rows in total" in made.warnings[0]
    assert any("test has" in text for text in made.warnings)


def test_nothing_is_replaced_unless_asked(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "reviews.csv", ROWS)
    made = draft(file, split=True)
    (tmp_path / "dev.jsonl").write_text("mine")
    with pytest.raises(TaskError, match=r"dev\.jsonl: already exists; .* --force"):
        made.write()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dev.jsonl", "reviews.csv"]
    made.write(force=True)
    assert (tmp_path / "dev.jsonl").read_text() != "mine"


def test_the_data_itself_is_never_replaced(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    with pytest.raises(DatasetError, match="splitting would overwrite the data itself"):
        draft(file, split=True)


def test_several_files_and_another_folder(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        write_csv(
            tmp_path / f"{split}.csv", [{**r, "review": f"{split} {r['review']}"} for r in ROWS]
        )
    source = find_source(
        str(tmp_path / "train.csv"), dev=tmp_path / "dev.csv", test=tmp_path / "test.csv"
    )
    made = draft_task(source, tmp_path / "tasks" / "mood.yaml", choices=Choices(group="user"))
    made.write()
    assert made.task.dataset is not None
    assert dict(made.task.dataset.data_files)["dev"] == "../dev.csv"
    told = "\n".join(made.warnings)
    assert "values of 'user' in test are in train too" in told
    assert "test has 60 rows" in told and "may reveal the label" in told
    assert len(Task.from_file(made.path).load("test")) == len(ROWS)
    with pytest.raises(DatasetError, match="already has train and dev and test"):
        draft_task(source, tmp_path / "mood.yaml", split=True)


def test_odd_labels_and_columns_survive(tmp_path: Path) -> None:
    rows = [{"the text": f"number {n}", "la:bel": ODD[n % len(ODD)]} for n in range(120)]
    task = written(write_csv(tmp_path / "odd.csv", rows), label="la:bel")
    assert task.text_column == "the text"
    assert {example.label for example in task.load("train")} == set(ODD)


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=30), max_size=6))
@settings(max_examples=100, deadline=None)
def test_any_labels_survive_yaml(values: list[str]) -> None:
    values = [value for value in values if value.strip()]
    try:
        labels = labels_of(values)
    except DatasetError:
        return
    keys = {"kind": "classification", "columns": {}, "label_map": labels.spellings}
    keys |= {"verbalizer": labels.words, "template": "", "metrics": []}
    keys |= {"hard_templates": ["{text}\n" + values[0] + ":"]}
    keys |= {"counts": labels.counts, "name": "any", "origin": "\n".join(values)}
    content = yaml.safe_load(write_document(keys))
    assert content["hard_templates"] == keys["hard_templates"]
    assert content["verbalizer"] == dict(labels.words)
    assert content.get("label_map", {}) == dict(labels.spellings)
    assert {labels.spellings.get(value, value) for value in values} == set(labels.words)
    words = [word.strip() for word in labels.words.values()]
    assert len(set(words)) == len(words) and all(words)


@given(st.text())
def test_any_text_is_quoted_on_one_line(text: str) -> None:
    assert "\n" not in quoted(text)
    assert yaml.safe_load(quoted(text)) == text


def test_spellings_become_one_label(tmp_path: Path) -> None:
    spelt = ["good", "Good ", "GOOD", "bad", "bad"]
    rows = [{"text": f"text {n}", "label": spelt[n % 5]} for n in range(50)]
    made = draft(write_csv(tmp_path / "spelt.csv", rows))
    assert any("spelled in several ways" in text for text in made.warnings)
    made.write()
    task = Task.from_file(made.path)
    assert {example.label for example in task.load("train")} == set(task.verbalizer.labels)
    assert len(task.verbalizer.labels) == 2


def test_words_are_running_text() -> None:
    values = ["card_arrival", "TOP_UP_FAILED", "USA", "True", "pin-blocked", "Paris"]
    words = labels_of(values).words
    assert [words[value] for value in values] == [
        *(" card arrival", " top up failed", " USA", " true", " pin blocked", " Paris")
    ]
    clash = labels_of(["a_b", "a b"]).words
    assert clash == {"a b": " a b", "a_b": " a_b"}
    assert list(labels_of(["10", "9", "-1"]).words) == ["-1", "9", "10"]


def test_headings_and_names() -> None:
    names = ("review_text", "reviewTitle", "is_spam", "text", "label", "__")
    shown = ("Review text", "Review title", "Is spam", "Text", "Label", "Answer")
    assert tuple(map(heading, names)) == shown
    assert task_name("Müller & Söhne (2).final") == "M-ller-S-hne-2-.final"
    assert task_name("日本") == "task"


def test_imbalance_sets_weights_and_the_metric(tmp_path: Path) -> None:
    rows = [{"text": f"text {n}", "label": "rare" if n % 20 == 0 else "usual"} for n in range(200)]
    task = written(write_csv(tmp_path / "skewed.csv", rows))
    assert (task.class_weights, task.metrics) == ("balanced", ("macro_f1", "accuracy"))


def test_generation_and_its_metrics(tmp_path: Path) -> None:
    rows = [{"document": f"long text {n} " * 20, "summary": f"text {n} " * 9} for n in range(30)]
    task = written(write_csv(tmp_path / "news.csv", rows), target="summary")
    assert (task.kind, task.target_column) == ("generation", "summary")
    assert task.metrics == ("chrf", "rougeL")
    assert task.template.text == "Document: {document}\nSummary:\n"
    assert task.generation == {"max_new_tokens": 36}
    assert len(task.load("train")) == 27


def test_several_labels_on_a_row(tmp_path: Path) -> None:
    cells = ["price;sound", "price", "", "sound; battery"]
    rows = [{"text": f"text {n}", "aspects": cells[n % 4]} for n in range(60)]
    by_cell = write_csv(tmp_path / "cells.csv", rows)
    listed = tmp_path / "lists.jsonl"
    listed.write_text(
        "".join(
            json.dumps({**r, "aspects": r["aspects"].split(";") if r["aspects"] else []}) + "\n"
            for r in rows[:4] * 5
        )
    )
    for file in (listed, by_cell):
        made = draft(file, label="aspects", multilabel=True, split=file == by_cell)
        made.write(force=True)
        task = Task.from_file(made.path)
        assert task.multilabel and task.verbalizer is not None
        assert task.verbalizer.words_of("price") == (" price?",)
        assert task.metrics[0] == "multilabel_macro_f1"
    assert {example.label for example in task.load("train")} == {
        *("price;sound", "price", "", "battery;sound")
    }
    single = draft(by_cell, label="aspects")
    assert not single.task.multilabel


def test_examples_are_of_different_labels_and_measured_in_words(tmp_path: Path) -> None:
    made = draft(write_csv(tmp_path / "reviews.csv", ROWS))
    assert [sample.answer for sample in made.samples[:2]] == [" Positive", " Negative"]
    assert made.samples[0].text == "Review: The phone is great, day 0.\nMood:"
    assert len(made.samples) == 3
    assert made.samples[0].length == made.lengths.longest == 8
    assert made.lengths.unit == "words"


def test_declared_classes_are_labels_by_name(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["ham", "spam"])})
    rows = {"text": [f"text {n}" for n in range(40)], "label": [n % 2 for n in range(40)]}
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "mails.parquet")
    task = written(tmp_path / "mails.parquet", split=True)
    assert {example.label for example in task.load("train")} == {"ham", "spam"}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("no.csv", None, "there is no such file"),
        ("empty.csv", b"", "is empty"),
        ("header.csv", b"text,label\n", "is empty"),
        ("object.json", b"{}", "object.json: is empty"),
        ("objects.jsonl", b"{}\n{}\n", "objects.jsonl: is empty"),
        ("latin.csv", "text,label\ncaf\xe9,a\n".encode("latin-1"), "line 2: is not UTF-8"),
        ("label.csv", b",label\nx,a\ny,b\n", "has a single column, 'label'; .*add a column[^;]*$"),
        ("one.csv", b"text\nx\ny\n", r"has a single column, 'text'; .*add a column[^;]*$"),
        (
            "cut.jsonl",
            b'{"text": "a", "label": "b"}\n{"text": "c',
            "line 2: the file ends in",
        ),
        (
            "list.jsonl",
            b'{"text": ["a"], "label": "b"}\n' * 4,
            "'label' has the same value in all rows",
        ),
        ("notes.txt", b"text", "ends in one of"),
        ("one-label.csv", b"text,label\nx y,a\nz y,a\n", "'label' has the same value in all"),
    ],
)
def test_bad_files_are_one_sentence(
    tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DatasetError, match=reason) as caught:
        draft(file)
    assert "\n" not in str(caught.value)


def test_a_chosen_column_that_cannot_be(tmp_path: Path) -> None:
    rows = [{"text": f"text {n}", "same": "a", "long": "x" * 200 + str(n)} for n in range(20)]
    file = write_csv(tmp_path / "t.csv", rows)
    with pytest.raises(DatasetError, match="'same' contains a single label, 'a'"):
        draft(file, label="same")
    with pytest.raises(DatasetError, match="use --target long"):
        draft(file, label="long", texts=("text",))
    nested = tmp_path / "n.jsonl"
    nested.write_text('{"text": "a", "label": [{"x": 1}]}\n' * 4)
    with pytest.raises(DatasetError, match=r"line 1: 'label' is a list; .* add --multilabel"):
        draft(nested, label="label")
    with pytest.raises(DatasetError, match=r"line 1: 'label' is \[{'x': 1}\]; expected a list of"):
        draft(nested, label="label", multilabel=True)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("column", ["text", "label"])
def test_half_of_a_surrogate_pair_is_told_and_nothing_is_written(
    tmp_path: Path, column: str, split: bool
) -> None:
    rows = [{"text": f"text {n} of many", "label": "ab"[n % 2]} for n in range(40)]
    rows[6][column] += "\ud83d"
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DatasetError, match=f"line 7: '{column}' contains half of a surrogate"):
        draft(file, task="new/task.yaml", split=split, label="label")
    assert not (tmp_path / "new").exists()


def test_a_column_that_cannot_be_written_leaves_no_file(tmp_path: Path) -> None:
    rows = [{"text": f"text {n} of many", "label \ud83d": "ab"[n % 2]} for n in range(40)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = draft(file, task="new/task.yaml", split=True, label="label \ud83d")
    with pytest.raises(TaskError, match="name of a file or column contains half of a surrogate"):
        made.write()
    assert not (tmp_path / "new").exists()


def test_lists_of_numbers_are_sets_of_labels(tmp_path: Path) -> None:
    rows = [{"text": f"text {n}", "label": [n % 2, 2] if n % 4 else []} for n in range(40)]
    file = tmp_path / "rows.jsonl"
    file.write_text(
        "".join(json.dumps(row) + "\n" for row in [*rows, {**rows[0], "label": [None]}])
    )
    for split in (False, True):
        task = written(file, label="label", multilabel=True, split=split, task=f"{split}.yaml")
        assert task.verbalizer is not None and task.verbalizer.labels == ("0", "1", "2")
        assert {example.label for example in task.load("train")} == {"", "0;2", "1;2"}


@pytest.mark.parametrize("labels", [("{foo}", "b"), ("{text}", "b"), ("{a", "b}")])
def test_braces_of_labels_and_columns_are_no_columns_of_a_template(
    tmp_path: Path, labels: tuple[str, str]
) -> None:
    rows = [{"text": f"text {n}", "label {x}": labels[n % 2]} for n in range(40)]
    task = written(write_csv(tmp_path / "t.csv", rows), label="label {x}")
    assert {example.label for example in task.load("train")} == {*labels}
    assert {template.columns for template in task.hard_templates} == {("text",)}


@pytest.mark.parametrize("cell", ["a,b", "a|b", "['a', 'b']"])
def test_labels_with_another_separator_are_told(tmp_path: Path, cell: str) -> None:
    rows = [{"text": f"text {n}", "label": cell if n % 2 else "a"} for n in range(40)]
    told = draft(write_csv(tmp_path / "t.csv", rows), label="label", multilabel=True).warnings
    (about,) = [text for text in told if "no row has several labels" in text]
    assert "labels are separated by ';'" in about and cell in about
    rows[0]["label"] = "a;b"
    told = draft(write_csv(tmp_path / "t.csv", rows), label="label", multilabel=True).warnings
    assert not [text for text in told if "no row has several labels" in text]


class Bytes(LengthCounter):
    def length(self, template: Template, row: Mapping[str, Any]) -> int:
        return len(template.render(row).encode())


def test_reference_texts_without_spaces_are_measured_and_scored_as_such(tmp_path: Path) -> None:
    summary = "这是一个关于产品质量的详细评论总结内容涉及电池、屏幕、价格以及售后服务等方面的意见。"
    rows = [{"text": f"{summary}{n}", "summary": f"{summary}{n}"} for n in range(20)]
    file = write_csv(tmp_path / "t.csv", rows)
    task = written(file, target="summary")
    assert task.metrics == ("chrf",)
    assert task.generation["max_new_tokens"] > len(summary)
    counted = draft(file, target="summary", counter=Bytes(unit="tokens")).task
    assert counted.generation["max_new_tokens"] == len(f"{summary}19".encode()) + 1


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "bom.csv", ROWS)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert written(file).text_column == "review"


def test_tables_as_other_programs_write_them(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "REVIEWS.CSV", [{"": n, **row} for n, row in enumerate(ROWS)])
    task = written(file, split=True, task="new/task.yaml")
    assert (task.name, task.text_column) == ("REVIEWS", "review")
    assert len(task.load("train")) > 40


def test_a_side_text_may_be_blank(tmp_path: Path) -> None:
    rows = [
        {"instruction": f"do {n} now", "input": "" if n % 2 else f"with {n}", "output": f"did {n}"}
        for n in range(20)
    ]
    texts = ("instruction", "input")
    made = draft(write_csv(tmp_path / "orders.csv", rows), texts=texts, target="output")
    assert made.task.template.text == "Instruction: {instruction}\nInput: {input}\nOutput:\n"
    assert made.task.text_column == "instruction"
    (told,) = made.warnings
    assert "no test split" in told
    made.write()
    assert len(Task.from_file(made.path).load("train")) == 18


class Characters:
    """Counts characters as tokens."""

    unit, limit = "tokens", 20

    def length(self, template: Template, row: Mapping[str, Any]) -> int:
        return len(template.render(row))

    def problem(self, task: Task) -> str | None:
        return "no such words"


def test_texts_that_are_truncated_are_counted(tmp_path: Path) -> None:
    rows = [{"text": "x" * (n % 40), "label": "ab"[n % 2]} for n in range(1, 4001)]
    file = write_csv(tmp_path / "long.csv", [row for row in rows if row["text"]])
    made = draft(file, counter=Characters())
    template = len("Text: \nLabel:")
    expected = sum(bool(row["text"]) and len(row["text"]) + template > 20 for row in rows)
    assert (made.lengths.truncated, made.lengths.longest) == (expected, 39 + template)
    assert f"{expected} of 3900 training texts have more than 20 tokens" in "\n".join(made.warnings)
    assert made.warnings[-1] == "no such words"


def test_a_folder_is_no_task_file(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "reviews.csv", ROWS)
    (tmp_path / "tasks").mkdir()
    with pytest.raises(TaskError, match=r"is a folder; name a file, e\.g\. .*task\.yaml"):
        draft(file, task="tasks").write(force=True)
    with pytest.raises(TaskError, match=r"t\.yaml: cannot be written"):
        draft(file, task="reviews.csv/t.yaml").write()
