"""`max_steps: auto`: constant steps until dev stops falling, their average, and one line why."""

import math
from types import SimpleNamespace

import pytest
import torch
from peft import PrefixTuningConfig, PromptTuningConfig
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState

from softhub import PromptModel
from softhub.errors import TrainingError, TrainingInterrupted
from softhub.training import PromptTrainingArguments
from softhub.training.auto_steps import AutoSteps, Ending

AUTO = {"max_steps": "auto", "eval_steps": 2, "save_steps": 2, "warmup_steps": 2}


def arguments(**options):
    return PromptTrainingArguments(use_cpu=True, disable_tqdm=True, **options)


def run_of(losses, steps_per_pass=40, **options):
    """Where a run with these dev losses, one every 20 steps, ends; None if it goes on."""
    auto = AutoSteps(arguments(**options), steps_per_pass)
    state = TrainerState(eval_steps=20, max_steps=2000, is_world_process_zero=False)
    auto.on_train_begin(None, state, None)
    for index, loss in enumerate(losses, start=1):
        state.global_step, control = 20 * index, TrainerControl()
        state.log_history.append({"step": state.global_step, "eval_loss": loss})
        auto.on_evaluate(None, state, control)
        if control.should_training_stop:
            assert control.should_save  # so that a resumed run knows the decision
            return Ending.recorded(state.log_history)
    return None


def test_a_run_ends_when_dev_stops_falling():
    ending = run_of([1.0, 0.8, 0.6, 0.5, 0.5, 0.499, 0.52, 0.51, 0.5, 0.4])
    # Five evaluations after that of step 80 are 100 steps, two and a half passes of these data.
    assert str(ending) == (
        "ended after 180 steps: the dev loss has not fallen for 100 steps (2.5 passes)"
    )


def test_patience_is_in_passes_over_the_data():
    flat = [1.0] * 30
    assert run_of(flat, steps_per_pass=800).ended_at == 20 + 200  # a quarter of 800
    assert run_of(flat, steps_per_pass=800, auto_patience=0.5).ended_at == 20 + 400
    assert run_of(flat, steps_per_pass=4).ended_at == 20 + 100  # five evaluations


def test_a_run_that_goes_on_falling_ends_at_the_most_steps():
    falling = [0.97**index for index in range(60)]
    ending = run_of(falling, auto_max_steps=500)
    assert (ending.ended_at, ending.reason) == (500, "auto_max_steps is 500")
    assert run_of(falling) is None


