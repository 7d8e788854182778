"""A run is resumed only as what it began as: all that its manifest says and that changes it."""

import json
from dataclasses import replace

import pytest
import torch
from peft import PromptTuningConfig

from softhub.errors import TrainingError, TrainingInterrupted
from softhub.model.loading import load_base
from softhub.tasks import Splits, Template, Verbalizer
from softhub.training import PromptTrainingArguments, fit, fit_mixture

OTHER_SETTINGS = {
    "weight_decay": 0.1,
    "warmup_steps": 3,
    "optim": "sgd",
    "lr_scheduler_type": "cosine",
    "max_grad_norm": 9.0,
    "adam_beta2": 0.9,
    "per_device_train_batch_size": 4,
    "metric_for_best_model": "accuracy",
    "init": "vocabulary",
    "max_steps": 8,
}


def test_a_run_is_not_resumed_with_another_setting(toy_fit, toy_task, ctrl_c_at):
    with ctrl_c_at(5), pytest.raises(TrainingInterrupted):
        toy_fit()
    for name, value in OTHER_SETTINGS.items():
        said = "examples_per_step" if name == "per_device_train_batch_size" else name
        with pytest.raises(TrainingError, match=rf"began with {said} \S+ instead of"):
            toy_fit(**{name: value}, resume=True)
    tasks = {
        "template": replace(toy_task, template=Template("Other: {text}\nIt is")),
        "verbalizer": replace(
            toy_task, verbalizer=Verbalizer.from_mapping({"good": " yes", "bad": " no"})
        ),
        "description": replace(toy_task, description="Tell good from bad."),
        "class_weights": replace(toy_task, class_weights="balanced"),
    }
    for name, task in tasks.items():
        with pytest.raises(TrainingError, match=f"began with {name} of toy .* instead of"):
            toy_fit(task=task, resume=True)
    many = {name: OTHER_SETTINGS[name] for name in ("weight_decay", "warmup_steps", "optim")}
    with pytest.raises(TrainingError, match="and in 2 other settings: "):
        toy_fit(**many, init="vocabulary", lr_scheduler_type="cosine", resume=True)


def test_what_does_not_change_a_run_may_change_when_it_is_resumed(toy_fit, toy_task, ctrl_c_at):
    with ctrl_c_at(5), pytest.raises(TrainingInterrupted):
        toy_fit()
    other = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 14}
    other |= {"eval_steps": 2, "save_steps": 2, "logging_steps": 5, "save_total_limit": 3}
    _, resumed = toy_fit(task=replace(toy_task, limitations="Toy."), **other, resume=True)
    assert resumed.steps == 14


def test_a_run_is_not_resumed_from_another_prompt(toy_fit, tmp_path, ctrl_c_at):
    one, two = (
        toy_fit(output_dir=str(tmp_path / str(seed)), max_steps=4, seed=seed)[1].prompt
        for seed in (1, 2)
    )
    with ctrl_c_at(5), pytest.raises(TrainingInterrupted):
        toy_fit(init=one)
    with pytest.raises(TrainingError, match=r"began with init .* instead of"):
        toy_fit(init=two, resume=True)
    folder = one.save_pretrained(tmp_path / "adapter")
    assert toy_fit(init=folder, resume=True)[1].steps == 12


def test_a_run_of_an_earlier_version_has_fewer_settings_and_is_resumed(
    toy_fit, tmp_path, ctrl_c_at
):
    with ctrl_c_at(5), pytest.raises(TrainingInterrupted):
        toy_fit()
    state = tmp_path / "run" / "run_state.json"
    record = json.loads(state.read_text())
    names = ("task", "base_model", "num_virtual_tokens", "seed", "train", "dev", "max_steps")
    about = {name: record["about"][name] for name in (*names, "began")}
    state.write_text(json.dumps({**record, "about": about}))
    assert toy_fit(resume=True)[1].steps == 12
    with pytest.raises(TrainingError, match="began with optim"):
        toy_fit(optim="sgd", resume=True)


def test_a_student_is_not_resumed_with_another_teacher(tiny_base, toy_task, toy_examples, tmp_path):
    """Its answers, which may differ in the last digit each time, do not tell them apart."""
    base = load_base(tiny_base("llama"))
    config = PromptTuningConfig(task_type=base.task_type, num_virtual_tokens=4)

    def distilled(teacher, share, *, resume):
        soft = {"good": share, "bad": 1 - share}
        rows = [replace(each, soft_label=soft) for each in toy_examples]
        args = PromptTrainingArguments(
            output_dir=str(tmp_path / "run"), max_steps=4, use_cpu=True, disable_tqdm=True
        )
        data = {"train": rows[:32], "dev": rows[32:]}
        return fit(
            base, toy_task, config, data, args=args, init="labels", resume=resume, teacher=teacher
        )

    first = distilled({"from": "template 1"}, 0.8, resume=False)
    assert first.prompt.manifest.provenance["distilled"] == {"from": "template 1"}
    again = distilled({"from": "template 1"}, 0.8000001, resume=True)
    assert torch.equal(again.prompt.vectors, first.prompt.vectors)
    with pytest.raises(TrainingError, match=r"began with teacher .*template 1.* instead of"):
        distilled({"from": "template 2"}, 0.8, resume=True)


def test_a_mixture_is_resumed_only_as_what_it_began_as(
    tiny_base, toy_task, toy_examples, tmp_path, ctrl_c_at
):
    base = load_base(tiny_base("llama"))
    config = PromptTuningConfig(task_type=base.task_type, num_virtual_tokens=4)
    second = replace(toy_task, name="second", template=Template("{text} Is it good?"))
    third = replace(second, template=Template("{text} is"))
    splits = Splits(toy_examples[:32], toy_examples[32:], [])
    half = splits._replace(train=toy_examples[:16])

    def train(
        tasks=(toy_task, second),
        data=(splits, half),
        *,
        mixture="equal",
        init="vocabulary",
        resume=True,
        **options,
    ):
        settings = {"output_dir": str(tmp_path / "run"), "max_steps": 8, "learning_rate": 0.1}
        settings |= {"eval_steps": 2, "save_steps": 2, "logging_steps": 1}
        args = PromptTrainingArguments(**settings | options, use_cpu=True, disable_tqdm=True)
        options = {"args": args, "mixture": mixture, "init": init, "resume": resume}
        return fit_mixture(base, tasks, config, data, **options)

    with ctrl_c_at(3), pytest.raises(TrainingInterrupted):
        train(resume=False)
    others = {
        "seed 42 instead of 7": {"seed": 7},
        "learning_rate 0.1 instead of 0.5": {"learning_rate": 0.5},
        "template of second": {"tasks": (toy_task, third)},
        "task 'toy, second' instead of": {"tasks": (toy_task, replace(third, name="third"))},
        "other train examples": {"data": (half, half)},
        "mixture": {"mixture": "proportional"},
        "init 'vocabulary' instead of 'random'": {"init": "random"},
    }
    for said, options in others.items():
        with pytest.raises(TrainingError, match=f"began with .*{said}"):
            train(**options)
    resumed = train()
    whole = train(resume=False, output_dir=str(tmp_path / "whole"))
    assert torch.equal(resumed.prompt.vectors, whole.prompt.vectors)
