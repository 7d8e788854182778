"""Score what may follow each row: next-token logits, label words, and reference texts.

The same differentiable functions serve training, evaluation, prediction and serving. A text is
encoded once, and label words of several tokens continue it from the cache. The vocabulary is
projected only at the positions that a label or target needs.

Shapes: B rows, T text tokens, P virtual tokens, L = P + T (the longest of the batch), H hidden
width, V vocabulary, N target tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import DynamicCache
from transformers.modeling_outputs import MoeModelOutputWithPast

from softhub.model.assembly import (
    PADDED,
    PaddedBatch,
    embed_rows,
    flush,
    join_rows,
    pad_rows,
    position_arguments,
)
from softhub.model.base import BaseModel
from softhub.model.device_settings import settings_of
from softhub.model.encoding import Candidates
from softhub.model.grouping import PreparedPrompt, row_lengths, row_width, run_in_groups
from softhub.model.kv_cache import Prefix, join_prefixes, select_rows
from softhub.model.packing import Packing, SharedPrompt, run_packed
from softhub.model.projection import token_logprobs, trunk_of


@dataclass(frozen=True)
class EncodedBatch:
    """A batch after the pass over prompts and texts.

    Attributes:
        logits: Next-token logits `[B, k, V]` at the last k positions; None for encoder-decoders.
        mask: `[B, L]`, bool, over prompt and text.
        prompts: The prompt of each row.
        rows: The texts `[B, T]`.
        cache: Keys and values of a decoder, if requested.
        encoder: Hidden states `[B, L, H]` of an encoder.
    """

    logits: torch.Tensor | None
    mask: torch.Tensor
    prompts: Sequence[PreparedPrompt]
    rows: PaddedBatch
    cache: DynamicCache | None = None
    encoder: torch.Tensor | None = None

    def select(self, indices: Sequence[int]) -> EncodedBatch:
        """Return some of the rows, e.g. those with the same label words."""
        index = torch.tensor(indices, device=self.mask.device)
        return EncodedBatch(
            None if self.logits is None else self.logits[index],
            self.mask[index],
            [self.prompts[i] for i in indices],
            PaddedBatch(self.rows.ids[index], self.rows.mask[index]),
            None if self.cache is None else select_rows(self.cache, index),
            None if self.encoder is None else self.encoder[index],
        )


def encode_rows(
    base: BaseModel,
    prompts: Sequence[PreparedPrompt],
    rows: PaddedBatch,
    *,
    keep_cache: bool,
    keep_logits: int = 1,
    batching: str | None = None,
) -> EncodedBatch:
    """Run prompts and texts through the base.

    Args:
        base: The base model.
        prompts: One for each row: vectors or None, or `Prefix` or None, or one `SharedPrompt`.
        rows: Texts `[B, T]`.
        keep_cache: Whether label words will continue the texts.
        keep_logits: Number of last positions at which a decoder's vocabulary is projected.
        batching: Which rows share a batch; None asks the base which are exact.

    Raises:
        BaseModelError: The base computes such rows exactly in no way.
    """
    keep_cache = keep_cache and not base.checkpoints_activations  # which leaves the cache empty
    rows = rows.to(base.device)
    shared = prompts[0]
    if isinstance(shared, SharedPrompt):
        return _encode_packed(base, prompts, shared, rows, keep_cache, keep_logits)
    if batching is None:
        width = row_width(prompts, rows)
        batching = base.capabilities.batching(width)
        keep_cache = keep_cache and base.capabilities.rows(width).continues
    if batching == PADDED:
        return _encode_together(base, prompts, rows, keep_cache, keep_logits)

    return _encode_in_groups(base, prompts, rows, keep_logits, batching)


def _encode_in_groups(
    base: BaseModel,
    prompts: Sequence[PreparedPrompt],
    rows: PaddedBatch,
    keep_logits: int,
    batching: str,
) -> EncodedBatch:
    """Run rows that may not be padded together; see `encode_rows`."""

    def run(some: Sequence[PreparedPrompt], of_them: PaddedBatch) -> torch.Tensor:
        part = _encode_together(base, some, of_them, False, keep_logits)
        return cast(torch.Tensor, part.logits if part.encoder is None else part.encoder)

    found, lengths = run_in_groups(base, prompts, rows, batching, run), row_lengths(prompts, rows)
    columns = torch.arange(max(lengths), device=rows.mask.device)
    counts = torch.tensor(lengths, device=rows.mask.device)[:, None]
    if base.is_encoder_decoder:
        return EncodedBatch(None, columns < counts, prompts, rows, encoder=found)
    return EncodedBatch(found, columns.flip(0) < counts, prompts, rows)


def _encode_together(
    base: BaseModel,
    prompts: Sequence[PreparedPrompt],
    rows: PaddedBatch,
    keep_cache: bool,
    keep_logits: int,
) -> EncodedBatch:
    """Implement `encode_rows` in one padded batch, exact or not."""
    inputs, mask, width = _inputs(base, prompts, rows)
    if base.is_encoder_decoder:
        encoder = base.model.get_encoder()(**inputs, attention_mask=mask.long())
        return EncodedBatch(None, mask, prompts, rows, encoder=encoder.last_hidden_state)
    logits, cache = _decode(base, inputs, mask, width, keep_logits, use_cache=keep_cache)
    return EncodedBatch(logits, mask, prompts, rows, cache)


def _encode_packed(
    base: BaseModel,
    prompts: Sequence[PreparedPrompt],
    shared: SharedPrompt,
    rows: PaddedBatch,
    keep_cache: bool,
    keep_logits: int,
) -> EncodedBatch:
    """Implement `encode_rows` for one prompt with all rows, in one packed row."""
    packing = Packing.of(shared.vectors.shape[0], rows)
    ends = packing.places[:, -keep_logits:]  # [B, k], indices in the packed row
    # A cache without a config: layers with windows would truncate the long packed row.
    packed = DynamicCache() if keep_cache else None
    options = {"use_cache": keep_cache, "past_key_values": packed, "logits_to_keep": ends.flatten()}
    output = run_packed(base, base.model, packing, shared.vectors, rows, **options)
    logits = output.logits[0].unflatten(0, ends.shape)  # [B * k, V] to [B, k, V]
    cache = None if packed is None else packing.cache(base, packed)
    return EncodedBatch(logits, packing.mask, prompts, rows, cache)


def _inputs(
    base: BaseModel, prompts: Sequence[PreparedPrompt], rows: PaddedBatch
) -> tuple[dict[str, Any], torch.Tensor, int]:
    """Return the model's inputs, the mask `[B, L]`, and how many positions the inputs have."""
    if any(isinstance(prompt, Prefix) for prompt in prompts):
        # The prompts are in the cache already: only the texts run through the model.
        prefixes = [prompt if isinstance(prompt, Prefix) else None for prompt in prompts]
        cache, prefix_mask = join_prefixes(base, prefixes)
        mask = torch.cat([prefix_mask, rows.mask], dim=1)  # [B, P + T]
        return {"input_ids": rows.ids, "past_key_values": cache}, mask, rows.ids.shape[1]
    vectors = [prompt if isinstance(prompt, torch.Tensor) else None for prompt in prompts]
    if base.capabilities.embedding_scale is None:
        base.capabilities.require_prompts(any(vector is not None for vector in vectors))
        if base.is_encoder_decoder:
            rows = flush(rows, "left")
        return {"input_ids": rows.ids}, rows.mask, rows.ids.shape[1]
    embedded, mask = embed_rows(base, vectors, rows)  # [B, L, H] and [B, L]
    return {"inputs_embeds": embedded}, mask, embedded.shape[1]


