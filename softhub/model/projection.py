"""Compute log-probabilities of reference tokens without storing the logits of all positions.

In training on texts, `[B, N, V]` logits, a float32 copy and their gradient take gigabytes if V is
150,000. With a frozen head nothing of this has to be stored. The gradient of a token's
log-probability with respect to its hidden state is known as soon as its logits are, so both are
computed in pieces, and only `[B, N]` and `[B, N, H]` are stored.
"""

from __future__ import annotations

from copy import copy
from typing import Any, cast

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from softhub.model.device_settings import settings_of

_LARGE_LOGIT = 100.0
"""Largest logit in the test for soft caps, which are a few tens."""


def trunk_of(model: PreTrainedModel) -> nn.Module:
    """Return the model without its head; of an encoder-decoder the decoder."""
    trunk = model.get_decoder() if model.config.is_encoder_decoder else model.base_model
    return cast(nn.Module, trunk)


@torch.no_grad()
def ends_in_plain_head(model: PreTrainedModel) -> bool:
    """Return whether a model's logits are exactly its head's product with the trunk's output.

    This is determined by running both on two tokens: some models scale the hidden states (T5 with
    tied embeddings) or the logits (Cohere), or cap the logits (Gemma 2), each in its own way.
    """
    head, trunk = model.get_output_embeddings(), trunk_of(model)
    name = next((name for name, part in model.named_children() if part is head), None)
    if type(head) is not nn.Linear or name is None or trunk is model:
        return False
    try:
        return _matches_model(model, head, name, trunk)
    except torch.OutOfMemoryError:
        raise  # says nothing about the head
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return False  # its parts take other arguments


def _matches_model(model: PreTrainedModel, head: nn.Linear, name: str, trunk: nn.Module) -> bool:
    """Return whether the model passes the trunk's output to its head and returns the logits."""
    ids = torch.tensor([[1, 2]], device=head.weight.device)
    inputs: dict[str, Any] = {"input_ids": ids, "use_cache": False}
    full_inputs = dict(inputs)
    if model.config.is_encoder_decoder:
        encoder = model.get_encoder()(input_ids=ids)
        inputs["encoder_hidden_states"] = encoder.last_hidden_state
        full_inputs = {"encoder_outputs": encoder, "decoder_input_ids": ids, "use_cache": False}
    # Step 1: the trunk alone, [1, 2, H].
    hidden = getattr(trunk(**inputs), "last_hidden_state", None)
    if hidden is None or not hidden.any():
        return False
    # Step 2: the whole model, with a head that records its input and returns large logits.
    probe = _ProbeHead(head, hidden)
    logits = _with_head(model, name, probe)(**full_inputs).logits  # [1, 2, V]
    unscaled_states = len(probe.inputs) == 1 and _close(probe.inputs[0], hidden)
    return unscaled_states and _close(logits, head(probe.states))


def _with_head(model: PreTrainedModel, name: str, head: nn.Module) -> PreTrainedModel:
    """Return a shallow copy of a model with another head; other threads may use the original."""
    twin = copy(model)
    twin._modules = {**model._modules, name: head}
    return twin


class _ProbeHead(nn.Module):
    """Records what a head receives, and returns logits so large that a cap changes them."""

    def __init__(self, head: nn.Linear, hidden: torch.Tensor) -> None:
        super().__init__()
        noise = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(0)).to(hidden)
        largest: torch.Tensor = head(noise).abs().max()
        self.states = noise * (_LARGE_LOGIT / largest.clamp_min(1e-3))  # [1, 2, H]
        self.weight = head.weight  # some models cast to its dtype
        self.inputs: list[torch.Tensor] = []
        self.head = head

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        self.inputs.append(hidden)
        return cast(torch.Tensor, self.head(self.states))


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def token_logprobs(head: nn.Linear, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Return log-probabilities `[K]`, float32, of token ids `[K]` given hidden states `[K, H]`.

    The head must be frozen; the result is differentiable with respect to the hidden states.
    """
    return cast(torch.Tensor, _TokenLogprobs.apply(hidden, ids, head))


class _TokenLogprobs(torch.autograd.Function):
    """The gradient of log p(id) with respect to the hidden state is W[id] - sum_v p(v) W[v]."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, ids: torch.Tensor, head: nn.Linear) -> torch.Tensor:
        size = max(1, settings_of(hidden.device).logits_at_once // head.weight.shape[0])
        picked, gradients = [], []
        for part, wanted in zip(hidden.split(size), ids.split(size), strict=True):
            logits = head(part).float()  # [K', V], one piece of the K tokens
            own = logits.gather(1, wanted.unsqueeze(1))  # [K', 1]
            total = logits.logsumexp(dim=1, keepdim=True)  # [K', 1]
            picked.append((own - total).squeeze(1))
            if ctx.needs_input_grad[0]:
                # one_hot(id) - p, in place of the logits; its product with W is the gradient.
                shares = logits.sub_(total).exp_().neg_()
                shares.scatter_add_(1, wanted.unsqueeze(1), torch.ones_like(own))
                gradients.append(shares.to(head.weight.dtype) @ head.weight)  # [K', H]
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        ctx.dtype = hidden.dtype
        return torch.cat(picked)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_logprob: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradients,) = ctx.saved_tensors
        return (by_logprob.unsqueeze(1) * gradients).to(ctx.dtype), None, None
