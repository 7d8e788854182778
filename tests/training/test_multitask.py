"""`fit_tasks`: a prompt for each task, of its own steps, perhaps from a shared one; resumable."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from peft import PromptTuningConfig

from softhub.errors import TrainingError
from softhub.model.base import load_base
from softhub.model.prompt import SoftPrompt
from softhub.training import PromptTrainingArguments, fit_tasks


@pytest.fixture
def specialise(tiny_base, toy_task, toy_examples, tmp_path):
    """`specialise(names, **options)`: the results of the toy task under several names."""
    base = load_base(tiny_base("llama"))
    config = PromptTuningConfig(task_type=base.task_type, num_virtual_tokens=4)

    def run(*names, length=None, **options):
        args = PromptTrainingArguments(
            output_dir=str(tmp_path / "run"),
            learning_rate=0.1,
            max_restarts=0,
            eval_steps=1,
            save_steps=1,
            use_cpu=True,
            disable_tqdm=True,
            **(length or {"max_steps": 2}),
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