def _decode(
    base: BaseModel,
    inputs: dict[str, Any],
    mask: torch.Tensor,
    width: int,
    keep: int,
    *,
    use_cache: bool,
) -> tuple[torch.Tensor, Any]:
    """Return logits `[B, keep, V]` of the last of `width` positions, and the cache."""
    arguments = position_arguments(base, mask, width)
    if "logits_to_keep" in base.forward_parameters:
        # A slice of the hidden states is not contiguous, and torch would then multiply the
        # vocabulary row by row: pass indices. On the CPU they suit a model on any one device.
        indices = torch.arange(max(0, width - keep), width)
        arguments["logits_to_keep"] = keep if base.is_spread else indices
    output = base.model(**inputs, **arguments, use_cache=use_cache)
    return output.logits[:, -keep:], output.past_key_values if use_cache else None


# --- label words ----------------------------------------------------------------------------------


def label_scores(base: BaseModel, encoded: EncodedBatch, candidates: Candidates) -> torch.Tensor:
    """Score labels as continuations of encoded rows.

    A word's score is the summed log-probability of its tokens; a label's is the logsumexp over its
    words.

    Args:
        base: The base model.
        encoded: Rows from `encode_rows`, with a cache if any word has several tokens.
        candidates: The label words.

    Returns:
        Log-probabilities `[B, labels]`, or for multi-label tasks the log-odds of yes against no;
        float32, differentiable.
    """
    steps = _step_logprobs(base, encoded, candidates)
    # Sum over a word's tokens: [B, words].
    words = torch.stack([step.sum(dim=-1) for step in steps], dim=1)
    # Add up the probabilities of a label's words: [B, labels], or twice as many for yes and no.
    owners = torch.tensor(candidates.owners, device=words.device)
    count = max(candidates.owners) + 1
    labels = [words[:, owners == owner].logsumexp(dim=-1) for owner in range(count)]
    scores = torch.stack(labels, dim=1)
    return scores[:, 0::2] - scores[:, 1::2] if candidates.yes_no else scores


