"""Runs that fail are detected, restarted in another way, and counted."""

import json
from functools import partial

import pytest
import torch
from peft import PromptTuningConfig
from transformers import TrainerState

from softhub.errors import SoftHubWarning, TrainingError
from softhub.experiments.runs import find_runs
from softhub.model.loading import load_base
from softhub.tasks import Example, Task, Template
from softhub.training import PromptTrainingArguments, fit
from softhub.training.encoded_task import encode_task
from softhub.training.learning_rate import scaled_rate
from softhub.training.restarts import Failure, FailureCallback, RunState

WILD = {"lr_scheduler_type": "constant", "warmup_steps": 0}


def balanced(toy_examples):
    """Half of each label: one label for all is then no better than chance."""
    bad = [example for example in toy_examples if example.label == "bad"]
    good = [example for example in toy_examples if example.label == "good"]
    return [example for pair in zip(good, bad, strict=False) for example in pair]


@pytest.fixture
def even_fit(toy_fit, toy_examples):
    """`toy_fit` on as many good texts as bad ones."""
    rows = balanced(toy_examples)
    return partial(toy_fit, data={"train": rows[:12], "dev": rows[12:]})


def test_a_run_that_explodes_is_begun_again_at_a_lower_rate(even_fit, tmp_path):
    with pytest.warns(SoftHubWarning, match="restarted once: The loss is nan"):
        base, result = even_fit(learning_rate=3e38, max_restarts=1, max_steps=4, **WILD)
    assert torch.isfinite(result.prompt.vectors).all()
    record = result.prompt.manifest.provenance
    assert [failure["reason"] for failure in record["restarts"]] == result.restarts
    assert record["training"]["learning_rate"] == pytest.approx(scaled_rate(base))
    assert record["training"]["learning_rate_rule"] == "scaled"
    state = json.loads((tmp_path / "run" / "run_state.json").read_text())
    assert state["failures"] == record["restarts"]
    assert len(result.restarts) == 1


def test_without_restarts_an_explosion_ends_the_run(even_fit):
    with pytest.raises(TrainingError, match=r"loss is nan.*lower learning_rate"):
        even_fit(learning_rate=3e38, max_restarts=0, **WILD)


def test_a_run_that_learns_nothing_is_begun_again(even_fit, tmp_path):
    """Nothing moves at this rate: the scaled one is tried, then another start."""
    with pytest.warns(SoftHubWarning, match="was restarted"):
        base, result = even_fit(
            learning_rate=1e-9, max_restarts=2, max_steps=6, eval_steps=1, save_steps=1
        )
    first, second = RunState.read(str(tmp_path / "run")).failures
    assert first["too_slow"]
    assert second["learning_rate"] == pytest.approx(scaled_rate(base))
    assert (first["init"], second["init"]) == ("labels", "labels")
    assert result.init in ("labels", "vocabulary")
    assert (tmp_path / "run" / "restart-2").is_dir()
    (told,) = find_runs(tmp_path)
    assert (told.task, told.seed, told.num_virtual_tokens) == ("toy", 42, 6)
    assert told.state == "failed"  # a tiny random base learns nothing better than chance


def test_a_run_that_fails_to_the_end_says_so(even_fit):
    with pytest.warns(SoftHubWarning, match="Training failed: its best dev loss.*Do not rely"):
        _, result = even_fit(learning_rate=1e-9, max_restarts=0, max_steps=4)
    assert any("Training failed" in warning for warning in result.warnings)
    with pytest.warns(SoftHubWarning, match="Training failed"):
        _, again = even_fit(learning_rate=1e-9, max_restarts=0, max_steps=4, resume=True)
    assert again.warnings[0] == result.warnings[0]
    with pytest.warns(SoftHubWarning, match="The last attempt failed too"):
        _, result = even_fit(learning_rate=1e-9, max_restarts=1, max_steps=4)
    assert result.steps == 8  # those of the attempt that failed included


def test_dev_losses_from_before_a_kill_count():
    """Sound at step 40, overfit after it: resumed at 90 it is as sound as without the kill."""
    guard = FailureCallback(0.69, stops=True)
    losses = {40: 0.45, 80: 0.72, 120: 0.73}
    history = [{"step": step, "eval_loss": loss} for step, loss in losses.items()]
    guard.check_result(TrainerState(log_history=history))
    assert guard.failure is None
    guard.check_result(TrainerState(log_history=history[1:]))
    assert guard.failure is not None


def test_a_sound_run_is_left_alone(tiny_base, tmp_path):
    base = load_base(tiny_base("llama"))
    task = Task(
        name="echo", kind="generation", template=Template("Say: {text}\n"), target_column="target"
    )
    rows = [Example(row={"text": f"no {n}"}, target=" yes yes", group=str(n)) for n in range(8)]
    results = []
    for restarts in (2, 0):
        args = PromptTrainingArguments(
            output_dir=str(tmp_path / str(restarts)),
            max_steps=8,
            eval_steps=4,
            save_steps=4,
            learning_rate=0.1,
            max_restarts=restarts,
            use_cpu=True,
            disable_tqdm=True,
        )
        config = PromptTuningConfig(task_type=base.task_type, num_virtual_tokens=4)
        data = {"train": rows, "dev": rows}
        results.append(fit(base, task, config, data, args=args, init="vocabulary"))
    assert results[0].restarts == []
    assert torch.equal(results[0].prompt.vectors, results[1].prompt.vectors)


