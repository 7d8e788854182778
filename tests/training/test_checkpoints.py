"""Going on from the right checkpoint, and from none that was cut short or is another run's."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from softhub.errors import TrainingError, TrainingInterrupted
from softhub.training.checkpoints import last_checkpoint
from softhub.training.encoded_task import encode_task
from softhub.training.initialization import dev_loss


@pytest.mark.parametrize("left", [None, "", '{"global_st'])
def test_a_checkpoint_that_was_cut_short_is_passed_over(toy_fit, tmp_path, ctrl_c_at, left):
    _, whole = toy_fit(output_dir=str(tmp_path / "whole"))
    cut = tmp_path / "cut"
    with ctrl_c_at(9), pytest.raises(TrainingInterrupted, match="after step 10"):
        toy_fit(output_dir=str(cut))
    newest = cut / "checkpoint-10"  # the state is what transformers writes last
    (newest / "trainer_state.json").unlink()
    if left is not None:
        (newest / "trainer_state.json").write_text(left)
    assert last_checkpoint(cut) == str(cut / "checkpoint-8")
    _, resumed = toy_fit(output_dir=str(cut), resume=True)
    assert torch.allclose(resumed.prompt.vectors, whole.prompt.vectors, atol=1e-6)


def test_a_run_is_not_resumed_from_the_one_before_it(toy_fit, tmp_path, ctrl_c_at, caplog):
    """The first run's checkpoint has more steps than the second's when that is stopped."""
    folder = tmp_path / "run"
    _, whole = toy_fit(output_dir=str(tmp_path / "whole"), seed=7)
    _, first = toy_fit(seed=1)
    with ctrl_c_at(5), pytest.raises(TrainingInterrupted, match="after step 6"):
        toy_fit(seed=7)
    assert "Starting a new run" in caplog.text
    assert {path.name for path in folder.glob("*checkpoint-*")} == {
        "earlier-checkpoint-8",
        "earlier-checkpoint-12",
        "checkpoint-4",
        "checkpoint-6",
    }
    _, resumed = toy_fit(seed=7, resume=True)
    assert torch.allclose(resumed.prompt.vectors, whole.prompt.vectors, atol=1e-6)
    assert not torch.allclose(resumed.prompt.vectors, first.prompt.vectors, atol=1e-3)
    toy_fit(seed=1)  # checkpoints that are set aside twice


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"seed": 7}, "seed 42 instead of 7: "),
        ({"task": "other"}, "task 'toy' instead of 'other': "),
        ({"data": (8, 40)}, "other train examples, other dev examples: "),
        ({"data": (24, 40)}, "other train examples, other dev examples: "),
        ({"learning_rate": 0.5}, r"learning_rate 0\.1 instead of 0\.5: "),
        ({"learning_rate": None}, r"learning_rate 0\.1 instead of 0\.0"),
        (
            {"seed": 7, "learning_rate": 0.5},
            r"seed 42 instead of 7, learning_rate 0\.1 instead of 0\.5: ",
        ),
    ],
)
def test_a_run_is_not_resumed_as_another(
    toy_fit, toy_task, toy_examples, tmp_path, ctrl_c_at, other, said
):
    with ctrl_c_at(5), pytest.raises(TrainingInterrupted):
        toy_fit()
    state = tmp_path / "run" / "run_state.json"
    before = state.read_bytes()
    if "task" in other:
        other = {"task": replace(toy_task, name=other["task"])}
    if "data" in other:
        start, end = other["data"]
        rows = toy_examples[start:end]
        other = {"data": {"train": rows[:12], "dev": rows[12:]}}
    with pytest.raises(TrainingError, match=f"Cannot resume a run that began with {said}.*data"):
        toy_fit(**other, resume=True)
    assert state.read_bytes() == before
    about = json.loads(before)["about"]
    old = {key: about[key] for key in ("task", "base_model", "num_virtual_tokens", "seed")}
    state.write_text(json.dumps({**json.loads(before), "about": old}))  # of an earlier version
    _, resumed = toy_fit(resume=True, max_steps=14)
    assert resumed.steps == 14
    after = json.loads(state.read_text())["about"]
    assert after["max_steps"] == 14 and after["train"] == about["train"]
    assert after["began"] is None  # unknown: a report of this run is not one of an earlier run


def test_where_all_checkpoints_were_cut_short_there_is_nothing_to_resume(toy_fit, tmp_path):
    toy_fit(max_steps=4)
    shutil.rmtree(tmp_path / "run" / "checkpoint-4")
    (tmp_path / "run" / "checkpoint-4").mkdir()
    with pytest.raises(TrainingError, match="Nothing to resume"):
        toy_fit(max_steps=4, resume=True)


def test_a_run_that_stopped_early_is_at_its_end(toy_fit):
    """Killed after it, while the test split was judged, it is taken over as it is."""
    options = {"learning_rate": 1e-30, "early_stopping_patience": 2, "max_steps": 32}
    _, whole = toy_fit(**options)
    _, again = toy_fit(**options, resume=True)
    assert (whole.steps, again.steps) == (12, 12)
    assert again.prompt.vectors.equal(whole.prompt.vectors)
    _, longer = toy_fit(**{**options, "early_stopping_patience": 3}, resume=True)
    assert longer.steps == 16


@pytest.mark.parametrize("steps", [12, "auto"])
def test_a_complete_run_that_was_moved_has_its_best_weights(toy_fit, tmp_path, steps):
    """No step is better by accuracy than the first that is evaluated."""
    options = {"max_steps": steps, "metric_for_best_model": "accuracy"}
    limits = {"auto_max_steps": 12, "warmup_steps": 0} if steps == "auto" else {}
    folders = {"output_dir": str(tmp_path / "here"), **limits}
    _, whole = toy_fit(**options, **folders)
    assert whole.best_step < whole.steps
    (tmp_path / "here").rename(tmp_path / "there")
    folders["output_dir"] = str(tmp_path / "there")
    _, again = toy_fit(**options, **folders, resume=True)
    assert again.best_step == whole.best_step
    assert torch.equal(again.prompt.vectors, whole.prompt.vectors)
    best = tmp_path / "there" / f"checkpoint-{whole.best_step}"
    (best / "model.safetensors").write_bytes(b"cut")
    for _ in range(2):
        with pytest.raises(TrainingError, match=rf"{best.name}, which .* is missing or damaged"):
            toy_fit(**options, **folders, resume=True)
        shutil.rmtree(best, ignore_errors=True)


@pytest.mark.parametrize("steps", [{"max_steps": 12}, {"max_steps": "auto", "auto_max_steps": 12}])
def test_the_best_step_is_saved_whenever_others_are(steps, toy_fit, toy_task, toy_examples):
    """Against the dev loss of the returned vectors; by accuracy, no step beats the first."""
    options = {**steps, "metric_for_best_model": "accuracy", "eval_steps": 1, "save_steps": 4}
    base, result = toy_fit(**options, save_total_limit=1)
    assert result.best_step % 4
    logged = {logs["step"]: logs["eval_loss"] for logs in result.history if "eval_loss" in logs}
    train, dev = toy_examples[:32], toy_examples[32:]
    encoded = encode_task(base, toy_task, train, dev, virtual_tokens=6)
    found = dev_loss(base, encoded, result.prompt.vectors, limit=None)
    assert found == pytest.approx(logged[result.best_step], rel=1e-5)
    _, again = toy_fit(**options, save_total_limit=1, resume=True)
    assert torch.equal(again.prompt.vectors, result.prompt.vectors)


def test_without_a_choice_the_last_step_is_reported(toy_fit):
    options = {"load_best_model_at_end": False, "metric_for_best_model": "accuracy"}
    _, result = toy_fit(**options)
    assert (result.best_step, result.best_score) == (12, None)


def test_only_the_checkpoints_of_the_last_run_are_set_aside(toy_fit, tmp_path):
    for steps in (2, 3, 5):
        toy_fit(max_steps=steps, eval_steps=steps, save_steps=steps)
    assert {path.name for path in (tmp_path / "run").glob("*checkpoint-*")} == {
        "earlier-checkpoint-3",
        "checkpoint-5",
    }


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt", "rng_state.pth"])
def test_a_checkpoint_with_a_damaged_file_is_passed_over(toy_fit, tmp_path, file):
    _, whole = toy_fit()
    damaged = tmp_path / "run" / "checkpoint-12" / file
    damaged.write_bytes(damaged.read_bytes()[:-20])
    assert last_checkpoint(tmp_path / "run") == str(tmp_path / "run" / "checkpoint-8")
    _, resumed = toy_fit(resume=True)
    assert torch.allclose(resumed.prompt.vectors, whole.prompt.vectors, atol=1e-6)
    (tmp_path / "run" / "checkpoint-12" / "model.safetensors").unlink()
    assert last_checkpoint(tmp_path / "run") == str(tmp_path / "run" / "checkpoint-8")


@pytest.mark.parametrize("text", ["", '{"learn', "[1]", '{"learning_rate": 1, "mood": 2}'])
def test_a_damaged_record_of_decisions_is_named(toy_fit, tmp_path, text):
    toy_fit()
    (tmp_path / "run" / "run_state.json").write_text(text)
    with pytest.raises(
        TrainingError, match=r"run_state\.json, which records .* is damaged.*start without resume"
    ):
        toy_fit(resume=True)
