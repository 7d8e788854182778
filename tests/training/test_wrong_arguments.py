"""Wrong training arguments and full disks: one sentence, before anything is spent if possible."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PromptTuningConfig

from softhub.config import parse_config
from softhub.errors import ConfigError, TrainingError
from softhub.experiments.console import exit_code_of
from softhub.model.loading import load_base
from softhub.training import PromptTrainingArguments, fit
from softhub.training.callbacks import HistoryCallback, _installed
from softhub.training.checkpoints import last_checkpoint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor is not supported: the loss"),
        ({"neftune_noise_alpha": 5.0}, "neftune_noise_alpha is not supported: the base's embed"),
        ({"use_liger_kernel": True}, "use_liger_kernel is not supported"),
        ({"push_to_hub": True}, "push_to_hub is not supported: push the adapter"),
        ({"batch_eval_metrics": True}, "batch_eval_metrics is not supported"),
        ({"dataloader_drop_last": True}, "dataloader_drop_last is not supported: no text of"),
        ({"seed": -1}, "seed is -1; expected a whole number from 0 to 4294967295"),
        ({"seed": 2**32}, "seed is 4294967296; expected a whole number from 0 to"),
        ({"data_seed": 7}, "data_seed is not supported: seed chooses the order of the texts"),
        ({"fp16": True, "use_cpu": True}, "fp16 needs a GPU; use bf16, or leave it out"),
        (
            {"early_stopping_patience": 2, "load_best_model_at_end": False},
            "early_stopping_patience needs evaluations on dev and the best of them: leave out",
        ),
        ({"max_steps": "many"}, "max_steps is 'many'; expected a number of optimizer steps"),
        ({"max_steps": 2.5}, "max_steps is 2.5; expected a number of optimizer steps"),
        ({"max_steps": 5, "num_train_epochs": 2}, "Found both of max_steps and num_train_epochs"),
        ({"max_steps": "auto", "num_train_epochs": 2}, "Found both of max_steps and num_train_ep"),
        ({"max_steps": -1}, "Found neither of max_steps and num_train_epochs"),
        ({"num_train_epochs": -2}, "Found neither of max_steps and num_train_epochs"),
        ({"per_device_train_batch_size": 0}, "batch_size is 0; expected a whole number of 1 or"),
        ({"per_device_train_batch_size": "8"}, "batch_size is '8'; expected a whole number"),
        ({"gradient_accumulation_steps": 0}, "accumulation_steps is 0; expected a whole number of"),
        ({"dataloader_num_workers": -1}, "num_workers is -1; expected a whole number of 0"),
        ({"early_stopping_patience": "3"}, "patience is '3'; expected a whole number of 0 or more"),
        ({"max_restarts": -1}, "max_restarts is -1; expected a whole number of 0 or more"),
        ({"auto_max_steps": 0}, "auto_max_steps is 0; expected a whole number of 1 or more"),
        ({"auto_max_steps": -(10**400)}, "auto_max_steps is -1000.*; expected a whole number of 1"),
        ({"auto_patience": -1.0}, "auto_patience is -1.0; expected a number of 0 or more"),
        ({"auto_patience": float("nan")}, "auto_patience is nan; expected a number of 0 or more"),
        ({"auto_max_minutes": 0.0}, "auto_max_minutes is 0.0; expected a number above 0"),
        ({"auto_max_minutes": -1}, "auto_max_minutes is -1; expected a number above 0"),
        ({"max_grad_norm": float("inf")}, "max_grad_norm is inf; expected a number"),
        ({"seed": None}, "seed is None; expected a whole number"),
        ({"weight_decay": "small"}, "weight_decay is 'small'; expected a number"),
        ({"logging_steps": "often"}, "logging_steps is 'often'; expected a number"),
        ({"bf16": "yes"}, "bf16 is 'yes'; expected True or False"),
        ({"optim": "best"}, "rejects the training arguments: best is not a valid OptimizerNames"),
        ({"lr_scheduler_type": "best"}, "best is not a valid SchedulerType"),
        ({"eval_strategy": "no"}, "load_best_model_at_end requires"),
        ({"report_to": "nothing"}, "report_to: nothing is not supported, only"),
        ({"report_to": 5}, "report_to is 5; expected the name of a tracker"),
    ],
)
def test_wrong_arguments_are_refused_when_they_are_made(arguments, message):
    with pytest.raises(TrainingError, match=message) as caught:
        PromptTrainingArguments(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "length"),
    [({}, ("auto", 0)), ({"num_train_epochs": 3}, (-1, 3)), ({"max_steps": 7}, (7, 0))],
)
def test_epochs_that_are_given_win_over_the_default_number_of_steps(given, length):
    args = PromptTrainingArguments(**given)
    for each in (args, replace(args, seed=1)):
        assert (each.max_steps, each.num_train_epochs) == length


def test_a_run_by_epochs_passes_over_the_data_as_often(toy_fit):
    options = {"max_steps": None, "num_train_epochs": 2, "per_device_train_batch_size": 16}
    _, result = toy_fit(**options, eval_steps=2, save_steps=2)
    assert result.steps == 4  # 32 examples


def test_half_precision_of_a_launch_file_needs_a_gpu_too(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(TrainingError, match="fp16 needs a GPU"):
        PromptTrainingArguments(use_cpu=True)


def test_the_help_has_what_is_supported_and_defaults_that_say_something(capsys):
    with pytest.raises(SystemExit):
        parse_config(PromptTrainingArguments, argv=["--help"])
    words = " ".join(capsys.readouterr().out.split())
    for name in ("data_seed", "neftune_noise_alpha", "push_to_hub", "dataloader_drop_last"):
        assert f"--{name}" not in words
    assert "--no-load-best-model-at-end Turn off: Best by dev loss. --" in words
    assert "Peak learning rate; default: scaled to the base. --" in words
    assert "(default: None)" not in words and "(default: )" not in words
    assert "Random seed that will be set at the beginning of training. (default: 42)" in words


@pytest.mark.parametrize("tracker", ["mlflow", "clearml", "codecarbon", "comet_ml", "wandb"])
def test_a_tracker_that_is_not_installed_is_refused(tracker):
    if _installed(tracker):
        pytest.skip(f"{tracker} is installed")
    with pytest.raises(TrainingError, match=f"{tracker}, which is not installed: pip install"):
        PromptTrainingArguments(report_to=tracker)


def test_report_to_none_reports_to_nothing():
    assert PromptTrainingArguments(report_to=None).report_to == []


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "training arguments: One of min_lr or min"),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "training arguments: .*num_decay_steps"),
        ({"optim": "adamw_8bit"}, "training arguments: .*bitsandbytes"),
    ],
)
def test_what_an_optimizer_or_a_schedule_lacks_is_one_sentence(option, message, toy_fit):
    with pytest.raises(TrainingError, match=message) as caught:
        toy_fit(**option)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tokens", [2.5, "20", 0, -1, None])
def test_the_number_of_virtual_tokens_is_a_whole_number(tokens, tiny_base, toy_task):
    base = load_base(tiny_base("llama"))
    config = PromptTuningConfig(task_type=base.task_type, num_virtual_tokens=tokens)
    with pytest.raises(TrainingError, match=r"num_virtual_tokens is .*; expected a whole number"):
        fit(base, toy_task, config, {"train": []})


def test_arguments_in_another_form_are_refused_with_what_to_do(loaded, toy_task, toy_examples):
    from transformers import TrainingArguments

    base, data = loaded("llama"), {"train": toy_examples}
    config = PromptTuningConfig(task_type=base.task_type, num_virtual_tokens=4)
    plain = TrainingArguments(output_dir="runs")
    for message, arguments, options in [
        ("base is of type str; expected BaseModel. Load", ("llama", toy_task, config), {}),
        ("task is of type str; expected Task. Read", (base, "task.yaml", config), {}),
        ("config is of type dict; expected PeftConfig. Use", (base, toy_task, {}), {}),
        (
            "args is of type TrainingArg.*; expected Prompt",
            (base, toy_task, config),
            {"args": plain},
        ),
        ("init is of type int; expected str or Path or", (base, toy_task, config), {"init": 3}),
    ]:
        with pytest.raises(ConfigError, match=message):
            fit(*arguments, data, **options)


def test_a_metric_that_the_task_lacks_is_named(toy_fit):
    with pytest.raises(TrainingError, match=r"metric_for_best_model.*eval_f2.*eval_accuracy"):
        toy_fit(metric_for_best_model="f2")


def test_a_folder_that_cannot_be_written_to_is_refused_first(toy_fit, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(TrainingError, match=r"output_dir .* cannot be written to"):
            toy_fit(output_dir=str(folder))


# --- a full disk ---


FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="/dev/full is a device of Linux")


def fills_up(file):
    """At step 6 a full disk takes the place of a file that the checkpoint of step 8 will write."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 6:
            folder = Path(args.output_dir) / "checkpoint-8"
            folder.mkdir()
            (folder / file).symlink_to(FULL)

    return on_step_end


