"""Log-probabilities in pieces against autograd over whole logits."""

import pytest
import torch
from torch import nn
from transformers import RobertaConfig, RobertaForCausalLM

from softhub.model import projection
from softhub.model.assembly import pad_rows
from softhub.model.device_settings import DEVICE_SETTINGS, DeviceSettings
from softhub.model.loading import load_base
from softhub.model.scoring import target_logprobs
from tests.tiny import BUILDERS, HIDDEN_SIZE, VOCAB_SIZE

TEXTS = [(20, 31, 42), (50, 51, 52, 53, 54, 55), (33,)]
TARGETS = [(80, 81), (82,), (83, 84, 85, 86)]


@pytest.mark.parametrize("kind", BUILDERS)
def test_heads_that_scale_or_cap_are_told_apart(kind, tiny_base):
    assert load_base(tiny_base(kind)).has_plain_head == (kind not in ("gemma2", "t5"))


@pytest.mark.parametrize("kind", ["llama", "gemma2", "t5"])
def test_finding_out_leaves_the_model_as_it_is(kind, tiny_base):
    base = load_base(tiny_base(kind))
    head, met = base.model.get_output_embeddings(), []
    head.register_forward_pre_hook(lambda *_: met.append(base.model.get_output_embeddings()))
    base.has_plain_head  # noqa: B018
    assert met and all(module is head for module in [*met, base.model.get_output_embeddings()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("piece", [1, 3 * VOCAB_SIZE, 2**25])
def test_value_and_gradient_are_those_of_whole_logits(piece, dtype, monkeypatch):
    monkeypatch.setitem(DEVICE_SETTINGS, "cpu", DeviceSettings(logits_at_once=piece))
    torch.manual_seed(0)
    head = nn.Linear(HIDDEN_SIZE, VOCAB_SIZE, dtype=dtype).requires_grad_(False)
    ids, by_logprob = torch.randint(VOCAB_SIZE, (7,)), torch.randn(7)
    found, expected = [], []
    for results in (found, expected):
        hidden = torch.linspace(-3, 3, 7 * HIDDEN_SIZE, dtype=dtype).view(7, HIDDEN_SIZE)
        hidden.requires_grad_()
        if results is found:
            logprobs = projection.token_logprobs(head, hidden, ids)
        else:
            logprobs = head(hidden).float().log_softmax(-1)[torch.arange(7), ids]
        (logprobs * by_logprob).sum().backward()
        results += [logprobs.detach(), hidden.grad]
    assert found[1].dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def test_a_head_within_another_module_stays_where_it_is():
    """RoBERTa's setter would put another head into the module that the copy shares."""
    config = RobertaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        is_decoder=True,
    )
    model = RobertaForCausalLM(config).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        before = model(ids).logits
        assert not projection.ends_in_plain_head(model)
        torch.testing.assert_close(model(ids).logits, before)


def test_a_quantised_head_is_run_as_it_is(tiny_base):
    """GPTQ's layers hold `qweight`, and no weight."""

    class Quantised(nn.Module):
        def __init__(self, head):
            super().__init__()
            self.qweight = head.weight

        def forward(self, hidden):
            return hidden @ self.qweight.T

    base = load_base(tiny_base("llama"))
    expected = gradient(base)
    base.model.lm_head = Quantised(base.model.lm_head)
    torch.testing.assert_close(gradient(base), expected, atol=1e-4, rtol=1e-4)


def gradient(base):
    torch.manual_seed(1)
    prompt = torch.randn(4, HIDDEN_SIZE, requires_grad=True)
    targets = pad_rows(TARGETS, side="right")
    target_logprobs(base, [prompt] * 3, pad_rows(TEXTS), targets).sum().backward()
    return prompt.grad


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral"])
def test_a_prompt_learns_the_same_in_pieces(kind, tiny_base, monkeypatch):
    folder, widest = tiny_base(kind), []
    monkeypatch.setitem(DEVICE_SETTINGS, "cpu", DeviceSettings(logits_at_once=2 * VOCAB_SIZE))
    base = load_base(folder)
    gradient(base)  # asks the base, which uses the head too
    head = base.model.get_output_embeddings()
    head.register_forward_pre_hook(lambda _, given: widest.append(given[0].shape))
    in_pieces = gradient(base)
    assert widest == [(2, HIDDEN_SIZE)] * 3 + [(1, HIDDEN_SIZE)]  # seven tokens, and no pads
    whole = load_base(folder)
    vars(whole)["has_plain_head"] = False
    torch.testing.assert_close(in_pieces, gradient(whole), atol=1e-4, rtol=1e-4)


def test_a_head_that_is_trained_gets_its_gradient(tiny_base):
    base = load_base(tiny_base("llama"))
    head = base.model.get_output_embeddings().requires_grad_()
    gradient(base)
    assert head.weight.grad is not None


def test_a_head_with_adapters_of_its_own_is_run_as_it_is(tiny_base):
    from peft import LoraConfig, inject_adapter_in_model

    base = load_base(tiny_base("llama"))
    inject_adapter_in_model(LoraConfig(target_modules=["lm_head"]), base.model)
    assert not base.has_plain_head
    gradient(base)
    assert any(parameter.grad is not None for parameter in base.model.parameters())
