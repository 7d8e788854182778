"""The table that people read, and the report that programs read."""

import json
import os
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pytest

from softhub.evaluation.evaluate import Evaluation
from softhub.evaluation.sandbox.runner import Outcome
from softhub.experiments.experiment import RunReport
from softhub.experiments.report import (
    Row,
    folder_bytes,
    print_table,
    with_scores,
    write_report,
)
from softhub.metrics.intervals import Interval
from softhub.model.prompt import SoftPrompt
from softhub.training.running import FitResult
from tests.prompts import MOOD, soft_prompt


def evaluation(accuracy, seconds=2.0):
    interval = Interval(accuracy, accuracy - 0.02, accuracy + 0.02)
    labels = ("good", "bad", "good", "good")
    return Evaluation({"accuracy": interval, "macro_f1": interval}, labels, labels, seconds)


ROWS = [
    Row("majority label", evaluation(0.6, seconds=0.0)),
    Row("zero-shot, bias-corrected", evaluation(0.885)),
    Row("soft prompt", evaluation(0.9275), 9216, 40123, 115.4),
]
TITLE = "sentiment on HuggingFaceTB/SmolLM2-135M-Instruct: 300 test examples"


def test_the_table_holds_every_figure_in_80_columns(capsys):
    print_table(ROWS, title=TITLE)
    found = capsys.readouterr()
    assert found.err == ""
    lines = found.out.splitlines()
    assert max(map(len, lines)) <= 80
    row = {row.name: next(x for x in lines if x.startswith(row.name[:9])) for row in ROWS}
    assert TITLE in found.out
    assert row["majority label"].split()[2:] == ["60.0", "(58.0-62.0)"] * 2 + ["-"] * 4
    assert "88.5 (86.5-90.5)" in row["zero-shot, bias-corrected"]
    for figure in ("92.8 (90.8-94.8)", "9,216", "40,123", "115 s", "2.0"):
        assert figure in row["soft prompt"]
    assert "95 %" in found.out


def test_the_report_is_json_with_rows_details_and_machine(tmp_path):
    path = write_report(tmp_path / "deep" / "report.json", ROWS, config={"file": Path("a/b")})
    record = json.loads(path.read_text())
    assert [row["name"] for row in record["rows"]] == [row.name for row in ROWS]
    soft = record["rows"][2]
    assert soft["metrics"]["accuracy"] == pytest.approx(
        {"value": 0.9275, "low": 0.9075, "high": 0.9475}
    )
    assert (soft["examples"], soft["trainable_parameters"], soft["bytes_on_disk"]) == (
        4,
        9216,
        40123,
    )
    assert soft["examples_per_second"] == 2
    assert record["rows"][0]["examples_per_second"] is None
    assert record["config"] == {"file": "a/b"}
    assert {"platform", "python", "cpus"} <= set(record["machine"])


def test_the_report_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = write_report(tmp_path / "report.json", ROWS[:1])
    before = path.read_bytes()

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_report(path, ROWS)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_scores_and_baselines_go_into_the_manifest(loaded):
    prompt = soft_prompt(loaded("llama"), 4, MOOD)
    baselines = {"majority label": evaluation(0.6), "zero-shot": evaluation(0.88)}
    scored = with_scores(prompt, evaluation(0.93), split="test", baselines=baselines)
    metric = scored.manifest.metrics[0]
    assert (metric.name, metric.value, metric.split, metric.examples) == (
        "accuracy",
        0.93,
        "test",
        4,
    )
    assert (metric.low, metric.high) == pytest.approx((0.91, 0.95))
    assert metric.baselines == {"majority label": 0.6, "zero-shot": 0.88}
    assert [metric.name for metric in scored.manifest.metrics] == ["accuracy", "macro_f1"]
    assert prompt.manifest.metrics == ()