@needs_full
@pytest.mark.parametrize("file", ["optimizer.pt", "rng_state.pth", "training_args.bin"])
def test_a_disk_that_fills_up_says_what_can_be_resumed(file, toy_fit, tmp_path, monkeypatch):
    """Each file is written by another library, which fails in a way of its own."""
    _, whole = toy_fit(output_dir=str(tmp_path / "whole"))
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(HistoryCallback, "on_step_end", fills_up(file))
        with pytest.raises(TrainingError, match=r"stopped at step 8.*checkpoint-8") as caught:
            toy_fit()
    assert f"{run / 'checkpoint-4'}: continue with --resume" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert last_checkpoint(run) == str(run / "checkpoint-4")
    (run / "checkpoint-8" / file).unlink()  # room was made
    _, resumed = toy_fit(resume=True)
    assert torch.allclose(resumed.prompt.vectors, whole.prompt.vectors, atol=1e-6)


def test_a_full_disk_is_one_line_on_the_command_line(capsys):
    def fails():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "adapter.tmp")

    assert exit_code_of(fails) == 1
    assert capsys.readouterr().err == (
        "error: The disk is full (adapter.tmp). Make room and run the command again.\n"
    )


# --- the base is left as it was ---


def test_activation_checkpointing_ends_with_the_run(toy_fit, tiny_base):
    fresh = load_base(tiny_base("llama")).model
    base, _ = toy_fit(gradient_checkpointing=True)
    assert not base.checkpoints_activations
    for ours, theirs in zip(base.model.modules(), fresh.modules(), strict=True):
        assert ours.training == theirs.training
        dropout = {name for name in vars(theirs) if "dropout" in name}
        assert {n: getattr(ours, n) for n in dropout} == {n: getattr(theirs, n) for n in dropout}
