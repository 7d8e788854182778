"""LoRA and full fine-tuning for comparisons: what changes, and that the best weights come back."""

import math
from dataclasses import replace

import pytest
import torch
from peft import (
    IA3Config,
    LoraConfig,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from transformers import TrainerState

from softhub import PromptModel
from softhub.errors import TrainingError
from softhub.experiments.comparison.fine_tuning import _BestWeights as BestWeights
from softhub.experiments.comparison.fine_tuning import fit_weights
from softhub.model.loading import load_base
from softhub.tasks import Splits
from softhub.training import PromptTrainingArguments


@pytest.fixture
def trained(tiny_base, toy_task, toy_examples, tmp_path):
    """`trained(config)`: a base after twelve steps, and the result."""

    def run(config=None, dev=None, dtype=None, **options):
        base = load_base(tiny_base("llama"), dtype=dtype)
        settings = {"max_steps": 12, "learning_rate": 0.02, "eval_steps": 4, "logging_steps": 1}
        args = PromptTrainingArguments(
            output_dir=str(tmp_path / "run"),
            use_cpu=True,
            disable_tqdm=True,
            save_strategy="no",
            load_best_model_at_end=False,
            **{**settings, **options},
        )
        data = Splits(toy_examples[:32], dev or toy_examples[32:], [])
        return base, fit_weights(base, toy_task, data, args=args, config=config)

    return run


def dev_losses(result):
    return {logs["step"]: logs["eval_loss"] for logs in result.history if "eval_loss" in logs}


LORA = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear")


@pytest.mark.parametrize("config", [None, LORA, IA3Config()])
def test_it_learns_and_keeps_the_best_weights(config, trained, tmp_path):
    _, result = trained(config)
    losses = dev_losses(result)
    assert list(losses) == [4, 8, 12]
    assert result.best_score == min(losses.values()) == losses[result.best_step]
    _, still = trained(config, learning_rate=1e-9)
    assert result.best_score < 0.97 * still.best_score
    assert not list((tmp_path / "run").glob("checkpoint-*"))


def test_the_weights_of_the_best_step_come_back(trained, toy_examples):
    """Dev has the opposite labels: the more is learned from train, the worse its loss."""
    opposite = {"good": "bad", "bad": "good"}
    dev = [replace(example, label=opposite[example.label]) for example in toy_examples[32:]]
    settings = {"dev": dev, "lr_scheduler_type": "constant", "warmup_steps": 0}
    base, result = trained(None, **settings)
    losses = dev_losses(result)
    assert losses[4] < losses[8] < losses[12]
    assert (result.best_step, result.best_score) == (4, losses[4])
    stopped, again = trained(None, **settings, max_steps=4)
    assert again.steps == 4
    for one, other in zip(base.model.parameters(), stopped.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("config", [None, LORA])
def test_weights_that_end_by_themselves_are_averages(
    config, trained, toy_task, toy_examples, tmp_path
):
    """The dev loss of the weights that the base has afterwards is the one that selected them."""
    base, result = trained(config, max_steps="auto", auto_max_steps=8, eval_steps=8)
    assert not list((tmp_path / "run").glob("checkpoint-*"))
    model, dev = PromptModel(base), toy_examples[32:]
    found = model.predict([example.row for example in dev], task=toy_task)
    chances = [one.probabilities[each.label] for one, each in zip(found, dev, strict=True)]
    loss = -sum(map(math.log, chances)) / len(dev)
    assert result.best_score == pytest.approx(loss, rel=1e-3)
    last, _ = trained(config, lr_scheduler_type="constant_with_warmup", max_steps=8, eval_steps=8)
    assert not all(map(torch.equal, base.model.parameters(), last.model.parameters()))


def test_weights_of_a_loss_that_is_no_number_are_not_the_best():
    best, module = BestWeights(), torch.nn.Linear(1, 1, bias=False)
    args = PromptTrainingArguments(use_cpu=True)
    for step, loss in enumerate((float("nan"), 1.5, float("nan"), 2.0), start=1):
        torch.nn.init.constant_(module.weight, step)
        state = TrainerState(global_step=step)
        best.on_evaluate(args, state, None, metrics={"eval_loss": loss}, model=module)
    assert (best.step, best.score) == (2, 1.5)
    assert {key: value.item() for key, value in best.weights.items()} == {"weight": 2}


@pytest.mark.parametrize("config", [None, LORA, IA3Config()])
def test_weights_of_a_base_in_half_precision_are_trained_in_float32(config, trained):
    """At these rates most steps are lost in bfloat16; what is stored has the base's dtype."""
    rate = {} if config else {"learning_rate": 1e-5}
    base, half = trained(config, dtype="bfloat16", **rate)
    assert {p.dtype for p in base.model.parameters() if p.requires_grad} == {torch.float32}
    assert half.bytes == 2 * half.trainable_parameters
    _, full = trained(config, **rate)
    assert half.best_score == pytest.approx(full.best_score, rel=0.02)


def test_weights_are_chosen_by_the_metric_that_chooses_a_prompt(trained):
    """Accuracy is the same at each step, so that the first is the best; the loss still falls."""
    _, result = trained(LORA, metric_for_best_model="accuracy", learning_rate=1e-3)
    losses = dev_losses(result)
    assert losses[12] < losses[8] < losses[4]
    accuracies = [logs["eval_accuracy"] for logs in result.history if "eval_loss" in logs]
    assert len({*accuracies}) == 1
    assert (result.best_step, result.best_score) == (4, accuracies[0])
    with pytest.raises(TrainingError, match=r"metric_for_best_model.*eval_f2.*eval_accuracy"):
        trained(LORA, metric_for_best_model="f2")


def test_weights_stop_early_where_a_prompt_does(trained):
    """Nothing moves, so the second evaluation without a better loss is the last."""
    options = {"learning_rate": 1e-30, "early_stopping_patience": 2, "max_steps": 32}
    _, result = trained(LORA, **options, metric_for_best_model="loss")
    assert (result.steps, result.best_step) == (12, 4)


def test_lora_leaves_the_base_s_own_weights_alone(trained, tiny_base):
    base, result = trained(LORA)
    before = dict(load_base(tiny_base("llama")).model.named_parameters())
    after = {
        name.replace(".base_layer", ""): value
        for name, value in base.model.named_parameters()
        if "lora_" not in name
    }
    assert set(after) == set(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    lora = [value for name, value in base.model.named_parameters() if "lora_" in name]
    assert result.trainable_parameters == sum(value.numel() for value in lora)
    assert result.bytes == 4 * result.trainable_parameters


def test_full_fine_tuning_changes_every_matrix(trained, tiny_base):
    base, result = trained(None)
    before = load_base(tiny_base("llama")).model
    assert result.trainable_parameters == sum(p.numel() for p in before.parameters())
    for (name, old), new in zip(before.named_parameters(), base.model.parameters(), strict=True):
        assert not torch.equal(old, new), name


def test_ia3_is_peft_s_own(trained, tiny_base):
    """Trained scales that plain PEFT loads give the same logits, and are as many as PEFT's."""
    base, result = trained(IA3Config())
    plain = get_peft_model(load_base(tiny_base("llama")).model, IA3Config(task_type="CAUSAL_LM"))
    count, _ = plain.get_nb_trainable_parameters()
    assert result.trainable_parameters == count
    ids = torch.tensor([[5, 6, 7, 8]])
    before = plain(input_ids=ids).logits
    state = get_peft_model_state_dict(base.model)
    set_peft_model_state_dict(plain, {f"base_model.model.{k}": v for k, v in state.items()})
    logits = base.model(input_ids=ids).logits
    assert torch.allclose(plain(input_ids=ids).logits, logits, atol=1e-6)
    assert (before - logits).abs().max() > 1e-3
