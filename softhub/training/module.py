"""The module that is trained: a base and one prompt, with the loss computed in its forward.

PEFT's own forward puts the prompt before the padding, repeats it in every row and projects the
hidden states of all positions onto the full vocabulary; this one does what softhub's engine does,
by the same functions. Both passes, over the prompt and over the texts, happen inside one `forward`,
so that DDP and FSDP see one module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from softhub.adapter.manifest import PrefixShape
from softhub.model.assembly import PaddedBatch
from softhub.model.base import BaseModel
from softhub.model.device_settings import settings_of
from softhub.model.encoding import Candidates
from softhub.model.grouping import PreparedPrompt
from softhub.model.kv_cache import encode_prefix, shares_prefixes
from softhub.model.packing import SharedPrompt, attending_packed, longest_packed
from softhub.model.prefix import prefix_of, prefix_template, units_of
from softhub.model.scoring import encode_rows, label_scores, target_logprobs
from softhub.training.data import IGNORE_INDEX


class LossModule(nn.Module):
    """A base and the loss of a batch; subclasses define the trained parameters.

    Args:
        base: The base model.
        candidates: Label words of a classification task; None trains on target tokens.
        label_weights: Weight of each label in the loss, by name; None if all have the same.
    """

    accepts_loss_kwargs = True
    prefix: PrefixShape | None = None
    _longest_packed = 0

    def __init__(
        self,
        base: BaseModel,
        candidates: Candidates | None,
        label_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.base = base
        self.model = base.model
        self.candidates = candidates
        self.label_weights = weight_tensor(candidates, label_weights)

    @property
    def _no_split_modules(self) -> Any:
        """Classes of the layers that FSDP shards one by one; Accelerate asks for them."""
        return self.model._no_split_modules

    def train(self, mode: bool = True) -> LossModule:
        """Set the mode; dropout of the frozen base stays off in either mode."""
        super().train(mode)
        self.model.eval()
        if mode and self.base.checkpoints_activations:
            # A layer checkpoints only in training mode; its own dropout is off, see below.
            for module in self.model.modules():
                if isinstance(module, GradientCheckpointingLayer):
                    module.training = True
        return self

    def packed_attention(self) -> AbstractContextManager[None]:
        """Return the context in which a step's forward and backward pass have to run."""
        return attending_packed(self.model) if self._packs(0) else nullcontext()

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Recompute activations in the backward pass."""
        # Layers in training mode would apply the dropout that their attributes name.
        for module in self.model.modules():
            for name, value in vars(module).items():
                if "dropout" in name and isinstance(value, float):
                    setattr(module, name, 0.0)
        if hasattr(self.model, "activation_checkpointing_enable"):
            self.model.activation_checkpointing_enable(**options)
        else:
            self.model.gradient_checkpointing_enable(**options)

    @contextmanager
    def base_left_as_it_was(self) -> Iterator[None]:
        """Restore the base afterwards: its checkpointing, its dropout and its mode."""
        before = [(module, _changeable(module)) for module in self.model.modules()]
        try:
            yield
        finally:
            for module, values in before:
                for name in _changeable(module).keys() - values.keys():
                    delattr(module, name)  # which hid the class's own value
                vars(module).update(values)

    # Trainer calls it by this name before transformers 5.23, which Python 3.10 cannot have.
    gradient_checkpointing_enable = activation_checkpointing_enable

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> dict[str, torch.Tensor]:
        """Compute the loss of a batch.

        Args:
            input_ids: Texts `[B, T]`, padded on the left.
            attention_mask: Which of them are real tokens `[B, T]`, bool.
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
        rows = PaddedBatch(input_ids, attention_mask)
        return self._loss(rows, labels, num_items_in_batch, self.candidates, self.label_weights)

    def _loss(
        self,
        texts: PaddedBatch,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None,
        candidates: Candidates | None,
        label_weights: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        if candidates is None:
            return self._target_loss(texts, labels, num_items_in_batch)
        words = candidates.continuations
        prompts = self._prompts(texts, behind=max(map(len, words)))
        # The texts are encoded once; keys and values are needed where a label continues them.
        encoded = encode_rows(self.base, prompts, texts, keep_cache=any(words))
        scores = label_scores(self.base, encoded, candidates)  # [B, labels]
        labels = labels.to(scores.device)
        if labels.is_floating_point():  # a teacher's probabilities
            losses = _divergence(scores, labels, yes_no=candidates.yes_no)  # [B]
        else:
            losses = _label_loss(scores, labels, label_weights)  # [B]
        return {
            "loss": _normalized(losses.sum(), labels.numel(), num_items_in_batch),
            "losses": losses.detach(),
            "logits": scores,
        }

    def _target_loss(
        self,
        texts: PaddedBatch,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None,
    ) -> dict[str, torch.Tensor]:
        """Return the loss of target tokens `[B, N]`; nothing is learned from the texts."""
        prompts = self._prompts(texts, behind=labels.shape[1])
        targets = PaddedBatch(labels.clamp_min(0), labels != IGNORE_INDEX)  # [B, N] each
        losses = -target_logprobs(self.base, prompts, texts, targets).sum(-1)  # [B, N] → [B]
        loss = _normalized(losses.sum(), targets.mask.sum(), num_items_in_batch)
        return {"loss": loss, "losses": losses.detach()}

    def _prompts(self, texts: PaddedBatch, *, behind: int) -> list[PreparedPrompt]:
        """Return the prompt of each row; `behind` is how many tokens follow the longest text."""
        rows, columns = texts.ids.shape  # [B, T]
        return self.prompts_of(rows, columns + behind)

    def prompts_of(self, rows: int, columns: int) -> list[PreparedPrompt]:
        """Return the prompt of each of `rows` rows that are `columns` wide without it."""
        return [self._prepared_prompt(columns)] * rows

    def _prepared_prompt(self, columns: int) -> PreparedPrompt:
        """Return what precedes each text, of rows that are `columns` wide without it."""
        return None

    def _packs(self, width: int) -> bool:
        """Return whether rows of `width` tokens are packed, if that pays on this device."""
        return 0 < self._longest_packed >= width and settings_of(self.base.device).packs


class PromptTuningModule(LossModule):
    """A frozen base with one trainable prompt or prefix.

    Args:
        base: The base model.
        vectors: The prompt at its initialization, `[P, H]`, or the prefix, `[P, width]`; a copy of
            it is trained, a prefix in units of each layer's keys and values.
        candidates: Label words of a classification task; None trains on target tokens.
        label_weights: Weight of each label in the loss, by name; None if all have the same.
        prefix: How a row of a prefix is divided; None for a prompt.
    """

    unit: torch.Tensor | None

    def __init__(
        self,
        base: BaseModel,
        vectors: torch.Tensor,
        candidates: Candidates | None,
        label_weights: Mapping[str, float] | None = None,
        prefix: PrefixShape | None = None,
    ) -> None:
        super().__init__(base, candidates, label_weights)
        base.capabilities.require_prompts()
        # float32 whatever the dtype of the base: a step is too small for half precision.
        vectors = vectors.to(base.device, torch.float32, copy=True)  # [P, H] or [P, width]
        self.prefix = prefix
        # Checkpoints contain the unit, so that a resumed run has the same one: [width].
        self.register_buffer("unit", None if prefix is None else units_of(vectors, prefix))
        self.prompt = nn.Parameter(vectors if self.unit is None else vectors / self.unit)
        self._longest_packed = longest_packed(base) if prefix is None else 0

    def vectors_from(self, prompt: torch.Tensor) -> torch.Tensor:
        """Return the vectors `[P, H]` or `[P, width]` of the trained parameter."""
        return prompt if self.unit is None else prompt * self.unit

    def _prepared_prompt(self, columns: int) -> PreparedPrompt:
        """Return the prompt as the rows can share it: a packed row, keys and values, or neither.

        All three give the same loss. Packing encodes prompt and texts in one pass, keys and values
        in two; where a base supports neither, each row is encoded with its own copy of the prompt.
        A prefix is keys and values already.
        """
        if self.prefix is not None:
            return prefix_of(self.vectors_from(self.prompt), prefix_template(self.base))
        fits = self._packs(self.prompt.shape[0] + columns)
        # Packing replaces the layers' attention, which would break a compiler's graph.
        if fits and not torch.compiler.is_compiling():
            return SharedPrompt(self.prompt)
        if shares_prefixes(self.base, self.prompt.shape[0] + columns):
            return encode_prefix(self.base, self.prompt)
        return self.prompt


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that have a gradient, by name."""
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


def _changeable(module: nn.Module) -> dict[str, Any]:
    """Return the attributes of a layer that training with activation checkpointing sets."""
    return {
        name: value
        for name, value in vars(module).items()
        if name in ("training", "gradient_checkpointing")
        or ("dropout" in name and isinstance(value, float))
    }


def weight_tensor(
    candidates: Candidates | None, weights: Mapping[str, float] | None
) -> torch.Tensor | None:
    """Return the weights of the labels in the candidates' order, `[labels]`, or None."""
    if weights is None or candidates is None:
        return None
    return torch.tensor([weights[label] for label in candidates.labels])


def _label_loss(
    scores: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None
) -> torch.Tensor:
    """Return the loss of each row of label scores `[B, labels]`, `[B]`."""
    weights = None if weights is None else weights.to(scores.device)
    if labels.dtype == torch.bool:  # [B, labels]: a yes-or-no decision for each label
        return nn.functional.binary_cross_entropy_with_logits(
            scores, labels.float(), pos_weight=weights, reduction="none"
        ).sum(-1)
    return nn.functional.cross_entropy(scores, labels, weight=weights, reduction="none")


def _divergence(scores: torch.Tensor, shares: torch.Tensor, *, yes_no: bool) -> torch.Tensor:
    """Return the Kullback-Leibler divergence of each row of scores from probabilities, `[B]`."""
    if yes_no:
        # Each label is a distribution over yes and no.
        logs = nn.functional.logsigmoid(torch.stack([scores, -scores]))  # [2, B, labels]
        shares = torch.stack([shares, 1 - shares])  # [2, B, labels]
        return nn.functional.kl_div(logs, shares, reduction="none").sum((0, -1))
    logs = scores.log_softmax(dim=-1)  # [B, labels]
    divergence = nn.functional.kl_div(logs, shares, reduction="none").sum(-1)  # [B]
    return divergence * shares.shape[-1]  # the count of items has one for each label


def _normalized(
    total: torch.Tensor, own: torch.Tensor | int, whole: torch.Tensor | int | None
) -> torch.Tensor:
    """Divide a summed loss by the items of the whole step, or of this batch if that is unknown."""
    count = own if whole is None else whole
    return total / (count.to(total.device) if isinstance(count, torch.Tensor) else count)
