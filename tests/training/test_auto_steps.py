"""`max_steps: auto`: warm-up, a stable phase until dev stops falling, a decay, and one line why."""

from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerState

from softhub.errors import TrainingError, TrainingInterrupted
from softhub.training import PromptTrainingArguments
from softhub.training.auto_steps import AutoSteps, Ending

AUTO = {"max_steps": "auto", "eval_steps": 2, "save_steps": 2, "warmup_steps": 2}


def arguments(**options):
    return PromptTrainingArguments(use_cpu=True, disable_tqdm=True, **options)


def run_of(losses, steps_per_pass=40, **options):
    """The decision about a run with these dev losses, one every 20 steps, and its rates."""
    auto = AutoSteps(arguments(warmup_steps=6, **options), steps_per_pass)
    state = TrainerState(eval_steps=20, max_steps=2000, is_world_process_zero=False)
    auto.on_train_begin(None, state, None)
    for index, loss in enumerate(losses, start=1):
        state.global_step = 20 * index
        state.log_history.append({"step": state.global_step, "eval_loss": loss})
        auto.on_evaluate(None, state, None)
    return auto, state


def test_the_rate_warms_up_stays_and_decays_when_dev_stops_falling():
    auto, state = run_of([1.0, 0.8, 0.6, 0.5, 0.5, 0.499, 0.52, 0.51, 0.5, 0.4])
    assert auto.ending == Ending.recorded(state.log_history)
    # Five evaluations after that of step 80 are 100 steps, two and a half passes of these data.
    assert (auto.ending.decay_from, auto.ending.last_step, state.max_steps) == (180, 225, 225)
    assert str(auto.ending) == (
        "ended after 225 steps, 45 of decay: the dev loss has not fallen for 100 steps (2.5 passes)"
    )
    rates = [auto.rate(step) for step in (0, 3, 6, 179, 180, 202.5, 225, 240)]
    assert rates == pytest.approx([0, 0.5, 1, 1, 1, 0.5, 0, 0])


def test_patience_is_in_passes_over_the_data():
    flat = [1.0] * 30
    assert run_of(flat, steps_per_pass=800)[0].ending.decay_from == 20 + 200  # a quarter of 800
    assert run_of(flat, steps_per_pass=800, auto_patience=0.5)[0].ending.decay_from == 20 + 400
    assert run_of(flat, steps_per_pass=4)[0].ending.decay_from == 20 + 100  # five evaluations


def test_a_run_that_goes_on_falling_ends_at_the_most_steps():
    falling = [0.97**index for index in range(60)]
    auto, _ = run_of(falling, auto_max_steps=500)
    assert (auto.ending.decay_from, auto.ending.last_step) == (400, 500)
    assert "auto_max_steps is 500" in str(auto.ending)
    assert run_of(falling)[0].ending is None


def test_a_run_ends_in_the_minutes_that_it_has(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("softhub.training.auto_steps.time.monotonic", lambda: clock.now)
    auto = AutoSteps(arguments(auto_max_minutes=10), 10_000)
    state = TrainerState(eval_steps=20, max_steps=2000, is_world_process_zero=False)
    auto.on_train_begin(None, state, None)
    for step in range(20, 400, 20):
        clock.now = 3.0 * step  # seconds: ten minutes are 200 steps
        state.global_step = step
        state.log_history.append({"step": step, "eval_loss": 1 / step})
        auto.on_evaluate(None, state, None)
    assert (auto.ending.decay_from, auto.ending.last_step) == (160, 200)
    assert "auto_max_minutes is 10" in str(auto.ending)


def test_it_is_the_default_and_a_number_is_one():
    assert arguments().is_auto and arguments(max_steps=None).is_auto
    assert (arguments(max_steps="60").max_steps, arguments(max_steps=60).is_auto) == (60, False)
    with pytest.raises(TrainingError, match="max_steps is 'soon'; expected a number"):
        arguments(max_steps="soon")


def test_two_ways_of_ending_are_refused(toy_fit):
    with pytest.raises(TrainingError, match="leave out early_stopping_patience"):
        toy_fit(**AUTO, early_stopping_patience=2)


def test_a_run_ends_by_itself_and_says_why(toy_fit, capsys):
    _, result = toy_fit(**AUTO, learning_rate=1e-30, auto_max_steps=40)
    # Nothing is learned, so five evaluations after the first the decay begins.
    assert result.steps == 15
    assert result.ended.startswith("ended after 15 steps, 3 of decay: the dev loss has not fallen")
    training = result.prompt.manifest.provenance["training"]
    assert (training["max_steps"], training["lr_scheduler_type"]) == ("auto", "warmup_stable_decay")
    assert training["ended"] == result.ended
    line = "step 12: the dev loss has not fallen for 10 steps (2.5 passes); the learning rate"
    assert f"{line} decays until step 15" in capsys.readouterr().err


def test_the_optimizer_takes_the_rates_of_the_schedule(toy_fit):
    _, result = toy_fit(**AUTO, auto_max_steps=20)
    ending = Ending.recorded(result.history)
    rates = {logs["step"]: logs["learning_rate"] for logs in result.history if "loss" in logs}
    assert result.steps == ending.last_step == max(rates)
    decay = ending.last_step - ending.decay_from
    for step, rate in rates.items():  # logged after `step` steps: that of the step before
        before = step - 1
        factor = min(1.0, before / 2, (ending.last_step - before) / decay)
        assert rate == pytest.approx(0.1 * factor)


@pytest.mark.parametrize("at", [3, 5, 9])
def test_a_resumed_run_takes_the_same_steps_bit_by_bit(at, toy_fit, tmp_path, ctrl_c_at):
    """Interrupted before the decision, and within the decay."""
    options = {**AUTO, "auto_max_steps": 14, "auto_patience": 0.25, "logging_steps": 1}
    _, whole = toy_fit(**options, output_dir=str(tmp_path / "whole"))
    cut = str(tmp_path / "cut")
    with ctrl_c_at(at), pytest.raises(TrainingInterrupted):
        toy_fit(**options, output_dir=cut)
    _, resumed = toy_fit(**options, output_dir=cut, resume=True)
    assert (resumed.steps, resumed.ended) == (whole.steps, whole.ended)
    assert torch.equal(resumed.prompt.vectors, whole.prompt.vectors)
    _, again = toy_fit(**options, output_dir=cut, resume=True)  # a complete run is taken as it is
    assert (again.steps, again.seconds < 60) == (whole.steps, True)
    assert torch.equal(again.prompt.vectors, whole.prompt.vectors)


def test_a_restart_decides_anew(toy_fit, tmp_path):
    _, result = toy_fit(**AUTO, learning_rate=1e30, max_restarts=1, auto_max_steps=20)
    assert len(result.restarts) == 1 and result.ended is not None
    assert (tmp_path / "run" / "restart-1").is_dir()
