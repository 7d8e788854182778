"""predict and generate from file to file: killed with -9 in the middle, and run again."""

import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from softhub import Predictor
from softhub.errors import ConfigError
from softhub.inference.file_prediction import predict_file
from softhub.tasks.row_source import RowSource
from tests.cli.conftest import SUMMARY, MakeAdapter
from tests.command import Command

# The command, in a process that kills itself when it is about to answer the third chunk.
KILLED = """
import os, signal
from softhub.cli import main
from softhub.inference.predictor import Predictor
answer, calls = Predictor.answer_rows, []
def killed(self, rows):
    calls.append(rows)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer(self, rows)
Predictor.answer_rows = killed
main()
"""


@pytest.mark.parametrize(
    ("verb", "given", "wanted"),
    [("predict", "csv", "parquet"), ("generate", "parquet", "jsonl"), ("predict", "jsonl", "csv")],
)
def test_a_kill_in_the_middle_changes_nothing(
    softhub: Command,
    make_adapter: MakeAdapter,
    base: Path,
    tmp_path: Path,
    verb: str,
    given: str,
    wanted: str,
) -> None:
    texts = ["" if n == 50 else f"Great value, number {n}." for n in range(80)]
    table, source = pd.DataFrame({"id": range(80), "text": texts}), tmp_path / f"rows.{given}"
    if given == "jsonl":
        table.to_json(source, orient="records", lines=True)
    else:
        table.to_csv(source) if given == "csv" else table.to_parquet(source)
    adapter = make_adapter() if verb == "predict" else make_adapter(task=SUMMARY)
    ask = [verb, adapter, "--base", base, "--input", source, "--batch-size", 2, "--output"]

    whole, output = tmp_path / f"whole.{wanted}", tmp_path / f"out.{wanted}"
    assert softhub(*ask, whole).code == 0
    killed = subprocess.run([sys.executable, "-c", KILLED, *map(str, ask), output])
    assert killed.returncode == -signal.SIGKILL
    assert not output.exists()
    saved = (tmp_path / f".out.{wanted}.partial").read_text().splitlines()
    assert len(saved) == 1 + 64  # two chunks of 16 batches

    done = softhub(*ask, output)
    assert (done.code, done.out) == (0, ""), done.err
    place = "line 52" if given == "csv" else "line 51" if given == "jsonl" else "row 51"
    assert f"1 of 80 rows have no answer (see the column 'error'); the first: {place}: " in done.err
    assert f"Wrote 80 rows to {output}" in done.err
    assert output.read_bytes() == whole.read_bytes()
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".")]


def test_ctrl_c_says_how_to_continue(
    softhub: Command,
    adapter: Path,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from softhub.inference.predictor import Predictor

    source, output = tmp_path / "texts.txt", tmp_path / "out.csv"
    source.write_text("".join(f"Text {n}\n" for n in range(40)))
    ask = ("predict", adapter, "--base", base, "--input", source, "--output", output)
    answer, calls = Predictor.answer_rows, []

    def interrupted(self, rows):  # type: ignore[no-untyped-def]
        calls.append(rows)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return answer(self, rows)

    monkeypatch.setattr(Predictor, "answer_rows", interrupted)
    stopped = softhub(*ask, "--batch-size", 1)
    assert stopped.code == 130
    assert "16 of 40 rows are answered and saved. Run the same command again" in stopped.err
    other = softhub(*ask, "--batch-size", 3)
    assert other.code == 1
    assert "interrupted command with another chunk_size and options" in other.err
    assert softhub(*ask, "--batch-size", 1).code == 0
    assert len(pd.read_csv(output)) == 40


def test_the_input_is_not_the_output(softhub: Command, adapter: Path, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("text\nGood.\n")
    done = softhub("predict", adapter, "--base", "unused", "--input", source, "--output", source)
    assert done.code == 1
    assert "is the input; choose another output" in done.err
    assert source.read_text() == "text\nGood.\n"


def test_a_folder_as_the_output_is_refused_before_anything_is_answered(
    make_adapter: MakeAdapter, base: Path, tmp_path: Path
) -> None:
    """Also by Python's function; the command line says so itself."""
    source, output = tmp_path / "rows.txt", tmp_path / "out.csv"
    source.write_text("Great value.\n")
    output.mkdir()
    predictor = Predictor(base, make_adapter())
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match=f"{output} is a folder; expected a file"):
        predict_file(predictor, RowSource.of_file(source), output)
    assert {path.name for path in tmp_path.iterdir()} == before
