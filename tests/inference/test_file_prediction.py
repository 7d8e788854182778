"""Files of any size: the same rows in the same order, after a kill, too, and in flat memory."""

import csv
import json
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from softhub import Predictor, PromptModel
from softhub.errors import ConfigError, DatasetError, PredictionInterrupted
from softhub.inference.file_prediction import predict_file
from softhub.model.base import BaseModel
from softhub.tasks.row_source import RowSource
from tests.prompts import PROMPTS, TEXTS, soft_prompt

ROWS = [{"id": n, "text": f"{TEXTS[n % 5]} {n}", "note": None} for n in range(23)]


@pytest.fixture
def predictor_of(
    loaded: Callable[[str], BaseModel], tiny_base: Callable[[str], Path]
) -> Callable[..., Predictor]:
    def make(name: str = "mood", **options: Any) -> Predictor:
        task, rows, seed = PROMPTS[name]
        prompt = soft_prompt(loaded("llama"), rows, task, seed=seed)
        return Predictor(tiny_base("llama"), prompt, **options)

    return make


def written(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows in the format of the ending."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        pd.DataFrame(rows).to_parquet(path, index=False)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """Read what was written."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def left(folder: Path) -> set[str]:
    """Return the names in a folder."""
    return {entry.name for entry in folder.iterdir()}


@pytest.mark.parametrize("given", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("wanted", ["csv", "jsonl", "parquet"])
def test_rows_and_answers_in_order(
    predictor_of: Callable[..., Predictor],
    model_of: Callable[[str], PromptModel],
    tmp_path: Path,
    given: str,
    wanted: str,
) -> None:
    source = written(tmp_path / f"rows.{given}", ROWS)
    output = tmp_path / f"scored.{wanted}"
    report = predict_file(predictor_of(), RowSource.of_file(source), output, chunk_size=10)
    assert (report.rows, report.failed, report.first_error) == (23, 0, None)
    assert left(tmp_path) == {source.name, output.name}
    expected = model_of("llama").predict([row["text"] for row in ROWS], prompt="mood")
    found = read(output)
    assert [row["text"] for row in found] == [row["text"] for row in ROWS]
    text = "csv" in (given, wanted)  # whose values have no type
    assert [row["id"] for row in found] == [str(n) if text else n for n in range(23)]
    assert [row["predicted_label"] for row in found] == [each.label for each in expected]
    assert [float(row["probabilities.good"]) for row in found] == pytest.approx(
        [each.probabilities["good"] for each in expected], abs=1e-5
    )
    assert list(found[0]) == [
        *("id", "text", "note", "predicted_label", "abstained"),
        *("probabilities.good", "probabilities.bad", "error"),
    ]


def test_generated_texts_of_a_text_file(
    predictor_of: Callable[..., Predictor], model_of: Callable[[str], PromptModel], tmp_path: Path
) -> None:
    source, output = tmp_path / "texts.txt", tmp_path / "out.jsonl"
    source.write_text("\n\n".join(TEXTS))
    predictor = predictor_of("summary", method="generate")
    predict_file(predictor, RowSource.of_file(source), output, chunk_size=2)
    expected = model_of("llama").generate(TEXTS, prompt="summary")
    assert read(output) == [
        {"text": text, "generated_text": answer, "error": None}
        for text, answer in zip(TEXTS, expected, strict=True)
    ]


@pytest.mark.parametrize("wanted", ["csv", "jsonl", "parquet"])
def test_bad_rows_are_reported_with_their_line(
    predictor_of: Callable[..., Predictor], tmp_path: Path, wanted: str
) -> None:
    bad = {2: "", 3: None, 5: {"a": 1}, 6: "half \ud83d", 8: ["of", "two lines"], 9: [1, 2]}
    rows = [{"text": bad.get(line, f"Good. {line}")} for line in range(1, 10)] + [{"id": 1}]
    source, output = written(tmp_path / "rows.jsonl", rows), tmp_path / f"out.{wanted}"
    report = predict_file(predictor_of(), RowSource.of_file(source), output, chunk_size=4)
    assert (report.rows, report.failed) == (10, 6)
    assert report.first_error == "line 2: the column 'text' is empty; expected text"
    found = read(output)
    failed = {line for line, row in enumerate(found, start=1) if row["error"]}
    assert failed == {2, 3, 5, 6, 9, 10}
    for line, row in enumerate(found, start=1):
        if line in failed:
            assert row["error"].startswith(f"line {line}: ")
            assert not row["predicted_label"]
        else:
            assert row["predicted_label"] in ("good", "bad")


@pytest.mark.parametrize("name", ["mood", "summary"])
@pytest.mark.parametrize("rest", [b"", b'{"predicted_label": "go', b"\0\0\0\n"])
def test_an_interrupted_file_is_continued(
    predictor_of: Callable[..., Predictor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    rest: bytes,
) -> None:
    method = "predict" if name == "mood" else "generate"
    source = written(tmp_path / "rows.csv", ROWS)
    whole, output = tmp_path / "whole.csv", tmp_path / "out.csv"
    predict_file(predictor_of(name, method=method), RowSource.of_file(source), whole, chunk_size=4)

    predictor, asked = predictor_of(name, method=method), []
    answer = Predictor.answer_rows

    def interrupted(self: Predictor, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        asked.append(rows[0]["id"])
        if rows[0]["id"] == "12" and len(asked) < 5:
            raise KeyboardInterrupt
        return answer(self, rows)

    monkeypatch.setattr(Predictor, "answer_rows", interrupted)
    with pytest.raises(PredictionInterrupted, match=r"12 of 23 rows.*same command again"):
        predict_file(predictor, RowSource.of_file(source), output, chunk_size=4)
    assert not output.exists()
    with (tmp_path / ".out.csv.partial").open("ab") as file:
        file.write(rest)  # as a kill leaves it in the middle of a line
    predict_file(predictor, RowSource.of_file(source), output, chunk_size=4)
    assert asked == ["0", "4", "8", "12", "12", "16", "20"]
    assert output.read_bytes() == whole.read_bytes()
    assert left(tmp_path) == {"rows.csv", "whole.csv", "out.csv"}


@pytest.mark.parametrize("changed", ["input", "prompts", "options"])
def test_what_another_command_left_is_not_continued(
    predictor_of: Callable[..., Predictor], tmp_path: Path, changed: str
) -> None:
    source, output = written(tmp_path / "rows.csv", ROWS), tmp_path / "out.csv"
    saved = tmp_path / ".out.csv.partial"
    predictor = predictor_of("mood")
    record = {"softhub": "0.1.0", "chunk_size": 512, "input": RowSource.of_file(source).digest}
    saved.write_text(json.dumps(record | predictor.record()) + "\n")
    if changed == "input":
        written(source, ROWS[:-1])
    other = {"prompts": ("topic", {}), "options": ("mood", {"abstain_below": 0.9})}
    name, options = other.get(changed, ("mood", {}))
    with pytest.raises(ConfigError, match=f"with another.*{changed}"):
        predict_file(predictor_of(name, **options), RowSource.of_file(source), output)
    assert saved.exists() and not output.exists()


def test_two_processes_do_not_write_one_output(
    predictor_of: Callable[..., Predictor], tmp_path: Path
) -> None:
    source, output = written(tmp_path / "rows.csv", ROWS), tmp_path / "out.csv"
    with (
        FileLock(tmp_path / ".out.csv.partial.lock"),
        pytest.raises(ConfigError, match="Another process is writing"),
    ):
        predict_file(predictor_of(), RowSource.of_file(source), output)


@pytest.mark.parametrize("failing", ["csv", "jsonl", "parquet"])
def test_a_failure_while_writing_leaves_the_earlier_output(
    predictor_of: Callable[..., Predictor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
) -> None:
    source, output = written(tmp_path / "rows.csv", ROWS), tmp_path / f"out.{failing}"
    output.write_text("earlier")

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("softhub.inference.file_prediction.sync_file", full)
        with pytest.raises(OSError, match="No space left"):
            predict_file(predictor_of(), RowSource.of_file(source), output)
    assert output.read_text() == "earlier"
    asked: list[object] = []
    monkeypatch.setattr(Predictor, "answer_rows", lambda *arguments: asked.append(arguments))
    predict_file(predictor_of(), RowSource.of_file(source), output)
    assert (asked, len(read(output))) == ([], 23)


def test_what_cannot_work_is_refused_before_the_base_is_loaded(
    predictor_of: Callable[..., Predictor], tmp_path: Path
) -> None:
    predictor = predictor_of()
    predictor.base = "none"
    source = RowSource.of_file(written(tmp_path / "rows.csv", ROWS))
    with pytest.raises(ConfigError, match="is the input"):
        predict_file(predictor, source, tmp_path / "rows.csv")
    with pytest.raises(ConfigError, match="must end in"):
        predict_file(predictor, source, tmp_path / "rows.xls")
    for columns, error in (
        ({"review": "Good."}, DatasetError),
        ({"text": "Good.", "error": "none"}, ConfigError),
    ):
        other = RowSource.of_file(written(tmp_path / "other.csv", [columns]))
        with pytest.raises(error, match=r"review|error"):
            predict_file(predictor, other, tmp_path / "out.csv")


def test_mixed_types_of_json_have_one_in_parquet(
    predictor_of: Callable[..., Predictor], tmp_path: Path
) -> None:
    values = {
        "whole": [1, 2, None],
        "number": [1, 2.5, None],
        "flag": [True, False, None],
        "mixed": [1, "one", [1, 2]],
        "none": [None, None, None],
        "huge": [2**70, 1, 0],
    }
    rows = [
        {"text": "Good.", **{name: each[row] for name, each in values.items()}} for row in range(3)
    ]
    source, output = written(tmp_path / "rows.jsonl", rows), tmp_path / "out.parquet"
    predict_file(predictor_of(), RowSource.of_file(source), output)
    found = pq.read_table(output)
    assert found["whole"].type == pa.int64()
    assert found["number"].to_pylist() == [1.0, 2.5, None]
    assert found["flag"].to_pylist() == values["flag"]
    assert found["mixed"].to_pylist() == ["1", "one", "[1, 2]"]
    assert found["none"].type == pa.string()
    assert found["huge"].to_pylist() == [str(2**70), "1", "0"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_memory_does_not_grow_with_the_file(
    predictor_of: Callable[..., Predictor], tmp_path: Path, kind: str
) -> None:
    width, count, chunk = 100_000, 600, 10  # 60 MB, of which 1 MB is held at a time
    source, output = tmp_path / f"rows.{kind}", tmp_path / f"out.{kind}"
    write_wide(source, count, width)
    predictor = predictor_of(batch_size=10)
    predictor({"text": TEXTS})
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    report = predict_file(predictor, RowSource.of_file(source), output, chunk_size=chunk)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert report.rows == count
    assert most < 30e6 and pa.total_allocated_bytes() - before < 30e6
    assert output.stat().st_size > 1e6


def write_wide(path: Path, count: int, width: int) -> None:
    """Write rows with a wide column that no template reads."""
    fields = {"text": "Good.", "page": ""}
    if path.suffix == ".parquet":
        schema = pa.schema({"text": pa.string(), "page": pa.string()})
        with pq.ParquetWriter(path, schema) as writer:
            for start in range(0, count, 20):
                rows = [fields | {"page": f"{start}-{n} " * (width // 8)} for n in range(20)]
                writer.write_table(pa.Table.from_pylist(rows, schema))
        return
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, fields)
        if path.suffix == ".csv":
            table.writeheader()
        for n in range(count):
            row = fields | {"page": f"{n:07} " * (width // 8)}
            if path.suffix == ".csv":
                table.writerow(row)
            else:
                file.write(json.dumps(row) + "\n")
