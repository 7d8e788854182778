"""The trained parameter: it starts at the init, decays, is gathered, and alone is saved."""

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.tensor import Shard, distribute_tensor

from softhub.model.loading import load_base
from softhub.training import PromptTrainingArguments
from softhub.training.encoded_task import encode_task
from softhub.training.module import PromptTuningModule
from softhub.training.trainer import PromptTrainer


@pytest.fixture
def trainer(tiny_base, toy_task, toy_examples, tmp_path):
    """A trainer of six random vectors, which are its `start`."""
    base = load_base(tiny_base("llama"))
    encoded = encode_task(base, toy_task, toy_examples[:8], toy_examples[:8], virtual_tokens=6)
    start = torch.randn(6, base.hidden_size, generator=torch.Generator().manual_seed(3))
    module = PromptTuningModule(base, start, encoded.candidates)
    settings = {"max_steps": 10, "weight_decay": 0.1, "use_cpu": True}
    args = PromptTrainingArguments(output_dir=str(tmp_path), **settings)
    trainer = PromptTrainer(module, toy_task, args, encoded.train, encoded.dev)
    trainer.start = start
    return trainer


def test_a_first_step_moves_every_token_and_the_start_stays_as_it_was(trainer):
    start, before = trainer.start, trainer.start.clone()
    assert torch.equal(trainer.prompt_vectors(), before)
    optimizer = torch.optim.SGD([trainer.model.prompt], lr=1.0)
    (trainer.model.prompt * torch.linspace(-1, 1, start.shape[1])).sum().backward()
    optimizer.step()
    assert (trainer.prompt_vectors() - before).abs().amax(dim=1).min() > 1e-3
    assert torch.equal(start, before)


def test_weight_decay_reaches_the_prompt_and_nothing_else_is_trained(trainer):
    groups = trainer.create_optimizer().param_groups
    assert [p for group in groups for p in group["params"]] == [trainer.model.prompt]
    assert [g["weight_decay"] for g in groups if g["params"]] == [0.1]


def test_a_checkpoint_holds_the_prompt_alone(toy_fit, tmp_path):
    _, result = toy_fit()
    state = load_file(tmp_path / "run" / f"checkpoint-{result.best_step}" / "model.safetensors")
    assert torch.equal(state.pop("prompt"), result.prompt.vectors)
    assert not state


def test_sharded_vectors_are_gathered(trainer, tmp_path):
    """(One process is enough: its shards are of the kind that FSDP2 leaves behind.)"""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        sharded = distribute_tensor(trainer.model.prompt.data, mesh, [Shard(0)])
        trainer.model.prompt = torch.nn.Parameter(sharded)
        whole = trainer.prompt_vectors()
    finally:
        torch.distributed.destroy_process_group()
    assert type(whole) is torch.Tensor
    assert torch.equal(whole, trainer.start)
