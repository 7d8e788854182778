"""What a run's folder holds is told; what is damaged in it is told too, and nothing fails."""

import json
import os
import subprocess
import sys

import pytest

from softhub.experiments.runs import find_runs, is_run, read_run
from tests.experiments.runs.folders import write_adapter, write_checkpoint, write_report, write_run


def read(folder):
    return read_run(folder, folder.parent)


def test_a_finished_run_tells_everything(tmp_path):
    write_run(tmp_path / "mood", seed=4)
    run = read(tmp_path / "mood")
    assert (run.path, run.state, run.note) == ("mood", "finished", "")
    assert (run.task, run.base_model, run.num_virtual_tokens) == ("mood", "example/tiny", 3)
    assert (run.score.name, run.score.value) == ("accuracy", 0.9)
    assert (run.score.low, run.score.high) == pytest.approx((0.85, 0.95))
    assert (run.dev_loss, run.best_step, run.steps, run.seconds) == (0.4, 20, 30, 120.0)
    assert (run.seed, run.date) == (4, "2026-01-02T03:04:05+00:00")
    assert run.provenance["code"] == {"commit": "b" * 40, "dirty": False}
    assert run.config == {"task": "mood.yaml", "init": "labels"}
    assert json.loads(json.dumps(run.to_record()))["score"]["value"] == 0.9


def test_what_training_warned_of_is_the_note(tmp_path):
    write_run(tmp_path, report={"warnings": ["Training collapsed.", "7 texts were cut."]})
    assert read(tmp_path).note == "Training collapsed. 7 texts were cut."


def test_unfinished_runs_say_how_far_they_are(tmp_path):
    write_checkpoint(tmp_path / "stopped", 10)
    write_checkpoint(tmp_path / "stopped", 20)
    stopped = read(tmp_path / "stopped")
    assert (stopped.state, stopped.steps, stopped.best_step) == ("interrupted", 20, 20)
    assert stopped.note == "at step 20 of 30; resume with --resume"
    write_checkpoint(tmp_path / "trained", 30)
    trained = read(tmp_path / "trained")
    assert (trained.state, trained.dev_loss, trained.best_step) == ("only checkpoints", 0.4, 20)
    assert "--resume" in trained.note
    ended = [{"step": 20, "eval_loss": 0.4}, {"step": 20, "ended": "auto_max_minutes is 3"}]
    write_checkpoint(tmp_path / "ended", 20, last=2000, log_history=ended)
    assert read(tmp_path / "ended").state == "only checkpoints"
    (tmp_path / "started").mkdir()
    (tmp_path / "started" / "run_state.json").write_text('{"rate": 0.1, "failures": []}')
    assert read(tmp_path / "started").state == "started"


def write_plan(folder, **about):
    (folder / "run_state.json").write_text(json.dumps({"rate": 0.1, "about": about}))


@pytest.mark.parametrize(("steps", "of"), [("auto", ""), (30, " of 30")])
def test_a_run_that_ends_by_itself_has_no_number_of_steps(tmp_path, steps, of):
    write_checkpoint(tmp_path, 20)
    write_plan(tmp_path, max_steps=steps)
    assert read(tmp_path).note == f"at step 20{of}; resume with --resume"


@pytest.mark.parametrize(
    ("began", "state"), [("2026-01-02T03:04:05+00:00", "finished"), ("2026-01-03", "interrupted")]
)
def test_a_run_that_replaces_a_finished_one_is_not_finished(tmp_path, began, state):
    """Its adapter and its report are those of the earlier run until it ends."""
    write_adapter(tmp_path / "adapter", seed=1)
    write_report(tmp_path)  # of 2026-01-02T03:04:05
    write_checkpoint(tmp_path, 20)
    write_plan(tmp_path, seed=2, task="mood", began=began)
    run = read(tmp_path)
    assert run.state == state
    expected = (1, "accuracy", 30) if state == "finished" else (2, None, 20)
    assert (run.seed, run.score and run.score.name, run.steps) == expected


def test_an_unfinished_run_says_what_it_is_of_and_whether_it_gave_up(tmp_path):
    about = {"task": "mood", "base_model": "org/base", "num_virtual_tokens": 4, "seed": 7}
    (tmp_path / "run").mkdir()
    plan = {"rate": 0.1, "test": None, "failures": [], "gave_up": None, "about": about}
    (tmp_path / "run" / "run_state.json").write_text(json.dumps(plan))
    run = read(tmp_path / "run")
    assert (run.task, run.base_model, run.num_virtual_tokens, run.seed) == tuple(about.values())
    plan["gave_up"] = "it gave every text one label at step 40"
    (tmp_path / "run" / "run_state.json").write_text(json.dumps(plan))
    run = read(tmp_path / "run")
    assert (run.state, run.note) == ("failed", plan["gave_up"])
    write_adapter(tmp_path / "run" / "adapter")
    run = read(tmp_path / "run")
    assert (run.state, run.note) == ("finished", plan["gave_up"])


def test_a_loss_that_is_no_number_is_a_failure(tmp_path):
    write_checkpoint(tmp_path, 20, log_history=[{"step": 20, "loss": float("nan")}])
    run = read(tmp_path)
    assert (run.state, run.note) == ("failed", "the loss is nan at step 20")