def test_perplexity_is_no_share(capsys):
    scores = Evaluation({"perplexity": Interval(12.34, 11.04, 13.64)}, (), ("a", "b"), 2.0)
    print_table([Row("soft prompt", scores)], title=TITLE)
    found = capsys.readouterr().out
    assert "12.3 (11.0-13.6)" in found and "%" not in found.partition("In parentheses")[0]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_any_number_of_metrics_fits_80_columns(count, capsys):
    names = ["sacrebleu", "chrf", "exact_match", "rouge2", "rougeL", "valid_python", "pass_at_1"]
    interval = Interval(0.1234, 0.1034, 1.0)
    scores = Evaluation(dict.fromkeys(names[:count], interval), ("a",), ("a",), 2.0)
    print_table(
        [Row("zero-shot", scores), Row("soft prompt", scores, 28_800, 116_000, 1500.0)], title=TITLE
    )
    found = capsys.readouterr().out
    assert max(map(len, found.splitlines())) <= 80
    headings = ["BLEU", "chrF", "exact match", "ROUGE-2", "ROUGE-L", "valid Python", "pass@1"]
    assert [heading for heading in headings if f"{heading}, %" in found] == headings[:count]
    assert found.count("12.3 (10.3-100.0)") == 2 * count
    assert "28,800" in found and "1500 s" in found and "…" not in found


def test_how_programs_ended_is_counted(tmp_path):
    ends = tuple(Outcome(kind) for kind in ("passed", "failed", "failed", "timeout"))
    ran = replace(evaluation(0.25), outcomes=ends)
    path = write_report(tmp_path / "report.json", [Row("soft prompt", ran), ROWS[0]])
    record, plain = json.loads(path.read_text())["rows"]
    assert record["outcomes"] == {"passed": 1, "failed": 2, "timeout": 1}
    assert plain["outcomes"] is None


@dataclass
class Settings:
    seed: int


def test_a_run_leaves_adapter_report_and_table(loaded, tmp_path, capsys):
    prompt = soft_prompt(loaded("llama"), 4, MOOD)
    history = [{"step": 1, "loss": 0.5}]
    result = FitResult(prompt, history, 0.5, 1, 1, 7.0, 3.0, 2**20, ["a warning"])
    baselines = {"majority label": evaluation(0.6)}
    report = RunReport(result, evaluation(0.93), baselines)
    adapter = report.save(tmp_path, Settings(seed=1))
    report.print()
    saved = SoftPrompt.from_pretrained(adapter)
    assert saved.manifest.metrics[0].baselines == {"majority label": 0.6}
    record = json.loads((tmp_path / "report.json").read_text())
    assert [row["name"] for row in record["rows"]] == ["majority label", "soft prompt"]
    assert record["rows"][1]["bytes_on_disk"] == folder_bytes(adapter)
    assert (record["rows"][1]["trainable_parameters"], record["rows"][1]["train_seconds"]) == (
        4 * 32,
        7.0,
    )
    assert (record["history"], record["warnings"]) == (history, ["a warning"])
    assert record["config"] == {"seed": 1}
    assert record["provenance"] == {"seed": 0}
    assert record["training"]["best_step"] == 1
    assert record["training"]["peak_memory_bytes"] == 2**20
    assert datetime.fromisoformat(record["date"]).tzinfo
    assert (tmp_path / "curve.png").is_file() and (tmp_path / "curve.svg").is_file()
    out = capsys.readouterr().out
    assert "mood on example/tiny-llama: 4 test examples" in out
    assert f"Adapter: {tmp_path}/adapter" in out and "93.0" in out
    assert f"Curve:   {tmp_path}/curve.png" in out
    assert "Trained: 1 steps, best at step 1, peak memory 1 MB" in out


def test_the_bytes_of_a_folder_are_those_of_its_files(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 10)
    (tmp_path / "b").write_bytes(b"x" * 5)
    (tmp_path / "folder").mkdir()
    assert folder_bytes(tmp_path) == 15
