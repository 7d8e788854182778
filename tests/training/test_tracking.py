"""Trackers get a run's losses and scores under its name, offline, and stdout stays clean.

Those that are not installed are skipped.
"""

import json
import sqlite3
from pathlib import Path

import pytest

from softhub.errors import TrainingError
from softhub.training import PromptTrainingArguments
from softhub.training.callbacks import _installed, check_trackers, run_name, tracked


def needs(tracker):
    return pytest.mark.skipif(not _installed(tracker), reason=f"{tracker} is not installed")


STEPS = {"max_steps": 4, "eval_steps": 2, "save_steps": 2, "max_restarts": 0}


@needs("tensorboard")
def test_tensorboard_has_losses_rates_and_scores(toy_fit, tmp_path, monkeypatch, capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    _, result = toy_fit(report_to="tensorboard", **STEPS)
    (file,) = (tmp_path / "run").rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file.parent))
    events.Reload()
    logged = {logs["step"]: logs["eval_loss"] for logs in result.history if "eval_loss" in logs}
    found = {event.step: event.value for event in events.Scalars("eval/loss")}
    assert found == pytest.approx(logged) and set(found) == {2, 4}
    tags = events.Tags()["scalars"]
    assert {"train/loss", "train/learning_rate", "eval/accuracy"} <= set(tags)
    assert capsys.readouterr().out == ""


@needs("trackio")
def test_trackio_has_the_run_by_its_name(toy_fit, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    _, result = toy_fit(report_to="trackio", **STEPS)
    (database,) = (tmp_path / "trackio").glob("softhub*.db")
    rows = sqlite3.connect(database).execute("select run_name, metrics from metrics").fetchall()
    assert {name for name, _ in rows} == {"run"}
    losses = [json.loads(metrics).get("eval/loss") for _, metrics in rows]
    logged = [logs["eval_loss"] for logs in result.history if "eval_loss" in logs]
    assert [loss for loss in losses if loss is not None] == pytest.approx(logged)
    assert capsys.readouterr().out == ""


@needs("wandb")
def test_each_run_is_one_of_its_own_in_wandb(toy_fit, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    for name in ("one", "two"):
        toy_fit(report_to="wandb", output_dir=str(tmp_path / name), **STEPS)
    files = list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    contents = [file.read_bytes() for file in files]
    assert len(contents) == 2
    assert all(any(name in content for content in contents) for name in (b"one", b"two"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("tracker", ["tensorboard", "trackio", "wandb"])
def test_a_tracker_that_is_missing_is_said_at_once(tracker, tmp_path, monkeypatch):
    monkeypatch.setattr("softhub.training.callbacks._installed", lambda name: name != tracker)
    with pytest.raises(TrainingError, match=f"{tracker}, which is not installed: pip install"):
        PromptTrainingArguments(output_dir=str(tmp_path), report_to=tracker, use_cpu=True)


def test_an_unknown_tracker_is_refused():
    with pytest.raises(TrainingError, match=r"tensorbord is not supported, only .*tensorboard"):
        check_trackers(["tensorbord"])
    check_trackers([])


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("runs/mood", "mood"),
        ("runs/multitask/code", "multitask/code"),
        ("runs/mood/restart-1", "mood/restart-1"),
        ("runs", "runs"),
        ("out", "out"),
        (str(Path("secret/place/mood").resolve()), "mood"),
        (str(Path("secret/mood/restart-2").resolve()), "mood/restart-2"),
    ],
)
def test_a_run_is_called_by_its_folder(folder, name):
    assert run_name(folder) == name


def test_a_given_name_stays_and_a_lent_one_goes(tmp_path):
    def arguments(**more):
        return PromptTrainingArguments(output_dir=str(tmp_path / "mood"), use_cpu=True, **more)

    args, named = arguments(), arguments(run_name="mine")
    for one, name in ((args, "mood"), (named, "mine")):
        one.report_to = ["codecarbon"]
        with tracked(one):
            assert one.run_name == name
    assert (args.run_name, named.run_name) == (None, "mine")
