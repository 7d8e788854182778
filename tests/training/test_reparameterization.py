"""Reparameterisations: they start at the init, train, resume, and fold into plain vectors."""

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from transformers import TrainerCallback

from softhub.errors import TrainingError
from softhub.model.base import load_base
from softhub.model.encoding import Encoder
from softhub.training import PromptTrainingArguments
from softhub.training import running as running_module
from softhub.training.callbacks import InterruptCallback
from softhub.training.data import collate, encode_examples
from softhub.training.module import PromptTuner
from softhub.training.reparameterization import (
    REPARAMETERIZATIONS,
    Plain,
    fold,
    reparameterize,
)
from softhub.training.trainer import PromptTrainer

pytestmark = pytest.mark.filterwarnings("ignore::softhub.errors.SoftHubWarning")

TOKENS, WIDTH = 6, 32
OTHERS = tuple(name for name in REPARAMETERIZATIONS if name != "none")


def make(name, vectors=None, **options):
    generator = torch.Generator().manual_seed(3)
    vectors = torch.randn(TOKENS, WIDTH, generator=generator) if vectors is None else vectors
    embeddings = torch.randn(200, WIDTH, generator=generator)
    module = reparameterize(name, vectors, draw=lambda count: embeddings[:count], **options)
    return vectors, module


def shaken(name, **options):
    """A module as if trained for a while: every parameter moved."""
    _, module = make(name, **options)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return module


@pytest.mark.parametrize("name", REPARAMETERIZATIONS)
def test_starts_at_the_vectors_of_the_init(name):
    vectors, module = make(name)
    if name == "mlp":  # least squares
        torch.testing.assert_close(module(), vectors, atol=1e-5, rtol=0)
    else:
        assert torch.equal(module(), vectors)


@pytest.mark.parametrize("name", REPARAMETERIZATIONS)
def test_a_first_step_moves_every_token_and_the_start_stays_as_it_was(name):
    vectors, module = make(name)
    before = vectors.clone()
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    (module() * torch.linspace(-1, 1, WIDTH)).sum().backward()
    optimizer.step()
    assert (fold(module) - before).abs().amax(dim=1).min() > 1e-3
    assert torch.equal(vectors, before)