def test_a_resumed_run_remembers_its_failures(even_fit, tmp_path):
    """The first attempt explodes, so that it is the second's prompt whatever the processor."""
    settings = {"learning_rate": 3e38, "max_restarts": 1, "max_steps": 4, **WILD}
    with pytest.warns(SoftHubWarning, match="was restarted"):
        _, whole = even_fit(**settings)
    with pytest.warns(SoftHubWarning, match="was restarted"):
        _, again = even_fit(**settings, resume=True)
    assert again.restarts == whole.restarts
    assert torch.equal(again.prompt.vectors, whole.prompt.vectors)
    assert again.steps == whole.steps > 4  # those of the attempt that has no checkpoint included


def test_the_floor_is_the_entropy_of_the_labels(tiny_base, toy_task, toy_examples):
    base = load_base(tiny_base("llama"))
    rows = toy_examples[:32]  # three of four are good
    encoded = encode_task(base, toy_task, rows, rows, virtual_tokens=4)
    assert encoded.label_entropy == pytest.approx(0.5623, abs=1e-4)


def test_a_resumed_run_of_failures_returns_the_best_of_them(even_fit, tmp_path):
    """The last attempt starts from other words, and is worse."""
    settings = {"learning_rate": 1e-9, "max_restarts": 2, "max_steps": 4, "init": "labels"}
    with pytest.warns(SoftHubWarning, match="was restarted twice"):
        _, whole = even_fit(**settings)
    with pytest.warns(SoftHubWarning, match="was restarted twice"):
        _, again = even_fit(**settings, resume=True)
    assert (again.init, again.best_score) == (whole.init, whole.best_score)
    assert (again.steps, again.warnings) == (whole.steps, whole.warnings)
    assert torch.equal(again.prompt.vectors, whole.prompt.vectors)


@pytest.mark.parametrize("steps", [4, "auto"])
def test_a_dev_loss_that_is_never_a_number_is_a_failure(even_fit, monkeypatch, steps):
    """As where a text of dev overflows in half precision."""
    monkeypatch.setattr(
        "softhub.training.trainer.count_items", lambda labels: torch.full((len(labels),), torch.nan)
    )
    limit = {"auto_max_steps": 4} if steps == "auto" else {}
    with pytest.warns(SoftHubWarning, match="its dev loss was NaN or infinite at every evaluation"):
        _, result = even_fit(max_steps=steps, **limit)
    assert result.best_score is None


def test_a_failed_attempt_that_cannot_be_restored_keeps_no_run_from_being_resumed(
    even_fit, tmp_path
):
    settings = {"learning_rate": 1e-9, "max_restarts": 1, "max_steps": 4, "eval_steps": 2}
    with pytest.warns(SoftHubWarning, match="was restarted once"):
        even_fit(**settings, save_steps=2)
    with pytest.raises(TrainingError, match=r"has a prompt of shape \[6, .*expected a prompt of"):
        even_fit(**settings, save_steps=2, tokens=5, resume=True)
    for folder in (tmp_path / "run").glob("checkpoint-*"):
        (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.warns(SoftHubWarning, match="was restarted once"):
        _, result = even_fit(**settings, save_steps=2, resume=True)
    assert result.steps == 6  # those of the attempt that was stopped early included


def test_a_rate_that_a_restart_corrected_is_not_recorded_as_scaled(even_fit, monkeypatch):
    """The first attempt explodes, so that it is the second's prompt, at a quarter of the rate."""
    monkeypatch.setattr(FailureCallback, "check_result", _explosion_of_the_first())
    with pytest.warns(SoftHubWarning, match="was restarted once"):
        base, result = even_fit(learning_rate=None, max_restarts=1, max_steps=4)
    training = result.prompt.manifest.provenance["training"]
    assert training["learning_rate"] == pytest.approx(scaled_rate(base) / 4)
    assert training["learning_rate_rule"] is None


def _explosion_of_the_first():
    seen = []

    def check_result(self, state):
        self.failure = None if seen else Failure("its loss was NaN", fatal=True)
        seen.append(state)

    return check_result


def test_a_dev_split_of_one_label_is_no_reason_to_restart(toy_fit, toy_examples):
    """Always predicting its label has a loss of 0, which nothing can be better than."""
    dev = [example for example in toy_examples[32:] if example.label == "good"]
    _, result = toy_fit(data={"train": toy_examples[:32], "dev": dev}, max_restarts=2)
    assert (result.restarts, result.warnings) == ([], [])
