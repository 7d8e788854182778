"""A base that is moved or cast after it was used answers as one that was loaded that way."""

import pytest
import torch

from softhub.errors import IncompatiblePrompt
from softhub.inference.engine import PromptModel
from softhub.model.loading import load_base
from softhub.model.prefix import prefix_shape
from tests.prompts import MOOD, TEXTS, model_with, prefix, soft_prompt

NAMES = ["prefix", "prompt", None, "prompt"]


@pytest.fixture
def base(tiny_base):
    return load_base(tiny_base("llama"))


@pytest.fixture
def prompts(base):
    return {"prefix": prefix(base, 3, MOOD, seed=1), "prompt": soft_prompt(base, 6, MOOD, seed=2)}


def answers(model):
    found = model.predict(TEXTS[:4], prompt=NAMES, task=MOOD)
    texts = model.generate(TEXTS[:4], prompt=NAMES, max_new_tokens=4)
    return [each.probabilities for each in found], texts


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loaded_prompts_follow_a_cast(base, prompts, dtype):
    model = model_with(base, prompts)
    whole = answers(model)
    base.model.to(dtype)
    assert answers(model) == answers(model_with(base, prompts)) != whole
    base.model.to(torch.float32)
    answers(model)  # what half precision rounded in the base stays rounded, but not in prompts
    assert answers(model) == answers(model_with(base, prompts))


def test_a_base_that_was_asked_before_a_cast_is_asked_again(base, prompts):
    prefix_shape(base)
    asked = base.capabilities
    assert base.capabilities is asked
    base.model.to(torch.bfloat16)
    assert base.capabilities is not asked
    assert base.capabilities.texts(0, 0, prompted=True).from_cache
    answers(model_with(base, prompts))


def test_a_base_is_asked_in_its_own_precision(base):
    with torch.autocast("cpu", torch.bfloat16):
        assert base.capabilities.batching(0) == "padded"
        assert base.capabilities.packs
    answers(model_with(base, {"prompt": soft_prompt(base, 6, MOOD), "prefix": prefix(base, 2)}))


@pytest.mark.parametrize("make", [soft_prompt, prefix])
def test_numbers_that_the_dtype_of_the_base_cannot_hold_are_refused(base, make):
    prompt = make(base, 3, MOOD)
    prompt.vectors.mul_(1e6)
    model = PromptModel(base)
    model.load_prompt(prompt, name="large")
    base.model.to(torch.float16)
    with pytest.raises(IncompatiblePrompt, match=r"too large for .* in torch\.float16\. Load"):
        PromptModel(base).load_prompt(prompt)
    model.load_prompt(make(base, 3, MOOD), name="other")
    with pytest.raises(IncompatiblePrompt):
        model.predict("Fine.", prompt="large")
    assert model.predict("Fine.", prompt="other").label
    model.unload_prompt("large")
    assert model.prompts == ("other",)


def test_a_base_in_training_mode_is_asked_in_eval_mode(base):
    """Layers that checkpoint their activations in a training step fill no cache."""
    base.model.gradient_checkpointing_enable()
    base.model.train()
    answers = base.capabilities.rows(0)
    assert answers.shares_keys and answers.continues
    assert all(module.training for module in base.model.modules())
    assert base.checkpoints_activations
