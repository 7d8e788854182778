"""Log-probabilities of reference tokens without the logits of whole texts.

The vocabulary is by far the widest thing in a step that learns texts: `[B, N, V]` logits, a float32
copy and their gradient take gigabytes where V is 150,000. A frozen head needs none of it kept. The
gradient of a token's log-probability by its hidden state is known as soon as its logits are, so
both are computed in pieces, and only `[B, N]` and `[B, N, H]` stay.
"""

from __future__ import annotations

from copy import copy
from typing import Any, cast

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

_PIECE = 2**25
"""Logits that exist at once, 128 MiB in float32; bounds memory, not the result."""

_LOUD = 100.0
"""Largest logit in the test for caps, which begin at some tens."""


def trunk_of(model: PreTrainedModel) -> nn.Module:
    """The model without its head: a decoder, or the decoder of an encoder-decoder."""
    trunk = model.get_decoder() if model.config.is_encoder_decoder else model.base_model
    return cast(nn.Module, trunk)


@torch.no_grad()
def ends_in_plain_head(model: PreTrainedModel) -> bool:
    """Whether a model's logits are its output embeddings' product with the trunk's hidden states.

    Found out by running both on two tokens: some models scale the hidden states (T5 with tied
    embeddings) or the logits (Cohere), or cap these (Gemma 2), each in its own way.
    """
    head, trunk = model.get_output_embeddings(), trunk_of(model)
    name = next((name for name, part in model.named_children() if part is head), None)
    if type(head) is not nn.Linear or name is None or trunk is model:
        return False
    try:
        return _give_the_same(model, head, name, trunk)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return False  # its parts want to be called in another way


def _give_the_same(model: PreTrainedModel, head: nn.Linear, name: str, trunk: nn.Module) -> bool:
    """Whether the model hands the trunk's hidden states to its head, and the logits to us."""
    ids = torch.tensor([[1, 2]], device=head.weight.device)
    inputs: dict[str, Any] = {"input_ids": ids, "use_cache": False}
    whole = dict(inputs)
    if model.config.is_encoder_decoder:
        encoder = model.get_encoder()(input_ids=ids)
        inputs["encoder_hidden_states"] = encoder.last_hidden_state
        whole = {"encoder_outputs": encoder, "decoder_input_ids": ids, "use_cache": False}
    hidden = getattr(trunk(**inputs), "last_hidden_state", None)
    if hidden is None or not hidden.any():
        return False
    probe, twin = _Probe(head, hidden), copy(model)
    # Other threads may be using the model: it stays as it is, and so does all that is in it.
    twin._modules = {**model._modules, name: probe}
    logits = twin(**whole).logits
    met = len(probe.met) == 1 and _same(probe.met[0], hidden)
    return met and _same(logits, head(probe.loud))


class _Probe(nn.Module):
    """Notes what a head is given, and gives logits so large that a cap on them shows."""

    def __init__(self, head: nn.Linear, hidden: torch.Tensor) -> None:
        super().__init__()
        noise = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(0)).to(hidden)
        loudest: torch.Tensor = head(noise).abs().max()
        self.loud = noise * (_LOUD / loudest.clamp_min(1e-3))
        self.weight = head.weight  # whose dtype some models cast to
        self.met: list[torch.Tensor] = []
        self.head = head

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        self.met.append(hidden)
        return cast(torch.Tensor, self.head(self.loud))


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def token_logprobs(head: nn.Linear, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of tokens, each by its own hidden state.

    Args:
        head: A frozen head.
        hidden: Hidden states `[K, H]`; the gradient reaches them.
        ids: Token ids `[K]`, int64.

    Returns:
        `[K]`, float32.
    """
    return cast(torch.Tensor, _TokenLogprobs.apply(hidden, ids, head))


class _TokenLogprobs(torch.autograd.Function):
    """The gradient of log p(id) by the hidden state is W[id] - sum over v of p(v) W[v]."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, ids: torch.Tensor, head: nn.Linear) -> torch.Tensor:
        size = max(1, _PIECE // head.weight.shape[0])
        picked, gradients = [], []
        for part, wanted in zip(hidden.split(size), ids.split(size), strict=True):
            logits = head(part).float()
            own = logits.gather(1, wanted.unsqueeze(1))
            total = logits.logsumexp(dim=1, keepdim=True)
            picked.append((own - total).squeeze(1))
            if ctx.needs_input_grad[0]:
                shares = logits.sub_(total).exp_().neg_()
                shares.scatter_add_(1, wanted.unsqueeze(1), torch.ones_like(own))
                gradients.append(shares.to(head.weight.dtype) @ head.weight)
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        ctx.dtype = hidden.dtype
        return torch.cat(picked)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_logprob: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradients,) = ctx.saved_tensors
        return (by_logprob.unsqueeze(1) * gradients).to(ctx.dtype), None, None
