"""The module that is trained: a base and one prompt, the loss computed in its forward.

PEFT's own forward puts the prompt before the padding, repeats it in every row and projects the
whole vocabulary everywhere; this one does what softhub's engine does, by the same functions. Both
passes, over prompt and texts, happen inside one `forward`, so DDP and FSDP see one module.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from softhub.model.assembly import PaddedBatch
from softhub.model.base import BaseModel
from softhub.model.encoding import Candidates
from softhub.model.kv_cache import encode_prefix, shares_prefixes
from softhub.model.packing import SharedPrompt, attending_packed, longest_packed
from softhub.model.scoring import PreparedPrompt, encode_rows, label_scores, target_logprobs
from softhub.training.data import IGNORED
from softhub.training.reparameterization import Reparameterization


class Tuner(nn.Module):
    """A base and the loss of a batch; what is trained is for subclasses to say.

    Args:
        base: The base model.
        candidates: Label words of a classification task; None trains on target tokens.
        weights: How much each label counts, by its name; None for all alike.
    """

    accepts_loss_kwargs = True
    _longest_packed = 0

    def __init__(
        self,
        base: BaseModel,
        candidates: Candidates | None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.base = base
        self.model = base.model
        self.candidates = candidates
        self.weights = weights_of(candidates, weights)

    @property
    def _no_split_modules(self) -> Any:
        """Classes of the layers that FSDP shards one by one; Accelerate asks for them."""
        return self.model._no_split_modules

    def train(self, mode: bool = True) -> Tuner:
        """Set the mode; the base keeps its dropout off whatever the mode."""
        super().train(mode)
        self.model.eval()
        if mode and self.base.checkpoints_activations:
            # A layer checkpoints only in training mode; its own dropout is off, see below.
            for module in self.model.modules():
                if isinstance(module, GradientCheckpointingLayer):
                    module.training = True
        return self

    def attending(self) -> AbstractContextManager[None]:
        """What a step's forward and backward pass want around them."""
        return attending_packed(self.model) if self._longest_packed else nullcontext()

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Recompute activations in the backward pass."""
        for module in self.model.modules():
            for name, value in vars(module).items():
                if "dropout" in name and isinstance(value, float):
                    setattr(module, name, 0.0)
        if hasattr(self.model, "activation_checkpointing_enable"):
            self.model.activation_checkpointing_enable(**options)
        else:
            self.model.gradient_checkpointing_enable(**options)

    # Trainer calls it by this name before transformers 5.23, which Python 3.10 cannot have.
    gradient_checkpointing_enable = activation_checkpointing_enable

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> dict[str, torch.Tensor]:
        """Loss of a batch.

        Args:
            input_ids: Texts `[B, T]`, padded on the left.
            attention_mask: Which of them are real `[B, T]`, bool.
            labels: Label indices `[B]`, whether each label applies `[B, labels]` (bool), their
                probabilities `[B, labels]` (float), or target tokens `[B, N]` with -100 at pads.
            num_items_in_batch: Labels or target tokens of the whole step over all processes.

        Returns:
            `loss`, a scalar: the negative log-likelihood, weighted by label, summed over this batch
            and divided by `num_items_in_batch` (the batch's own count if None); for probabilities
            the Kullback-Leibler divergence from them. `losses`, the same of each row, `[B]`, not
            divided and without gradient. For classification also `logits`, the label scores
            `[B, labels]`.
        """
        return self._loss(
            PaddedBatch(input_ids, attention_mask),
            labels,
            num_items_in_batch,
            self.candidates,
            self.weights,
        )

    def _loss(
        self,
        texts: PaddedBatch,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None,
        candidates: Candidates | None,
        weights: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        words = () if candidates is None else candidates.continuations
        behind = labels.shape[1] if candidates is None else max(map(len, words))
        prompts = [self._prepared_prompt(texts.ids.shape[1] + behind)] * texts.ids.shape[0]
        if candidates is None:
            targets = PaddedBatch(labels.clamp_min(0), labels != IGNORED)
            losses = -target_logprobs(self.base, prompts, texts, targets).sum(-1)
            loss = _normalised(losses.sum(), targets.mask.sum(), num_items_in_batch)
            return {"loss": loss, "losses": losses.detach()}
        encoded = encode_rows(self.base, prompts, texts, keep_cache=any(words))
        scores = label_scores(self.base, encoded, candidates)
        labels = labels.to(scores.device)
        if labels.is_floating_point():
            losses = _divergence(scores, labels, yes_no=candidates.yes_no)
        else:
            losses = _label_loss(scores, labels, weights)
        return {
            "loss": _normalised(losses.sum(), labels.numel(), num_items_in_batch),
            "losses": losses.detach(),
            "logits": scores,
        }

    def _prepared_prompt(self, columns: int) -> PreparedPrompt:
        """What stands before every text, of rows that are `columns` wide without it."""
        return None


class PromptTuner(Tuner):
    """A frozen base with one trainable prompt.

    Args:
        base: The base model.
        prompt: The module whose output is the prompt; it alone is trained.
        candidates: Label words of a classification task; None trains on target tokens.
        weights: How much each label counts, by its name; None for all alike.
    """

    def __init__(
        self,
        base: BaseModel,
        prompt: Reparameterization,
        candidates: Candidates | None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(base, candidates, weights)
        self.prompt = prompt.to(base.device, torch.float32)
        self._longest_packed = longest_packed(base)

    def _prepared_prompt(self, columns: int) -> PreparedPrompt:
        """What the batch can share of the prompt: a packed row, keys and values, or neither."""
        # In half precision the output would differ from what is folded and shipped.
        with torch.autocast(self.base.device.type, enabled=False):
            vectors: torch.Tensor = self.prompt()
        fits = vectors.shape[0] + columns <= self._longest_packed
        # A compiler would have to stop where the layers' attention is exchanged.
        if fits and not torch.compiler.is_compiling():
            return SharedPrompt(vectors)
        return encode_prefix(self.base, vectors) if shares_prefixes(self.base) else vectors


def weights_of(
    candidates: Candidates | None, weights: Mapping[str, float] | None
) -> torch.Tensor | None:
    """Weights of the labels in the candidates' order; None for all alike."""
    if weights is None or candidates is None:
        return None
    return torch.tensor([weights[label] for label in candidates.labels])


def _label_loss(
    scores: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None
) -> torch.Tensor:
    """Loss of each row of label scores `[B, labels]`, `[B]`."""
    weights = None if weights is None else weights.to(scores.device)
    if labels.dtype == torch.bool:
        return nn.functional.binary_cross_entropy_with_logits(
            scores, labels.float(), pos_weight=weights, reduction="none"
        ).sum(-1)
    return nn.functional.cross_entropy(scores, labels, weight=weights, reduction="none")


def _divergence(scores: torch.Tensor, shares: torch.Tensor, *, yes_no: bool) -> torch.Tensor:
    """Kullback-Leibler divergence of each row of label scores from probabilities, `[B]`."""
    if yes_no:
        logs = nn.functional.logsigmoid(torch.stack([scores, -scores]))
        shares = torch.stack([shares, 1 - shares])
        return nn.functional.kl_div(logs, shares, reduction="none").sum((0, -1))
    logs = scores.log_softmax(dim=-1)
    divergence = nn.functional.kl_div(logs, shares, reduction="none").sum(-1)
    return divergence * shares.shape[-1]  # which the count of items counts once a label


def _normalised(
    total: torch.Tensor, own: torch.Tensor | int, whole: torch.Tensor | int | None
) -> torch.Tensor:
    count = own if whole is None else whole
    return total / (count.to(total.device) if isinstance(count, torch.Tensor) else count)
