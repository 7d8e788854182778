"""`fit`: it learns, repeats itself, resumes, and says what went wrong."""

from dataclasses import replace

import pytest
import torch
from peft import PromptEncoderConfig, PromptTuningConfig
from transformers import TrainerCallback

from softhub.errors import SoftHubWarning, TrainingError, TrainingInterrupted
from softhub.inference.engine import PromptModel
from softhub.model.loading import load_base
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Task, Template
from softhub.training import PromptTrainingArguments, fit
from softhub.training import running as running_module
from softhub.training.provenance import git_record, script_folder


def losses(result):
    return [logs["loss"] for logs in result.history if "loss" in logs]


def dev_losses(result):
    return [logs["eval_loss"] for logs in result.history if "eval_loss" in logs]


@pytest.mark.parametrize(
    ("kind", "rate"), [("llama", 0.3), ("gpt2", 0.3), ("mistral", 0.3), ("t5", 0.0003)]
)
def test_training_lowers_the_dev_loss_of_every_kind_of_base(kind, rate, toy_fit, tmp_path):
    """(A random base has nothing that a prompt could call up: accuracy is for the real one.)"""
    _, still = toy_fit(kind, learning_rate=1e-9, max_steps=4, output_dir=str(tmp_path / "still"))
    _, result = toy_fit(kind, learning_rate=rate, max_steps=32)
    before, after = dev_losses(still)[0], dev_losses(result)[-1]
    assert after < 0.97 * before


def test_rows_as_dicts_and_a_dev_split_out_of_train(toy_fit, toy_examples, tmp_path):
    """The same rows give the same prompt, in whatever form they are."""
    _, plain = toy_fit(output_dir=str(tmp_path / "plain"))
    splits = {"train": toy_examples[:32], "dev": toy_examples[32:]}
    rows = {
        name: [{"text": one.row["text"], "label": one.label} for one in examples]
        for name, examples in splits.items()
    }
    _, same = toy_fit(data=rows, output_dir=str(tmp_path / "rows"))
    assert torch.equal(same.prompt.vectors, plain.prompt.vectors)
    with pytest.warns(SoftHubWarning, match="has no dev split"):
        _, result = toy_fit(data={"train": rows["train"]}, output_dir=str(tmp_path / "divided"))
    record = result.prompt.manifest.provenance["dataset"]
    assert record["train"]["examples"] + record["dev"]["examples"] == 32


