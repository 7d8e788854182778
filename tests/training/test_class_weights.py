"""The weighted loss: PyTorch's over all examples, and the same however they are batched."""

from dataclasses import replace

import pytest
import torch

from softhub.model.encoding import Encoder
from softhub.model.loading import load_base
from softhub.training.data import collate, encode_examples
from softhub.training.module import PromptTuningModule

pytestmark = pytest.mark.filterwarnings("ignore::softhub.errors.SoftHubWarning")


def losses(result):
    return [logs["loss"] for logs in result.history if "loss" in logs]


def test_loss_of_all_examples_is_pytorch_s_weighted_mean(tiny_base, toy_task, toy_examples):
    base, task = load_base(tiny_base("llama")), replace(toy_task, class_weights="balanced")
    encoder = Encoder(base.tokenizer, is_encoder_decoder=False)
    candidates = encoder.candidates(task.template, task.verbalizer)
    rows = encode_examples(encoder, task, toy_examples, candidates, None)
    batch = collate([rows[index] for index in range(len(rows))])
    weights = task.training_weights(toy_examples)
    vectors = torch.randn(4, base.hidden_size, generator=torch.Generator().manual_seed(0))
    found = PromptTuningModule(base, vectors, candidates, weights)(**batch)
    criterion = torch.nn.CrossEntropyLoss(torch.tensor([weights["good"], weights["bad"]]))
    torch.testing.assert_close(found["loss"], criterion(found["logits"], batch["labels"]))
    assert weights["bad"] == pytest.approx(3 * weights["good"])


def test_accumulation_takes_the_same_weighted_steps(toy_fit, toy_task, tmp_path):
    task = replace(toy_task, class_weights="balanced")
    runs = [
        toy_fit(
            task=task,
            output_dir=str(tmp_path / str(size)),
            max_steps=4,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=8 // size,
        )[1]
        for size in (8, 2)
    ]
    assert losses(runs[1]) == pytest.approx(losses(runs[0]), abs=1e-4)


def test_weights_reach_the_loss_and_the_provenance(toy_fit, toy_task, toy_examples, tmp_path):
    task = replace(toy_task, class_weights={"good": 1, "bad": 9})
    _, plain = toy_fit(output_dir=str(tmp_path / "plain"), max_steps=4)
    _, weighted = toy_fit(task=task, output_dir=str(tmp_path / "weighted"), max_steps=4)
    assert losses(weighted)[0] != pytest.approx(losses(plain)[0], rel=1e-2)
    training = weighted.prompt.manifest.provenance["training"]
    assert training["class_weights"] == task.training_weights(toy_examples[:32])
    assert "class_weights" not in plain.prompt.manifest.provenance["training"]
