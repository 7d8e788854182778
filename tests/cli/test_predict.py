"""predict and generate: a pulled prompt needs nothing but its folder and the base."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from softhub.inference.engine import PromptModel
from softhub.tasks import Task
from tests.cli.conftest import SENTIMENT, SUMMARY, MakeAdapter
from tests.command import Command

SOFTHUB = [sys.executable, "-c", "from softhub.cli import main; main()"]
TEXTS = ["It broke after two days.", "Great value, easy to use, and my children love it."]


def pipe(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Have the command read these bytes from stdin."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_predict_from_the_hub_and_from_a_folder_agree_with_the_engine(
    softhub: Command, adapter: Path, base: Path
) -> None:
    softhub("push", adapter, "me/sentiment")
    pulled = softhub("predict", "me/sentiment", *TEXTS, "--base", base, "--json")
    assert pulled.code == 0, pulled.err
    assert softhub("predict", adapter, *TEXTS, "--base", base, "--json").out == pulled.out

    model = PromptModel.from_pretrained(base)
    expected = model.predict(TEXTS, prompt=model.load_prompt(adapter))
    records = [json.loads(line) for line in pulled.out.splitlines()]
    assert [record["input"] for record in records] == TEXTS
    assert [record["label"] for record in records] == [item.label for item in expected]
    for record, item in zip(records, expected, strict=True):
        assert record["probabilities"] == pytest.approx(dict(item.probabilities))
        assert sum(record["probabilities"].values()) == pytest.approx(1)


def test_predict_shows_label_probabilities_and_text(
    softhub: Command, adapter: Path, base: Path
) -> None:
    header, row = softhub("predict", adapter, TEXTS[0], "--base", base).out.splitlines()
    assert header == "label\tprobabilities\ttext"
    label, odds, text = row.split("\t")
    assert label in SENTIMENT.verbalizer.labels
    assert odds.startswith(f"{label} 0.")
    assert text == TEXTS[0]


def test_batch_size_does_not_change_the_answer(
    softhub: Command, adapter: Path, base: Path, tmp_path: Path
) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("".join(f"{text} {n}\n\n" for n in range(5) for text in TEXTS))
    answers = []
    for size in (1, 3):
        done = softhub(
            "predict", adapter, "--input", file, "--base", base, "--json", "--batch-size", size
        )
        answers.append([json.loads(line) for line in done.out.splitlines()])
    assert [item["input"] for item in answers[0]] == [f"{t} {n}" for n in range(5) for t in TEXTS]
    for one, other in zip(*answers, strict=True):
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-4)


def test_jsonl_holds_strings_or_rows(
    softhub: Command, adapter: Path, base: Path, tmp_path: Path
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(TEXTS[0]) + "\n" + json.dumps({"text": TEXTS[0], "id": 7}) + "\n")
    done = softhub("predict", adapter, "--input", file, "--base", base, "--json")
    first, second = (json.loads(line) for line in done.out.splitlines())
    assert first["scores"] == second["scores"]
    assert second["input"] == {"text": TEXTS[0], "id": 7}


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    """Write rows in the form of the ending."""
    frame = pd.DataFrame(rows)
    if path.suffix == ".xlsx":
        frame.to_excel(path, index=False)
    elif path.suffix == ".csv":
        frame.to_csv(path, index=False, sep=";")
    else:
        frame.to_json(path, orient="records", lines=path.suffix == ".jsonl")


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.json", "t.xlsx"])
def test_tables_are_read_by_their_kind(
    softhub: Command, adapter: Path, base: Path, tmp_path: Path, name: str
) -> None:
    rows = [{"id": f"0{n}", "text": text, "label": "x"} for n, text in enumerate(TEXTS)]
    write_table(tmp_path / name, rows)
    done = softhub("predict", adapter, "--input", tmp_path / name, "--base", base, "--json")
    assert done.code == 0, done.err
    records = [json.loads(line) for line in done.out.splitlines()]
    assert [record["input"] for record in records] == rows
    plain = softhub("predict", adapter, *TEXTS, "--base", base, "--json")
    for record, line in zip(records, plain.out.splitlines(), strict=True):
        assert record["scores"] == pytest.approx(json.loads(line)["scores"], abs=1e-4)


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.xlsx"])
def test_a_table_without_the_column_of_the_template_is_refused(
    softhub: Command, adapter: Path, tmp_path: Path, name: str
) -> None:
    write_table(tmp_path / name, [{"id": "1", "review": TEXTS[0]}])
    done = softhub("predict", adapter, "--input", tmp_path / name, "--base", "unused")
    assert (done.code, done.out) == (1, "")
    assert "has no column 'text', which the template of the task sentiment reads" in done.err
    assert "its columns are id, review. Rename one of them" in done.err


@pytest.mark.parametrize("verb", ["predict", "generate"])
def test_a_single_text_for_a_task_of_several_columns_is_told_what_to_give(
    softhub: Command, make_adapter: MakeAdapter, base: Path, verb: str
) -> None:
    task = SENTIMENT if verb == "predict" else SUMMARY
    several = replace(task, template="Title: {title} Text: {text} So:", text_column="text")
    done = softhub(verb, make_adapter(task=several), TEXTS[0], "--base", base)
    assert (done.code, done.out) == (1, "")
    assert f"The task {task.name} reads 2 columns (title, text), and found a single" in done.err
    assert done.err.endswith("a file with these columns (--input).\n")


@pytest.mark.parametrize("arguments", [(), ("-",), ("--input", "-")])
def test_standard_input_and_the_base_from_the_environment(
    softhub: Command,
    adapter: Path,
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
) -> None:
    pipe(monkeypatch, "\n".join(TEXTS).encode())
    monkeypatch.setenv("SOFTHUB_BASE", str(base))
    done = softhub("predict", adapter, *arguments, "--json")
    assert [json.loads(line)["input"] for line in done.out.splitlines()] == TEXTS


def test_empty_standard_input_is_told_as_such(
    softhub: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe(monkeypatch, b"")
    done = softhub("predict", "me/sentiment", "--base", "unused")
    assert (done.code, done.out) == (1, "")
    assert "stdin contains no text" in done.err


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("fine\ncaf\xe9\n".encode("latin-1"), "stdin, line 2: is not UTF-8. If 'café' is the r"),
        ("café\n".encode("utf-16")[:-1], "stdin: is not valid UTF-16"),
        (b"PK\x03\x04...", "stdin: in spite of its name, this is an Excel workbook"),
    ],
)
def test_standard_input_of_another_encoding_is_refused_as_a_file_is(
    softhub: Command, monkeypatch: pytest.MonkeyPatch, content: bytes, reason: str
) -> None:
    pipe(monkeypatch, content)
    done = softhub("predict", "me/sentiment", "--base", "unused")
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines()[-1].startswith(f"error: {reason}")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_standard_input_is_read_by_its_byte_order_mark(
    softhub: Command, adapter: Path, base: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    pipe(monkeypatch, "café\r\n".encode(encoding))
    done = softhub("predict", adapter, "--base", base, "--json")
    assert json.loads(done.out)["input"] == "café"


@pytest.mark.parametrize("verb", ["predict", "generate"])
@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["", "fine"], "text 1 of 2 is empty"),
        (["fine", " \n"], "text 2 of 2 is empty"),
        (["caf\udce9"], "text 1 of 1 is not UTF-8"),
    ],
)
def test_an_argument_that_is_no_text_is_refused(
    softhub: Command, verb: str, texts: list[str], reason: str
) -> None:
    done = softhub(verb, "me/sentiment", *texts, "--base", "unused")
    assert (done.code, done.out) == (2, "")
    assert reason in done.err


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('"fine"\n{"text": "cut o', "rows.jsonl, line 2: the file ends in the middle"),
        ('"fine"\n3\n', "rows.jsonl, line 2: found 3; expected an object"),
        ("\n\n", "contains no text"),
        (b'"fine"\n"\xff"\n', "rows.jsonl, line 2: is not UTF-8"),
        (None, "there is no such file; check the path"),
    ],
)
def test_a_bad_file_is_refused_with_file_and_line(
    softhub: Command, tmp_path: Path, content: str | bytes | None, reason: str
) -> None:
    file = tmp_path / "rows.jsonl"
    if content is not None:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    done = softhub("predict", "me/sentiment", "--input", file, "--base", "unused")
    assert (done.code, done.out) == (1, "")
    assert reason in done.err


@pytest.mark.parametrize("extra", [[], ["text", "--input", "texts.txt"]])
def test_texts_or_a_file_but_not_both(
    softhub: Command, extra: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    done = softhub("predict", "me/sentiment", "--base", "unused", *extra)
    assert done.code == 2
    assert "--input" in done.err


def test_a_prompt_for_another_base_is_refused_unless_forced(
    softhub: Command, adapter: Path, tiny_base: Callable[[str], Path]
) -> None:
    other = tiny_base("qwen3")
    refused = softhub("predict", adapter, "text", "--base", other)
    assert (refused.code, refused.out) == (1, "")
    assert "example/tiny-llama" in refused.err
    assert "tiny-qwen3" in refused.err
    forced = softhub("predict", adapter, "text", "--base", other, "--force")
    assert forced.code == 0, forced.err
    assert "warning: " in forced.err


def test_a_foreign_adapter_predicts_with_a_task(
    softhub: Command, make_adapter: MakeAdapter, base: Path, tmp_path: Path
) -> None:
    foreign = make_adapter(task=None)
    refused = softhub("predict", foreign, "text", "--base", base)
    assert refused.code == 1
    assert "--task" in refused.err
    task = tmp_path / "mood.yaml"
    task.write_text(
        "name: mood\nkind: classification\ntemplate: 'Review: {text} Sentiment:'\n"
        "verbalizer: {positive: ' good', negative: ' bad'}\n"
    )
    ask = ("text", "--base", base, "--task", task, "--json")
    done = softhub("predict", foreign, *ask)
    assert json.loads(done.out)["label"] in ("positive", "negative")
    assert "warning" not in done.err
    for output in ([], ["--output", tmp_path / "out.csv"]):
        own = softhub("predict", make_adapter(), *(ask if not output else ask[:-1]), *output)
        assert own.code == 0
        assert own.err.count("replaces the adapter's own task, sentiment, and its calibration") == 1


def test_a_missing_base_is_one_line(softhub: Command, adapter: Path) -> None:
    done = softhub("predict", adapter, "text", "--base", "./no-such-base")
    assert (done.code, done.out) == (1, "")
    assert "./no-such-base" in done.err


def test_generate_follows_the_task_and_the_option(
    softhub: Command, make_adapter: MakeAdapter, base: Path
) -> None:
    folder = make_adapter(task=SUMMARY)
    model = PromptModel.from_pretrained(base)
    name = model.load_prompt(folder)
    shown = softhub("generate", folder, TEXTS[0], "--base", base, "--json")
    record = json.loads(shown.out)
    assert record == {"input": TEXTS[0], "output": model.generate(TEXTS[:1], prompt=name)[0]}
    longer = softhub("generate", folder, TEXTS[0], "--base", base, "--max-new-tokens", 12, "--json")
    text = json.loads(longer.out)["output"]
    assert text == model.generate(TEXTS[:1], prompt=name, max_new_tokens=12)[0]
    assert text != record["output"]


def test_a_foreign_adapter_generates_with_a_task_and_ends_where_it_says(
    softhub: Command, make_adapter: MakeAdapter, base: Path, tmp_path: Path
) -> None:
    foreign = make_adapter(task=None)
    file = tmp_path / "sum.yaml"
    file.write_text(
        'name: sum\nkind: generation\ntemplate: "Sum up: {text}\\n"\n'
        "generation: {max_new_tokens: 9}\n"
    )
    model = PromptModel.from_pretrained(base)
    name = model.load_prompt(foreign, task=Task.from_file(file))
    (whole,) = model.generate(TEXTS[:1], prompt=name)
    ask = ("generate", foreign, TEXTS[0], "--base", base, "--task", file, "--json")
    assert json.loads(softhub(*ask).out)["output"] == whole
    stop = whole[3:5]
    file.write_text(
        file.read_text().replace("9}", f"9, stop: [{json.dumps(stop, ensure_ascii=False)}]}}")
    )
    assert json.loads(softhub(*ask).out)["output"] == whole.split(stop)[0]


def test_a_prompt_that_generates_does_not_classify(
    softhub: Command, make_adapter: MakeAdapter, base: Path
) -> None:
    done = softhub("predict", make_adapter(task=SUMMARY), "text", "--base", base)
    assert (done.code, done.out) == (1, "")
    assert "found one of kind 'generation'" in done.err and "softhub generate" in done.err


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_results_are_written_in_the_format_of_the_ending(
    softhub: Command, adapter: Path, base: Path, tmp_path: Path, ending: str
) -> None:
    file = tmp_path / f"labels.{ending}"
    done = softhub("predict", adapter, *TEXTS, "--base", base, "--output", file)
    assert (done.code, done.out) == (0, ""), done.err
    assert f"Wrote 2 rows to {file}" in done.err
    printed = softhub("predict", adapter, *TEXTS, "--base", base, "--json").out
    expected = [json.loads(line) for line in printed.splitlines()]
    if ending == "jsonl":
        table = pd.read_json(file, lines=True)
    else:
        table = pd.read_csv(file) if ending == "csv" else pd.read_parquet(file)
    assert [*table["text"]] == TEXTS
    assert [*table["predicted_label"]] == [record["label"] for record in expected]
    assert table["probabilities.positive"][0] == pytest.approx(
        expected[0]["probabilities"]["positive"], abs=1e-5
    )


def test_a_single_result_in_a_new_folder(
    softhub: Command, adapter: Path, base: Path, tmp_path: Path
) -> None:
    file = tmp_path / "new" / "labels.csv"
    done = softhub("predict", adapter, TEXTS[0], "--base", base, "--output", file)
    assert (done.code, done.out) == (0, ""), done.err
    assert f"Wrote 1 row to {file}\n" in done.err
    assert len(pd.read_csv(file)) == 1


def test_generated_texts_and_rows_are_written_too(
    softhub: Command, make_adapter: MakeAdapter, base: Path, tmp_path: Path
) -> None:
    rows, file = tmp_path / "rows.jsonl", tmp_path / "texts.csv"
    rows.write_text(json.dumps({"text": TEXTS[0], "id": 7}) + "\n")
    ask = ("generate", make_adapter(task=SUMMARY), "--input", rows, "--base", base)
    done = softhub(*ask, "--output", file, "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")
    written = pd.read_csv(file)
    assert list(written.columns) == ["text", "id", "generated_text", "error"]
    assert softhub(*ask, "--quiet").out.strip() == str(written["generated_text"][0]).strip()


@pytest.mark.parametrize(
    ("file", "extra", "reason"),
    [
        ("labels.xls", [], "must end in .csv, .jsonl, .parquet"),
        ("labels.csv", ["--json"], "give one"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_loaded(
    softhub: Command, file: str, extra: list[str], reason: str
) -> None:
    done = softhub("predict", "me/none", "text", "--base", "unused", "--output", file, *extra)
    assert (done.code, done.out) == (2, "")
    assert reason in done.err


def test_a_folder_is_refused_as_output_before_anything_is_loaded(
    softhub: Command, tmp_path: Path
) -> None:
    (tmp_path / "labels.csv").mkdir()
    ask = ("predict", "me/none", "text", "--base", "unused", "--output")
    done = softhub(*ask, tmp_path / "labels.csv")
    assert (done.code, done.out) == (2, "")
    assert "is a folder" in done.err


def test_what_takes_long_is_said_once_in_a_log_and_not_if_quiet(
    softhub: Command, adapter: Path, base: Path
) -> None:
    ask = ("predict", adapter, *TEXTS, "--base", base)
    lines = softhub(*ask).err.splitlines()
    assert lines == [f"Loading {base} …", "Classifying: 2 texts …"]
    assert softhub(*ask, "--quiet").err == ""


def test_the_device_is_passed_on(softhub: Command, adapter: Path, base: Path) -> None:
    done = softhub("predict", adapter, "text", "--base", base, "--device", "nonsense")
    assert done.code == 1
    assert "nonsense" in done.err


def test_no_bar_of_a_library_reaches_a_log(adapter: Path, base: Path, tmp_path: Path) -> None:
    """Loading weights, reading Parquet and predicting have bars, which are for terminals."""
    file = tmp_path / "rows.parquet"
    pd.DataFrame({"text": TEXTS * 20}).to_parquet(file)
    command = [*SOFTHUB, "predict", adapter, "--input", file]
    done = subprocess.run([*command, "--base", base], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"Classifying: 40 texts" in done.stderr
    assert b"\r" not in done.stderr and b"%|" not in done.stderr
    assert done.stdout.count(b"\n") == 41