def test_only_the_prompt_changes(toy_fit, tiny_base):
    base, result = toy_fit()
    fresh = load_base(tiny_base("llama"))
    for ours, theirs in zip(base.model.parameters(), fresh.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.grad is None
    assert result.prompt.vectors.shape == (6, base.hidden_size)


def test_same_seed_same_prompt_and_other_seed_another(toy_fit, tmp_path):
    runs = [
        toy_fit(seed=seed, output_dir=str(tmp_path / str(index)))[1].prompt.vectors
        for index, seed in enumerate([1, 1, 2])
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.allclose(runs[0], runs[2])


def test_best_checkpoint_is_what_comes_back(toy_fit, toy_task, toy_examples):
    base, result = toy_fit(max_steps=12)
    scores = {logs["step"]: logs for logs in result.history if "eval_loss" in logs}
    assert result.best_score == min(logs["eval_loss"] for logs in scores.values())
    assert result.best_score == scores[result.best_step]["eval_loss"]
    model = PromptModel(base)
    model.load_prompt(result.prompt, name="toy")
    predictions = model.predict([example.row for example in toy_examples[32:]], prompt="toy")
    right = [p.label == e.label for p, e in zip(predictions, toy_examples[32:], strict=True)]
    assert sum(right) / len(right) == scores[result.best_step]["eval_accuracy"]


def test_mixed_precision_trains_to_about_the_same_loss(toy_fit, tmp_path, monkeypatch):
    _, whole = toy_fit(output_dir=str(tmp_path / "float32"))
    _, mixed = toy_fit(output_dir=str(tmp_path / "flag"), bf16=True)
    assert mixed.best_score == pytest.approx(whole.best_score, rel=0.1)
    assert not mixed.prompt.vectors.equal(whole.prompt.vectors)
    assert mixed.prompt.vectors.dtype == torch.float32
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    _, launched = toy_fit(output_dir=str(tmp_path / "launched"))
    for result, expected in ((whole, False), (mixed, True), (launched, True)):
        assert result.prompt.manifest.provenance["training"]["bf16"] is expected


def test_a_base_that_was_trained_in_mixed_precision_answers(toy_fit, tmp_path):
    """It is first asked what it computes exactly inside the Trainer's autocast."""
    base, result = toy_fit(bf16=True)
    model = PromptModel(base)
    model.load_prompt(result.prompt, name="toy")
    other = PromptModel(load_base(base.model.name_or_path))
    other.load_prompt(result.prompt, name="toy")
    texts = ["great value", "waste of money"]
    found, expected = (each.predict(texts, prompt="toy") for each in (model, other))
    assert [each.probabilities for each in found] == [each.probabilities for each in expected]


def test_checkpoints_hold_kilobytes(toy_fit, tmp_path):
    toy_fit()
    for folder in (tmp_path / "run").glob("checkpoint-*"):
        sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
        assert sizes["model.safetensors"] < 2000
        assert not any("tokenizer" in name for name in sizes)


def test_resumed_run_ends_where_the_whole_one_does(toy_fit, tmp_path, monkeypatch):
    _, whole = toy_fit(output_dir=str(tmp_path / "whole"))

    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 6:
                raise ConnectionAbortedError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(running_module, "InterruptCallback", lambda: _with_kill(Kill(), patch))
        with pytest.raises(ConnectionAbortedError):
            toy_fit(output_dir=str(tmp_path / "cut"))
    _, resumed = toy_fit(output_dir=str(tmp_path / "cut"), resume=True)
    assert losses(resumed) == pytest.approx(losses(whole), abs=1e-6)
    assert dev_losses(resumed) == pytest.approx(dev_losses(whole), abs=1e-6)
    assert torch.allclose(resumed.prompt.vectors, whole.prompt.vectors, atol=1e-6)


def _with_kill(kill, patch):
    """An interrupt callback that dies in the middle of a run."""
    from softhub.training.callbacks import InterruptCallback

    callback = InterruptCallback()
    callback.on_step_end = kill.on_step_end
    return callback


def test_ctrl_c_saves_and_the_run_goes_on(toy_fit, tmp_path, ctrl_c_at):
    _, whole = toy_fit(output_dir=str(tmp_path / "whole"))
    with (
        ctrl_c_at(5),
        pytest.raises(TrainingInterrupted, match=r"after step 6.*--resume"),
    ):
        toy_fit(output_dir=str(tmp_path / "cut"))
    _, resumed = toy_fit(output_dir=str(tmp_path / "cut"), resume=True)
    assert torch.allclose(resumed.prompt.vectors, whole.prompt.vectors, atol=1e-6)


def test_a_run_that_is_at_its_end_is_taken_over_as_it_is(toy_fit, tmp_path):
    """All its steps are made: not one more, and the best checkpoint again."""
    _, whole = toy_fit()
    _, again = toy_fit(resume=True)
    assert (again.steps, again.best_step) == (12, whole.best_step)
    assert again.examples_per_second == 0
    assert again.best_score == whole.best_score
    assert again.prompt.vectors.equal(whole.prompt.vectors)
    assert losses(again) == losses(whole)
    _, longer = toy_fit(resume=True, max_steps=16)
    assert longer.steps == 16


def test_a_resumed_run_stops_early_where_the_whole_one_does(toy_fit, tmp_path, ctrl_c_at):
    """Nothing moves, so the second evaluation without a better loss is the last."""
    options = {"learning_rate": 1e-30, "early_stopping_patience": 2, "max_steps": 32}
    options["output_dir"] = str(tmp_path / "cut")
    with ctrl_c_at(9), pytest.raises(TrainingInterrupted, match="after step 10"):
        toy_fit(**options)
    _, resumed = toy_fit(**options, resume=True)
    assert resumed.steps == 12


def test_goes_on_from_a_prompt(toy_fit, tmp_path):
    _, first = toy_fit(output_dir=str(tmp_path / "a"))
    folder = first.prompt.save_pretrained(tmp_path / "adapter")
    parent = SoftPrompt.from_pretrained(folder)
    for number, init in enumerate((parent, folder, str(folder))):
        _, second = toy_fit(init=init, output_dir=str(tmp_path / f"b{number}"))
        assert losses(second)[0] < losses(first)[0]
        record = second.prompt.manifest.provenance["init"]
        assert record == {"parent": dict(parent.manifest.files)}
    with pytest.raises(TrainingError, match="set num_virtual_tokens to 6"):
        toy_fit(init=parent, tokens=5)


@pytest.mark.filterwarnings("error::FutureWarning")
def test_activation_checkpointing_gives_the_same_prompt(toy_fit, tmp_path):
    new = hasattr(PromptTrainingArguments, "activation_checkpointing")  # transformers 5.23
    flag = {"activation_checkpointing" if new else "gradient_checkpointing": True}
    _, plain = toy_fit(output_dir=str(tmp_path / "a"), max_steps=4)
    _, saving = toy_fit(output_dir=str(tmp_path / "b"), max_steps=4, **flag)
    assert losses(saving) == pytest.approx(losses(plain), abs=1e-4)


def test_accumulation_takes_the_same_steps(toy_fit, tmp_path):
    _, plain = toy_fit(output_dir=str(tmp_path / "a"), max_steps=6)
    _, split = toy_fit(
        output_dir=str(tmp_path / "b"),
        max_steps=6,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
    )
    assert losses(split) == pytest.approx(losses(plain), abs=1e-4)


def test_generation_task_learns_its_targets(toy_examples, tiny_base, tmp_path):
    task = Task(
        name="echo", kind="generation", template=Template("{text} ="), target_column="target"
    )
    examples = [replace(e, target=f" {e.label}", label=None) for e in toy_examples]
    base = load_base(tiny_base("llama"))
    result = fit(
        base,
        task,
        PromptTuningConfig(task_type=base.task_type, num_virtual_tokens=6),
        {"train": examples[:32], "dev": examples[32:]},
        init="vocabulary",
        args=PromptTrainingArguments(
            output_dir=str(tmp_path),
            max_steps=8,
            learning_rate=0.1,
            eval_strategy="no",
            save_strategy="no",
            load_best_model_at_end=False,
            logging_steps=1,
            use_cpu=True,
            disable_tqdm=True,
        ),
    )
    assert losses(result)[-1] < losses(result)[0]


def test_collapse_is_said_in_plain_words(toy_fit):
    with pytest.warns(SoftHubWarning, match=r"collapsed|no better than without learning"):
        _, result = toy_fit(learning_rate=1e-9, init="random")
    assert result.warnings


def test_a_loss_that_is_no_number_ends_the_run(toy_fit):
    with pytest.raises(TrainingError, match=r"loss is nan.*lower learning_rate"):
        toy_fit(learning_rate=3e38, lr_scheduler_type="constant", warmup_steps=0)


def test_other_peft_methods_and_bad_sizes_are_refused(toy_fit, tiny_base, toy_task, toy_examples):
    base = load_base(tiny_base("llama"))
    rows = {"train": toy_examples, "dev": toy_examples}
    with pytest.raises(TrainingError, match="expected PromptTuningConfig"):
        fit(base, toy_task, PromptEncoderConfig(num_virtual_tokens=3), rows)
    with pytest.raises(TrainingError, match="expected a whole number of 1 or more"):
        toy_fit(tokens=0)
    with pytest.raises(TrainingError, match="Unknown init 'lables'"):
        toy_fit(init="lables")
    with pytest.raises(TrainingError, match="Nothing to resume"):
        toy_fit(resume=True)


def test_examples_per_step_are_those_of_an_optimizer_step(toy_fit):
    _, result = toy_fit(max_steps=4, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    assert result.prompt.manifest.provenance["training"]["examples_per_step"] == 8


def test_manifest_tells_how_the_prompt_was_made(toy_fit):
    base, result = toy_fit(seed=5)
    manifest = result.prompt.manifest
    assert manifest.base_model == base.name
    assert manifest.fingerprint == base.fingerprint
    assert manifest.task["template"] == "Review: {text}\nSentiment:"
    assert manifest.provenance["seed"] == 5
    assert manifest.provenance["training"]["learning_rate"] == 0.1
    assert len(manifest.provenance["dataset"]["train"]["sha256"]) == 64
    assert manifest.provenance["packages"]["torch"]
    assert manifest.provenance["code"] == git_record(script_folder())