def _step_logprobs(
    base: BaseModel, encoded: EncodedBatch, candidates: Candidates
) -> list[torch.Tensor]:
    """Return for each word the log-probabilities of its tokens, `[B, tokens]`."""
    # A decoder's first token follows from the logits at the text's end: [B, V].
    first = None if encoded.logits is None else _log_softmax(encoded.logits[:, -1])
    # The other tokens need a pass along each continuation: [B, steps, V] each.
    rows, later = candidates.continuations, list[torch.Tensor]()
    if first is not None and any(rows) and not _continues(base, encoded, max(map(len, rows))):
        return _steps_again(base, encoded, candidates, first)
    if first is None or any(rows):
        at_once = settings_of(encoded.mask.device).continuations_at_once
        most = max(1, at_once // encoded.mask.shape[0])
        chunk = len(rows) if torch.is_grad_enabled() else most
        forced = base.forced_ids  # what follows it is scored, but not itself
        for start in range(0, len(rows), chunk):
            some = [(*forced, *row) for row in rows[start : start + chunk]]
            later += [each[:, len(forced) :] for each in along_rows(base, encoded, some)]
    return [
        _gather(first, later[candidates.row_of(word)] if later else None, word)
        for word in candidates.sequences
    ]


def _steps_again(
    base: BaseModel, encoded: EncodedBatch, candidates: Candidates, first: torch.Tensor
) -> list[torch.Tensor]:
    """Implement `_step_logprobs` without a cache: each word's row runs again, as it would alone."""
    found: dict[tuple[int, ...], torch.Tensor] = {(): first.unsqueeze(1)}
    for word in candidates.sequences:
        before = word[:-1]
        if before not in found:
            padded = pad_rows([before] * encoded.mask.shape[0], side="right").to(base.device)
            joined, steps = join_rows(encoded.rows, padded), len(word)
            again = encode_rows(base, encoded.prompts, joined, keep_cache=False, keep_logits=steps)
            found[before] = _log_softmax(cast(torch.Tensor, again.logits))  # [B, steps, V]
    return [_gather(None, found[word[:-1]], word) for word in candidates.sequences]


def _gather(
    first: torch.Tensor | None, along: torch.Tensor | None, word: tuple[int, ...]
) -> torch.Tensor:
    """Pick a word's log-probabilities: at the text's end, then along its continuation."""
    parts = []
    if first is not None:
        parts.append(first[:, word[0]].unsqueeze(1))  # [B, 1]
        word = word[1:]
    if word and along is not None:
        index = torch.tensor(word, device=along.device).expand(along.shape[0], -1)  # [B, steps]
        parts.append(along[:, : len(word)].gather(2, index.unsqueeze(2)).squeeze(2))
    return torch.cat(parts, dim=1)


def along_rows(
    base: BaseModel, encoded: EncodedBatch, rows: Sequence[tuple[int, ...]]
) -> list[torch.Tensor]:
    """Return log-probabilities along each continuation, `[B, steps, V]` each, exact or not.

    From a cache, step j predicts what follows the continuation's token j; from an encoder's states
    what follows the start token (j = 0) or the token j - 1.
    """
    size = encoded.mask.shape[0]
    # Every text meets every continuation: text i is repeated at rows i * R … (i + 1) * R - 1.
    index = torch.arange(size, device=encoded.mask.device).repeat_interleave(len(rows))
    if encoded.encoder is not None:
        padded = pad_rows([(base.start_id, *row) for row in rows], side="right").to(base.device)
        ids = padded.ids.repeat(size, 1)  # [B * R, steps]; causal: pads change nothing
        logits = _decoder_logits(base, encoded.encoder[index], encoded.mask[index], ids)
    else:
        padded = pad_rows(rows, side="right").to(base.device)
        ids, continued = padded.ids.repeat(size, 1), padded.mask.repeat(size, 1)  # [B * R, steps]
        mask = torch.cat([encoded.mask[index], continued], dim=1)  # [B * R, L + steps]
        cache = select_rows(cast(DynamicCache, encoded.cache), index)
        inputs = {"input_ids": ids, "past_key_values": cache}
        logits, _ = _decode(base, inputs, mask, ids.shape[1], ids.shape[1], use_cache=True)
    return list(_log_softmax(logits).unflatten(0, (size, len(rows))).unbind(dim=1))


def _continues(base: BaseModel, encoded: EncodedBatch, steps: int) -> bool:
    """Return whether a batch has a cache from which `steps` more tokens are exact."""
    width = encoded.mask.shape[1] + steps
    return encoded.cache is not None and base.capabilities.rows(width).continues


def encoder_output(states: Any) -> MoeModelOutputWithPast:
    """Wrap an encoder's states `[B, L, H]` as decoders expect them, which may route to experts."""
    return MoeModelOutputWithPast(last_hidden_state=states)


def _decoder_logits(
    base: BaseModel, encoder: torch.Tensor | None, mask: torch.Tensor, ids: torch.Tensor
) -> torch.Tensor:
    """Return logits `[N, steps, V]` of decoder inputs `[N, steps]` over encoder states."""
    output = base.model(
        encoder_outputs=encoder_output(encoder),
        attention_mask=mask.long(),
        decoder_input_ids=ids,
        use_cache=False,
    )
    return cast(torch.Tensor, output.logits)


def _log_softmax(logits: torch.Tensor) -> torch.Tensor:
    return logits.float().log_softmax(dim=-1)


# --- reference texts ------------------------------------------------------------------------------


def target_logprobs(
    base: BaseModel, prompts: Sequence[PreparedPrompt], texts: PaddedBatch, targets: PaddedBatch
) -> torch.Tensor:
    """Return log-probabilities of reference tokens as continuations of each row.

    Args:
        base: The base model.
        prompts: One for each row.
        texts: Texts `[B, T]`, padded on the left.
        targets: Reference tokens `[B, N]`, padded on the right.

    Returns:
        `[B, N]`, float32, 0 at pads. A decoder's targets are at the end of their rows.
    """
    targets, in_pieces = targets.to(base.device), _projects_in_pieces(base)
    before = _before_targets(base, prompts, texts, targets, in_pieces)
    targets = targets if base.is_encoder_decoder else flush(targets)
    if in_pieces:
        # Project the vocabulary at real tokens only, a piece at a time: [number of real tokens].
        head = base.model.get_output_embeddings()
        found = token_logprobs(head, before[targets.mask], targets.ids[targets.mask])
        return found.new_zeros(targets.ids.shape).masked_scatter(targets.mask, found)
    logits = before.float()  # [B, N, V]
    picked = logits.gather(2, targets.ids.unsqueeze(2)).squeeze(2) - logits.logsumexp(dim=-1)
    return picked.masked_fill(~targets.mask, 0.0)


def target_logits(
    base: BaseModel, prompts: Sequence[PreparedPrompt], texts: PaddedBatch, targets: PaddedBatch
) -> torch.Tensor:
    """Return the logits `[B, N, V]` that predict reference tokens; see `target_logprobs`."""
    return _before_targets(base, prompts, texts, targets.to(base.device), False)


def _before_targets(
    base: BaseModel,
    prompts: Sequence[PreparedPrompt],
    texts: PaddedBatch,
    targets: PaddedBatch,
    in_pieces: bool,
) -> torch.Tensor:
    """Return what predicts each token: hidden states `[B, N, H]` before it, or logits."""
    if base.is_encoder_decoder:
        return _teacher_forced(base, prompts, texts, targets, in_pieces)
    joined = join_rows(texts.to(base.device), targets)
    return _along_targets(base, prompts, joined, targets.ids.shape[1], in_pieces)


def _projects_in_pieces(base: BaseModel) -> bool:
    """Return whether the head can be applied apart from the model: plain, frozen and local."""
    head = base.model.get_output_embeddings()
    if type(head) is not torch.nn.Linear or head.weight.requires_grad:
        return False  # also a quantized head, whose class is another
    elsewhere = base.is_spread or base.is_sharded or hasattr(head.weight, "ds_id")  # DeepSpeed's
    return not elsewhere and base.has_plain_head


def _along_targets(
    base: BaseModel,
    prompts: Sequence[PreparedPrompt],
    joined: PaddedBatch,
    steps: int,
    in_pieces: bool,
) -> torch.Tensor:
    """Return a decoder's hidden states or logits before each target token, `[B, N, H or V]`."""
    if not in_pieces:
        encoded = encode_rows(base, prompts, joined, keep_cache=False, keep_logits=steps + 1)
        assert encoded.logits is not None
        return encoded.logits[:, :-1]
    trunk, shared = trunk_of(base.model), prompts[0]
    if isinstance(shared, SharedPrompt):
        packing = Packing.of(shared.vectors.shape[0], joined)
        output = run_packed(base, trunk, packing, shared.vectors, joined)
        before = packing.places[:, -steps - 1 : -1]  # [B, N], indices in the packed row
        return cast(torch.Tensor, output.last_hidden_state[0][before])

    def run(some: Sequence[PreparedPrompt], of_them: PaddedBatch) -> torch.Tensor:
        inputs, mask, width = _inputs(base, some, of_them)
        output = trunk(**inputs, **position_arguments(base, mask, width), use_cache=False)
        return cast(torch.Tensor, output.last_hidden_state[:, -steps - 1 : -1])

    batching = base.capabilities.batching(row_width(prompts, joined))
    return run_in_groups(base, prompts, joined, batching, run)


def _teacher_forced(
    base: BaseModel,
    prompts: Sequence[PreparedPrompt],
    texts: PaddedBatch,
    targets: PaddedBatch,
    in_pieces: bool,
) -> torch.Tensor:
    """Implement `_along_targets` for an encoder-decoder."""
    encoded = encode_rows(base, prompts, texts, keep_cache=False)
    # The decoder reads the start token, what is forced, and all target tokens but the last.
    forced = base.forced_ids
    start = targets.ids.new_tensor([[base.start_id, *forced]]).expand(targets.ids.shape[0], -1)
    shifted = torch.cat([start, targets.ids[:, :-1]], dim=1)  # [B, forced + N]
    if not in_pieces:
        logits = _decoder_logits(base, encoded.encoder, encoded.mask, shifted)
        return logits[:, len(forced) :]
    output = trunk_of(base.model)(
        input_ids=shifted,
        encoder_hidden_states=encoded.encoder,
        encoder_attention_mask=encoded.mask.long(),
        use_cache=False,
    )
    return cast(torch.Tensor, output.last_hidden_state[:, len(forced) :])
