"""What a run costs: its speed as it is told, memory that does not grow, a compiled base."""

import gc

import pytest
import torch

from softhub.training.trainer import PromptTrainer


def test_a_resumed_run_counts_its_own_examples(toy_fit):
    options = {"eval_strategy": "no", "load_best_model_at_end": False}
    toy_fit(max_steps=8, **options)
    _, resumed = toy_fit(max_steps=12, resume=True, **options)
    assert resumed.steps == 12
    trained = resumed.examples_per_second * resumed.seconds
    # The seconds hold what came before the first step too; all twelve steps would be 96.
    assert trained == pytest.approx(4 * 8, rel=0.5)


def test_memory_does_not_grow_with_steps(toy_fit, monkeypatch):
    """Tensors that are alive before each step, with evaluations and checkpoints between them."""
    alive, step = [], PromptTrainer.training_step

    def counted(*args, **kwargs):
        gc.collect()
        found = [each for each in gc.get_objects() if isinstance(each, torch.Tensor)]
        alive.append((len(found), sum(each.numel() for each in found)))
        return step(*args, **kwargs)

    monkeypatch.setattr(PromptTrainer, "training_step", counted)
    toy_fit(max_steps=20)
    tensors, numbers = zip(*alive, strict=True)
    assert len(alive) == 20
    assert max(tensors[14:]) <= max(tensors[5:13])
    assert max(numbers[14:]) <= max(numbers[5:13])


def test_a_compiled_base_trains_the_same_prompt(toy_fit, tmp_path):
    """Traced and run as it is: what a compiler makes of it differs in the last digits only."""
    _, plain = toy_fit(max_steps=4)
    _, compiled = toy_fit(
        max_steps=4,
        output_dir=str(tmp_path / "compiled"),
        torch_compile=True,
        torch_compile_backend="eager",
    )
    torch.testing.assert_close(compiled.prompt.vectors, plain.prompt.vectors)
