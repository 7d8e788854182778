"""`fit_tasks`: a prompt for each task, of its own steps, perhaps from a shared one; resumable."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from peft import PromptTuningConfig

from softhub.errors import SoftHubWarning, TrainingError
from softhub.model.loading import load_base
from softhub.model.prompt import SoftPrompt
from softhub.training import PromptTrainingArguments, fit_tasks


@pytest.fixture
def specialise(tiny_base, toy_task, toy_examples, tmp_path):
    """`specialise(names, **options)`: the results of the toy task under several names."""
    base = load_base(tiny_base("llama"))
    config = PromptTuningConfig(task_type=base.task_type, num_virtual_tokens=4)

    def run(*names, length=None, **options):
        settings = {"learning_rate": 0.1, "max_restarts": 0, **(length or {"max_steps": 2})}
        args = PromptTrainingArguments(
            output_dir=str(tmp_path / "run"),
            eval_steps=1,
            save_steps=1,
            use_cpu=True,
            disable_tqdm=True,
            **settings,
        )
        tasks = [replace(toy_task, name=name) for name in names]
        data = [{"train": toy_examples[:16], "dev": toy_examples[32:]}] * len(names)
        return fit_tasks(base, tasks, config, data, args=args, **options)

    return run


def test_each_task_has_its_own_steps_and_folder(specialise, tmp_path):
    one, two = specialise("one", "two", steps=[1, 3])
    assert (one.steps, two.steps) == (1, 3)
    assert (one.prompt.manifest.task["name"], two.prompt.manifest.task["name"]) == ("one", "two")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["one", "two"]
    assert [result.steps for result in specialise("one")] == [2]


def test_all_start_from_the_shared_prompt_if_there_is_one(specialise, tmp_path):
    results = specialise("one", "two", shared_steps=3, mixture="equal", steps=[1, 1])
    shared = SoftPrompt.from_pretrained(tmp_path / "run" / "shared" / "adapter")
    assert set(shared.manifest.provenance["mixture"]) == {"one", "two"}
    assert (tmp_path / "run" / "shared" / "curve.png").is_file()
    for result in results:
        assert result.prompt.manifest.provenance["init"] == {"parent": dict(shared.manifest.files)}


def test_runs_go_on_where_they_were_stopped(specialise, tmp_path):
    whole = specialise("one", "two", shared_steps=2, steps=[2, 2])
    folder = tmp_path / "run"
    shutil.rmtree(folder / "two")  # never begun
    shutil.rmtree(folder / "one" / "checkpoint-2")
    weights = [path.stat().st_mtime_ns for path in _weights(folder / "shared")]
    again = specialise("one", "two", shared_steps=2, steps=[2, 2], resume=True)
    assert [path.stat().st_mtime_ns for path in _weights(folder / "shared")] == weights
    for before, after in zip(whole, again, strict=True):
        assert after.steps == 2
        assert after.prompt.vectors == pytest.approx(before.prompt.vectors, abs=1e-6)


def _weights(folder: Path):
    return sorted(folder.glob("checkpoint-*/*.safetensors"))


def test_epochs_are_those_of_each_task_and_not_of_the_shared_prompt(specialise):
    epochs = {"num_train_epochs": 1, "per_device_train_batch_size": 8}
    results = specialise("one", "two", length=epochs, shared_steps=1)
    assert [result.steps for result in results] == [2, 2]  # 16 examples
    with pytest.raises(TrainingError, match="Found both steps and num_train_epochs"):
        specialise("one", "two", length=epochs, steps=[1, 1])


def test_limits_of_auto_do_not_apply_to_runs_with_a_number_of_steps(specialise):
    limits = {"max_steps": "auto", "auto_max_steps": 3}
    results = specialise("one", "two", length=limits, shared_steps=1)
    assert [result.steps for result in results] == [3, 3]
    results = specialise("one", "two", length=limits, steps=[1, 2])
    assert [result.steps for result in results] == [1, 2]


def test_what_auto_refuses_is_fine_where_every_run_has_a_number_of_steps(specialise):
    cosine = {"max_steps": None, "lr_scheduler_type": "cosine", "early_stopping_patience": 2}
    results = specialise("one", "two", length=cosine, steps=[1, 2], shared_steps=1)
    assert [result.steps for result in results] == [1, 2]
    with pytest.raises(TrainingError, match="max_steps 'auto' ends a run by itself"):
        specialise("one", length=cosine, shared_steps=1)


def test_wrong_arguments_leave_earlier_checkpoints_alone(specialise, tmp_path):
    specialise("one")
    with pytest.raises(TrainingError, match="leave out auto_max_steps"):
        specialise("one", length={"max_steps": 2, "auto_max_steps": 3})
    assert {path.name for path in (tmp_path / "run" / "one").glob("*checkpoint-*")} == {
        "checkpoint-1",
        "checkpoint-2",
    }


def test_a_task_whose_checkpoints_are_those_of_a_restart_is_resumed(specialise, tmp_path):
    folder = tmp_path / "run" / "one"
    wild = {"max_steps": 2, "learning_rate": 3e38, "lr_scheduler_type": "constant"}
    with pytest.warns(SoftHubWarning, match="was restarted"):
        specialise("one", length={**wild, "warmup_steps": 0, "max_restarts": 1})
    shutil.rmtree(folder / "checkpoint-1", ignore_errors=True)
    written = [path.stat().st_mtime_ns for path in _weights(folder / "restart-1")]
    with pytest.warns(SoftHubWarning, match="was restarted"):
        specialise("one", length={**wild, "warmup_steps": 0, "max_restarts": 1}, resume=True)
    assert written == [path.stat().st_mtime_ns for path in _weights(folder / "restart-1")] != []


@pytest.mark.parametrize(
    ("names", "steps", "words"),
    [
        (("one", "one"), (), "More than one run would be called one"),
        (("shared",), (), "would be called shared"),
        (("one", "two"), (1,), "Found steps for 1 tasks; expected one number for each of the 2"),
    ],
)
def test_what_cannot_be_told_apart_is_refused_before_training(names, steps, words, specialise):
    with pytest.raises(TrainingError, match=words):
        specialise(*names, steps=steps)