@pytest.mark.parametrize("name", OTHERS)
def test_same_seed_same_module_whatever_else_drew_random_numbers(name):
    states = []
    for noise in range(2):
        torch.manual_seed(noise)
        states.append(shaken(name, seed=7).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", REPARAMETERIZATIONS)
def test_folded_vectors_give_the_live_loss(name, tiny_base, toy_task, toy_examples):
    base = load_base(tiny_base("llama"))
    encoder = Encoder(base.tokenizer, is_encoder_decoder=False)
    candidates = encoder.candidates(toy_task.template, toy_task.verbalizer)
    rows = encode_examples(encoder, toy_task, toy_examples[:8], candidates, None)
    batch = collate([rows[index] for index in range(8)])
    module = shaken(name)
    live = PromptTuner(base, module, candidates)
    folded = PromptTuner(base, Plain(fold(module)), candidates)
    assert torch.equal(live(**batch)["loss"], folded(**batch)["loss"])
    with torch.autocast("cpu", torch.bfloat16):  # it is the base that is rounded, not the module
        assert torch.equal(live(**batch)["loss"], folded(**batch)["loss"])


@pytest.mark.parametrize("name", OTHERS)
def test_fit_learns_and_ships_plain_vectors(name, toy_fit, tmp_path):
    _, result = toy_fit(reparameterization=name, learning_rate=0.02, max_steps=16)
    dev = [logs["eval_loss"] for logs in result.history if "eval_loss" in logs]
    assert dev[-1] < dev[0]
    assert result.prompt.vectors.shape == (TOKENS, WIDTH)
    assert result.prompt.manifest.provenance["training"]["reparameterization"] == name
    state = load_file(tmp_path / "run" / f"checkpoint-{result.best_step}" / "model.safetensors")
    assert all(key.startswith("prompt.") for key in state)
    assert len(state) <= 7


class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 6:
            raise ConnectionAbortedError("killed")


@pytest.mark.parametrize("name", ["residual", "ulpt"])
def test_a_run_that_was_killed_goes_on_exactly(name, toy_fit, tmp_path, monkeypatch):
    options = {"reparameterization": name, "learning_rate": 0.02, "max_steps": 8}
    _, whole = toy_fit(output_dir=str(tmp_path / "whole"), **options)

    def deadly():
        callback = InterruptCallback()
        callback.on_step_end = Kill().on_step_end
        return callback

    with monkeypatch.context() as patch:
        patch.setattr(running_module, "InterruptCallback", deadly)
        with pytest.raises(ConnectionAbortedError):
            toy_fit(output_dir=str(tmp_path / "cut"), **options)
    _, resumed = toy_fit(output_dir=str(tmp_path / "cut"), resume=True, **options)
    assert torch.equal(resumed.prompt.vectors, whole.prompt.vectors)


@pytest.mark.parametrize(
    ("name", "decayed"),
    [
        ("none", {"vectors"}),
        ("residual", {"down.weight", "up.weight"}),
        ("ulpt", {"codes"}),
        ("superpos", {"weights"}),
        ("mlp", {"first.weight", "second.weight", "last.weight"}),
    ],
)
def test_weight_decay_reaches_matrices_of_the_module_alone(
    name, decayed, tiny_base, toy_task, toy_examples, tmp_path
):
    base = load_base(tiny_base("llama"))
    encoder = Encoder(base.tokenizer, is_encoder_decoder=False)
    candidates = encoder.candidates(toy_task.template, toy_task.verbalizer)
    rows = encode_examples(encoder, toy_task, toy_examples[:8], candidates, None)
    _, module = make(name)
    args = PromptTrainingArguments(output_dir=str(tmp_path), weight_decay=0.1, use_cpu=True)
    trainer = PromptTrainer(PromptTuner(base, module, candidates), toy_task, args, rows, rows)
    groups = trainer.create_optimizer().param_groups
    names = {parameter: name for name, parameter in module.named_parameters()}
    reached = {names[p] for group in groups if group["weight_decay"] for p in group["params"]}
    assert reached == decayed
    assert sum(len(group["params"]) for group in groups) == len(names)


def test_a_sharded_module_is_gathered(tmp_path):
    """(One process is enough: its shards are of the kind that FSDP2 leaves behind.)"""
    module = shaken("residual")
    expected = fold(module)
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        for part in module.modules():
            for key, parameter in list(part.named_parameters(recurse=False)):
                placement = Shard(0) if parameter.ndim > 1 else Replicate()
                sharded = distribute_tensor(parameter.data, mesh, [placement])
                setattr(part, key, torch.nn.Parameter(sharded))
        folded = fold(module)
    finally:
        torch.distributed.destroy_process_group()
    assert type(folded) is torch.Tensor
    torch.testing.assert_close(folded, expected, atol=1e-6, rtol=0)


def test_sizes_are_what_was_asked_for():
    assert make("residual", size=5)[1].down.out_features == 5
    assert make("ulpt")[1].codes.shape == (TOKENS, 64)
    assert make("ulpt", size=2)[1].projection.shape == (2, WIDTH)
    assert make("superpos")[1].embeddings.shape == (128, WIDTH)


def test_unknown_names_and_sizes_without_use_are_refused(tmp_path):
    with pytest.raises(TrainingError, match=r"'residul'; did you mean 'residual'"):
        PromptTrainingArguments(output_dir=str(tmp_path), reparameterization="residul")
    with pytest.raises(TrainingError, match="expected a positive size"):
        PromptTrainingArguments(output_dir=str(tmp_path), reparameterization_size=4)
    with pytest.raises(TrainingError, match="expected a positive size"):
        make("ulpt", size=0)