def test_a_restarted_run_has_the_progress_of_its_last_attempt(tmp_path):
    (tmp_path / "run_state.json").write_text('{"failures": [{"reason": "it gave one label"}]}')
    write_checkpoint(tmp_path, 30)
    write_checkpoint(tmp_path / "restart-1", 10)
    run = read(tmp_path)
    assert (run.state, run.steps) == ("interrupted", 10)
    assert run.note.endswith("; restarts: 1")
    assert len(find_runs(tmp_path)) == 1


def test_a_comparison_is_left_to_its_own_report(tmp_path):
    write_checkpoint(tmp_path / "compared" / "runs" / "p3-seed1", 30)
    write_adapter(tmp_path / "compared" / "adapters" / "p3-seed1", seed=1, metrics=False)
    (tmp_path / "compared" / "report.json").write_text('{"lines": []}')
    (tmp_path / "compared" / "comparison.json").write_text('{"data": {"test": {"examples": 7}}}')
    write_run(tmp_path / "mood")
    assert [run.path for run in find_runs(tmp_path)] == ["mood"]
    assert find_runs(tmp_path / "compared") == []


def test_plain_peft_adapters_are_finished_runs_of_unknown_task(tmp_path):
    write_adapter(tmp_path / "adapter")
    (tmp_path / "adapter" / "softhub.json").unlink()
    run = read(tmp_path)
    assert (run.state, run.task) == ("finished", None)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("report.json", b'{"rows": [', "not valid JSON"),
        ("report.json", b"[1]", "contains no JSON object"),
        ("report.json", b"\xff\xfe\x00", "not valid JSON"),
        ("report.json", b"[" * 100_000, ""),
        ("report.json", b'{"config": ' + b'{"a": ' * 60 + b"1" + b"}" * 61, "deeper than"),
        ("report.json", b'{"config": {"a": NaN}}', "finite"),
        ("report.json", b'{"seed": ' + b"9" * 5000 + b"}", "not valid JSON"),
        ("adapter/adapter_model.safetensors", b"\x80\x04pickle", ""),
        ("adapter/softhub.json", b"{}", ""),
        ("adapter/adapter_config.json", b"", ""),
        ("checkpoint-30/trainer_state.json", b"{}", "no trainer_state.json"),
        ("checkpoint-30/trainer_state.json", b'{"global_step": "x"}', "has no number of steps"),
        ("run_state.json", b"\x00", "not valid JSON"),
    ],
)
def test_a_damaged_run_is_told_as_such(name, content, said, tmp_path):
    write_run(tmp_path / "run")
    write_run(tmp_path / "sound")
    (tmp_path / "run" / name).write_bytes(content)
    runs = {run.path: run for run in find_runs(tmp_path)}
    assert runs["sound"].state == "finished"
    assert runs["run"].state == "damaged"
    assert said in runs["run"].note and runs["run"].note


def test_a_report_without_its_adapter_is_damaged(tmp_path):
    write_report(tmp_path)
    assert (read(tmp_path).state, "adapter" in read(tmp_path).note) == ("damaged", True)


@pytest.mark.parametrize("value", [None, 7, "x", [[]], {"a": 1}, [1, "y"], True, 1e308, 10**300])
def test_values_of_any_type_are_survived(value, tmp_path):
    keys = ("rows", "training", "history", "warnings", "date")
    for key in keys:
        write_run(tmp_path / key, report={key: value})
    inside = {"steps": value, "best_step": value, "seconds": value}
    logs = [{"step": value, "eval_loss": value, "loss": value}]
    write_run(tmp_path / "inside", report={"training": inside, "history": logs})
    write_checkpoint(tmp_path / "state", 20, log_history=value, best_global_step=value)
    write_checkpoint(tmp_path / "logs", 20, log_history=logs)
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan" / "run_state.json").write_text(json.dumps({"failures": value}))
    runs = find_runs(tmp_path)
    assert len(runs) == len(keys) + 4
    assert not [run for run in runs if run.state == "damaged"]
    json.dumps([run.to_record() for run in runs], allow_nan=False)


@pytest.mark.skipif(os.name == "nt", reason="named pipes and links of POSIX")
def test_pipes_links_and_giants_hold_nobody_up(tmp_path, monkeypatch):
    write_run(tmp_path / "pipe")
    (tmp_path / "pipe" / "report.json").unlink()
    os.mkfifo(tmp_path / "pipe" / "report.json")
    (tmp_path / "loop").symlink_to(tmp_path)
    write_run(tmp_path / "giant")
    with (tmp_path / "giant" / "report.json").open("r+b") as file:
        file.truncate(2**31)  # sparse
    runs = {run.path: run for run in find_runs(tmp_path)}
    assert set(runs) == {"pipe", "giant"}
    assert "not a regular file" in runs["pipe"].note
    assert "larger than" in runs["giant"].note


def test_what_is_no_run_is_left_out(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "checkpoint-x").mkdir()
    (tmp_path / ".hidden").mkdir()
    write_run(tmp_path / ".hidden" / "run")
    assert find_runs(tmp_path) == []
    assert not is_run(tmp_path / "missing")


def test_the_index_loads_no_torch():
    code = (
        "import softhub.experiments.runs, softhub.cli.runs, sys; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