def test_a_run_ends_in_the_minutes_that_it_has(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("softhub.training.auto_steps.time.monotonic", lambda: clock.now)
    auto = AutoSteps(arguments(auto_max_minutes=10), 10_000)
    state = TrainerState(eval_steps=20, max_steps=2000, is_world_process_zero=False)
    auto.on_train_begin(None, state, None)
    for step in range(20, 400, 20):
        clock.now = 3.1 * step  # seconds: ten minutes are 193 steps
        state.global_step, control = step, TrainerControl()
        state.log_history.append({"step": step, "eval_loss": 1 / step})
        auto.on_evaluate(None, state, control)
        if control.should_training_stop:
            break
    ending = Ending.recorded(state.log_history)
    assert (ending.ended_at, ending.reason) == (180, "auto_max_minutes is 10")


def test_it_is_the_default_and_a_number_is_one():
    assert arguments().is_auto and arguments(max_steps=None).is_auto
    assert (arguments(max_steps="60").max_steps, arguments(max_steps=60).is_auto) == (60, False)
    with pytest.raises(TrainingError, match="max_steps is 'soon'; expected a number"):
        arguments(max_steps="soon")


@pytest.mark.parametrize(
    "option", [{"early_stopping_patience": 2}, {"lr_scheduler_type": "cosine"}]
)
def test_settings_that_a_run_without_a_number_of_steps_cannot_have_are_refused(option, toy_fit):
    with pytest.raises(TrainingError, match=f"leave out .*{next(iter(option))}"):
        toy_fit(**AUTO, **option)


@pytest.mark.parametrize(
    "option", [{"auto_max_steps": 9}, {"auto_max_minutes": 2.0}, {"auto_patience": 0.5}]
)
def test_settings_that_a_fixed_number_of_steps_ignores_are_refused(option, toy_fit, tmp_path):
    with pytest.raises(TrainingError, match=f"leave out .*{next(iter(option))}"):
        toy_fit(max_steps=4, **option)
    assert not (tmp_path / "run").exists()


def test_no_checkpoint_is_saved_where_none_is_wanted(toy_fit, tmp_path):
    unsaved = {"save_strategy": "no", "load_best_model_at_end": False}
    _, result = toy_fit(**AUTO, auto_max_steps=4, **unsaved)
    assert result.ended is not None
    assert not list((tmp_path / "run").glob("checkpoint-*"))


def test_a_run_ends_by_itself_and_says_why(toy_fit, capsys):
    _, result = toy_fit(**AUTO, learning_rate=1e-30, auto_max_steps=40, auto_max_minutes=60.0)
    # Nothing is learned, so the run ends five evaluations after the first.
    assert result.steps == 12
    assert result.ended == (
        "ended after 12 steps: the dev loss has not fallen for 10 steps (2.5 passes)"
    )
    training = result.prompt.manifest.provenance["training"]
    assert training["max_steps"] == "auto"
    assert training["lr_scheduler_type"] == "constant_with_warmup"
    assert training["ended"] == result.ended
    assert training["auto_max_minutes"] == 60.0
    err = capsys.readouterr().err
    assert result.ended in err
    assert "step 12  dev" in err  # of how many is not known


def test_the_optimizer_takes_constant_rates_after_warm_up(toy_fit):
    _, result = toy_fit(**AUTO, auto_max_steps=10, auto_patience=9.0)
    assert result.ended == "ended after 10 steps: auto_max_steps is 10"
    rates = {logs["step"]: logs["learning_rate"] for logs in result.history if "loss" in logs}
    # Logged after `step` steps: that of the step before.
    assert rates == pytest.approx({1: 0.0, 2: 0.05, **dict.fromkeys(range(3, 11), 0.1)})


@pytest.mark.parametrize("method", [PromptTuningConfig, PrefixTuningConfig])
def test_the_average_of_the_steps_is_evaluated_and_kept(method, toy_fit, toy_examples, tmp_path):
    """Against the mean of what a run of the same steps at the same rates has after each of them."""

    def saved(folder, step):
        return load_file(tmp_path / folder / f"checkpoint-{step}" / "model.safetensors")

    single = {"method": method, "save_total_limit": None, "load_best_model_at_end": False}
    rates = {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 2, "save_steps": 1}
    toy_fit(max_steps=8, **rates, **single, output_dir=str(tmp_path / "fixed"))
    options = {**AUTO, "auto_max_steps": 8, "auto_patience": 9.0}
    base, result = toy_fit(**options, **single, output_dir=str(tmp_path / "auto"))
    mean = torch.stack([saved("fixed", step)["prompt"] for step in range(1, 9)]).mean(0)
    last = saved("auto", 8)
    assert torch.equal(last["prompt"], saved("fixed", 8)["prompt"])
    torch.testing.assert_close(last["averages.0"], mean)
    assert (last["averages.0"] - last["prompt"]).abs().max() > 1e-3
    unit = last.get("unit", 1.0)
    torch.testing.assert_close(result.prompt.vectors, mean * unit, rtol=1e-2, atol=1e-3)
    model = PromptModel(base)
    model.load_prompt(result.prompt, name="prompt")
    dev = toy_examples[32:]
    found = model.predict([example.row for example in dev], prompt="prompt")
    chances = [one.probabilities[each.label] for one, each in zip(found, dev, strict=True)]
    loss = [logs["eval_loss"] for logs in result.history if "eval_loss" in logs][-1]
    assert loss == pytest.approx(-sum(map(math.log, chances)) / len(dev), rel=1e-3)


@pytest.mark.parametrize("at", [3, 5, 9])
def test_a_resumed_run_takes_the_same_steps_bit_by_bit(at, toy_fit, tmp_path, ctrl_c_at):
    options = {**AUTO, "auto_max_steps": 10, "auto_patience": 9.0, "logging_steps": 1}
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


def test_a_run_is_not_resumed_with_another_kind_of_steps(toy_fit, ctrl_c_at):
    with ctrl_c_at(3), pytest.raises(TrainingInterrupted):
        toy_fit(**AUTO)
    with pytest.raises(TrainingError, match=r"began with max_steps 'auto' instead of 12"):
        toy_fit(resume=True)


def test_a_restart_decides_anew(toy_fit, tmp_path):
    _, result = toy_fit(**AUTO, learning_rate=1e30, max_restarts=1, auto_max_steps=20)
    assert len(result.restarts) == 1 and result.ended is not None
    assert (tmp_path / "run" / "restart-1").is_dir()


def test_a_run_that_a_limit_ended_goes_on_with_a_higher_one(toy_fit, tmp_path):
    options = {"max_steps": "auto", "learning_rate": 0.01}
    _, whole = toy_fit(**options, auto_max_steps=16, output_dir=str(tmp_path / "whole"))
    _, first = toy_fit(**options, auto_max_steps=8)
    _, same = toy_fit(**options, auto_max_steps=8, resume=True)
    assert (first.steps, same.steps) == (8, 8)
    _, further = toy_fit(**options, auto_max_steps=16, resume=True)
    assert (further.steps, further.ended) == (whole.steps, whole.ended)
    assert further.steps > 8
    assert torch.equal(further.prompt.vectors, whole.prompt.vectors)


def test_a_run_that_patience_ended_goes_on_with_more_of_it(toy_fit, tmp_path):
    options = {**AUTO, "learning_rate": 1e-30, "auto_max_steps": 40}
    _, whole = toy_fit(**options, auto_patience=5.0, output_dir=str(tmp_path / "whole"))
    _, first = toy_fit(**options, auto_patience=1.0)
    _, same = toy_fit(**options, auto_patience=2.0, resume=True)  # five evaluations are more
    assert (first.steps, same.steps) == (12, 12)
    _, further = toy_fit(**options, auto_patience=5.0, resume=True)
    assert (further.steps, further.ended) == (whole.steps, whole.ended)
    assert further.steps == 22
    assert torch.equal(further.prompt.vectors, whole.prompt.vectors)
