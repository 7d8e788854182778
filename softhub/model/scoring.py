"""What the base says after each row: next-token logits, and the scores of label words.

The same differentiable functions serve training, evaluation, prediction and serving. A text is
encoded once; label words of several tokens continue it from the cache. The vocabulary is projected
only at the positions that a label or target needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutput

from softhub.model.assembly import Rows, embed_rows, pad_rows, position_arguments
from softhub.model.base import BaseModel
from softhub.model.encoding import Candidates
from softhub.model.kv_cache import Prefix, join_prefixes, select_rows
from softhub.model.packing import Packing, Shared, run_packed
from softhub.model.projection import token_logprobs, trunk_of

Prompt = torch.Tensor | Prefix | Shared | None
"""A row's prompt: vectors `[P, H]`, their keys and values, or None for the bare base.

`Shared` is one for all rows, so that the base is fed with it once; see `softhub.model.packing`.
"""

_MOST_ROWS = 256
"""Continuations scored at once without gradient; bounds memory, not the result."""


@dataclass(frozen=True)
class Encoded:
    """A batch after the pass over prompts and texts.

    Attributes:
        logits: Next-token logits `[B, k, V]` at the last k positions; None for encoder-decoders.
        mask: `[B, L]`, bool, over prompt and text.
        prompts: The prompts that were fed.
        rows: The texts that were fed.
        cache: Keys and values of a decoder, if they were kept.
        encoder: Hidden states `[B, L, H]` of an encoder.
    """

    logits: torch.Tensor | None
    mask: torch.Tensor
    prompts: Sequence[Prompt]
    rows: Rows
    cache: DynamicCache | None = None
    encoder: torch.Tensor | None = None

    def select(self, indices: Sequence[int]) -> Encoded:
        """Some of the rows, e.g. those that share their label words."""
        index = torch.tensor(indices, device=self.mask.device)
        return Encoded(
            None if self.logits is None else self.logits[index],
            self.mask[index],
            [self.prompts[i] for i in indices],
            Rows(self.rows.ids[index], self.rows.mask[index]),
            None if self.cache is None else select_rows(self.cache, index),
            None if self.encoder is None else self.encoder[index],
        )


def encode_rows(
    base: BaseModel,
    prompts: Sequence[Prompt],
    rows: Rows,
    *,
    keep_cache: bool,
    keep_logits: int = 1,
) -> Encoded:
    """Run prompts and texts through the base.

    Args:
        base: The base model.
        prompts: One for each row; all `Prefix`-or-None, all vectors-or-None, or all the same
            `Shared`.
        rows: Texts `[B, T]`.
        keep_cache: Whether label words will continue the texts.
        keep_logits: At how many last positions a decoder's vocabulary is projected.

    Returns:
        The encoded batch.
    """
    keep_cache = keep_cache and not base.checkpoints_activations  # they leave the cache empty
    rows = rows.to(base.device)
    if isinstance(prompts[0], Shared):
        return _encode_packed(base, prompts, prompts[0], rows, keep_cache, keep_logits)
    inputs, mask, fed = _inputs(base, prompts, rows)
    if base.is_encoder_decoder:
        encoder = base.model.get_encoder()(**inputs, attention_mask=mask.long())
        return Encoded(None, mask, prompts, rows, encoder=encoder.last_hidden_state)
    logits, cache = _decode(base, inputs, mask, fed, keep_logits, use_cache=keep_cache)
    return Encoded(logits, mask, prompts, rows, cache)


def _encode_packed(
    base: BaseModel,
    prompts: Sequence[Prompt],
    shared: Shared,
    rows: Rows,
    keep_cache: bool,
    keep_logits: int,
) -> Encoded:
    """`encode_rows` of one prompt for all rows, in one packed row."""
    packing = Packing.of(shared.vectors.shape[0], rows)
    ends = packing.places[:, -keep_logits:]
    kept = DynamicCache() if keep_cache else None  # of no config: windows would cut the long row
    options = {"use_cache": keep_cache, "past_key_values": kept, "logits_to_keep": ends.flatten()}
    output = run_packed(base, base.model, packing, shared.vectors, rows, **options)
    cache = None if kept is None else packing.cache(base, kept)
    return Encoded(output.logits[0].unflatten(0, ends.shape), packing.mask, prompts, rows, cache)


def _inputs(
    base: BaseModel, prompts: Sequence[Prompt], rows: Rows
) -> tuple[dict[str, Any], torch.Tensor, int]:
    """What the base is fed, the mask `[B, L]` over all of it, and how many positions are fed."""
    if any(isinstance(prompt, Prefix) for prompt in prompts):
        prefixes = [prompt if isinstance(prompt, Prefix) else None for prompt in prompts]
        cache, prefix_mask = join_prefixes(base, prefixes)
        mask = torch.cat([prefix_mask, rows.mask], dim=1)
        return {"input_ids": rows.ids, "past_key_values": cache}, mask, rows.ids.shape[1]
    vectors = [prompt if isinstance(prompt, torch.Tensor) else None for prompt in prompts]
    embedded, mask = embed_rows(base, vectors, rows)
    return {"inputs_embeds": embedded}, mask, embedded.shape[1]


def _decode(
    base: BaseModel,
    inputs: dict[str, Any],
    mask: torch.Tensor,
    fed: int,
    keep: int,
    *,
    use_cache: bool,
) -> tuple[torch.Tensor, Any]:
    """Logits `[B, keep, V]` of the last positions, and the cache."""
    arguments = position_arguments(base, mask, fed)
    if "logits_to_keep" in base.forward_parameters:
        arguments["logits_to_keep"] = keep if base.is_spread else _last_positions(fed, keep)
    output = base.model(**inputs, **arguments, use_cache=use_cache)
    return output.logits[:, -keep:], output.past_key_values if use_cache else None


def _last_positions(fed: int, keep: int) -> torch.Tensor:
    """Indices of the last positions.

    A slice of the hidden states is not contiguous, and torch would then multiply the vocabulary
    row by row. The indices stay on the CPU, which suits a model on any one device.
    """
    return torch.arange(max(0, fed - keep), fed)


def label_scores(base: BaseModel, encoded: Encoded, candidates: Candidates) -> torch.Tensor:
    """Score labels as continuations of encoded rows.

    A word's score is the summed log-probability of its tokens; a label's is the logsumexp over its
    words.

    Args:
        base: The base model.
        encoded: Rows from `encode_rows`; with a cache if any word has several tokens.
        candidates: The label words.

    Returns:
        Log-probabilities `[B, number of labels]`, or where labels are decisions of their own the
        log-odds of yes against no; float32, with gradient if the inputs have one.
    """
    steps = _step_logprobs(base, encoded, candidates)
    words = torch.stack([step.sum(dim=-1) for step in steps], dim=1)
    owners = torch.tensor(candidates.owners, device=words.device)
    columns = [
        words[:, owners == owner].logsumexp(dim=-1) for owner in range(max(candidates.owners) + 1)
    ]
    scores = torch.stack(columns, dim=1)
    return scores[:, 0::2] - scores[:, 1::2] if candidates.yes_no else scores


def _step_logprobs(base: BaseModel, encoded: Encoded, candidates: Candidates) -> list[torch.Tensor]:
    """For each sequence the log-probabilities of its tokens, `[B, tokens]`."""
    rows = candidates.continuations
    size = encoded.mask.shape[0]
    first: torch.Tensor | None = None
    if encoded.logits is not None:
        first = _log_softmax(encoded.logits[:, -1:])
    later: list[torch.Tensor] = []
    if first is None or any(rows):
        chunk = len(rows) if torch.is_grad_enabled() else max(1, _MOST_ROWS // size)
        for start in range(0, len(rows), chunk):
            later += _continue(base, encoded, rows[start : start + chunk])
    result = []
    for sequence in candidates.sequences:
        along = later[candidates.row_of(sequence)] if later else None
        result.append(_gather(first, along, sequence))
    return result


def _gather(
    first: torch.Tensor | None, along: torch.Tensor | None, sequence: tuple[int, ...]
) -> torch.Tensor:
    """Pick a sequence's log-probabilities: from the text's end, then along its continuation."""
    parts = []
    if first is not None:
        parts.append(first[:, 0, sequence[0]].unsqueeze(1))
        sequence = sequence[1:]
    if sequence and along is not None:
        index = torch.tensor(sequence, device=along.device)
        steps = along[:, : len(sequence)]
        parts.append(steps.gather(2, index.expand(steps.shape[0], -1).unsqueeze(2)).squeeze(2))
    return torch.cat(parts, dim=1)


def _continue(
    base: BaseModel, encoded: Encoded, rows: Sequence[tuple[int, ...]]
) -> list[torch.Tensor]:
    """Log-probabilities along each continuation row, each `[B, steps, V]`.

    A decoder's step j stands behind the row's token j; an encoder-decoder's behind the start token
    (j = 0) or the row's token j - 1.
    """
    size = encoded.mask.shape[0]
    index = torch.arange(size, device=encoded.mask.device).repeat_interleave(len(rows))
    if encoded.encoder is not None:
        start = int(base.model.config.decoder_start_token_id)
        logits = _decode_from_encoder(base, encoded, index, [(start, *row) for row in rows])
    elif encoded.cache is not None:
        logits = _decode_from_cache(base, encoded, index, rows)
    else:
        return [_decode_again(base, encoded, row) for row in rows]
    return list(_log_softmax(logits).unflatten(0, (size, len(rows))).unbind(dim=1))


def _log_softmax(logits: torch.Tensor) -> torch.Tensor:
    return logits.float().log_softmax(dim=-1)


def _decode_again(base: BaseModel, encoded: Encoded, row: tuple[int, ...]) -> torch.Tensor:
    """Log-probabilities along one row without a cache (gradient checkpointing allows none)."""
    size = encoded.mask.shape[0]
    joined = _join_rows(encoded.rows, pad_rows([row] * size, side="right").to(base.device))
    again = encode_rows(base, encoded.prompts, joined, keep_cache=False, keep_logits=len(row))
    assert again.logits is not None
    return _log_softmax(again.logits)


def _decode_from_cache(
    base: BaseModel, encoded: Encoded, index: torch.Tensor, rows: Sequence[tuple[int, ...]]
) -> torch.Tensor:
    assert encoded.cache is not None
    size = encoded.mask.shape[0]
    fed = pad_rows(rows, side="right").to(base.device)
    ids, fed_mask = fed.ids.repeat(size, 1), fed.mask.repeat(size, 1)
    mask = torch.cat([encoded.mask[index], fed_mask], dim=1)
    cache = select_rows(encoded.cache, index)
    inputs = {"input_ids": ids, "past_key_values": cache}
    return _decode(base, inputs, mask, ids.shape[1], ids.shape[1], use_cache=True)[0]


def _decode_from_encoder(
    base: BaseModel, encoded: Encoded, index: torch.Tensor, rows: Sequence[tuple[int, ...]]
) -> torch.Tensor:
    """Decoder logits `[B * rows, steps, V]`; right padding is exact, the decoder is causal."""
    assert encoded.encoder is not None
    size = encoded.mask.shape[0]
    fed = pad_rows(rows, side="right").to(base.device)
    output = base.model(
        encoder_outputs=BaseModelOutput(last_hidden_state=encoded.encoder[index]),
        attention_mask=encoded.mask[index].long(),
        decoder_input_ids=fed.ids.repeat(size, 1),
        use_cache=False,
    )
    logits: torch.Tensor = output.logits
    return logits


def target_logprobs(
    base: BaseModel, prompts: Sequence[Prompt], texts: Rows, targets: Rows
) -> torch.Tensor:
    """Log-probabilities of reference tokens behind each row.

    Args:
        base: The base model.
        prompts: One for each row.
        texts: Texts `[B, T]`, padded on the left.
        targets: Reference tokens `[B, N]`, padded on the right.

    Returns:
        `[B, N]`, float32; 0 at pads.
    """
    targets = targets.to(base.device)
    in_pieces = _projects_in_pieces(base)
    if base.is_encoder_decoder:
        behind = _teacher_forced(base, prompts, texts, targets, in_pieces)
    else:
        joined = _join_rows(texts.to(base.device), targets)
        steps = targets.ids.shape[1]
        behind = _along_targets(base, prompts, joined, steps, in_pieces)
        targets = _flush_right(targets)
    if in_pieces:
        head = base.model.get_output_embeddings()
        found = token_logprobs(head, behind[targets.mask], targets.ids[targets.mask])
        return found.new_zeros(targets.ids.shape).masked_scatter(targets.mask, found)
    logits = behind.float()
    picked = logits.gather(2, targets.ids.unsqueeze(2)).squeeze(2) - logits.logsumexp(dim=-1)
    return picked.masked_fill(~targets.mask, 0.0)


def _projects_in_pieces(base: BaseModel) -> bool:
    """Whether the head can be applied apart from the model: plain, frozen, whole and at hand."""
    head = base.model.get_output_embeddings()
    if type(head) is not torch.nn.Linear or head.weight.requires_grad:  # a quantised one is neither
        return False
    elsewhere = base.is_spread or base.is_sharded or hasattr(head.weight, "ds_id")  # DeepSpeed's
    return not elsewhere and base.has_plain_head


def _along_targets(
    base: BaseModel, prompts: Sequence[Prompt], joined: Rows, steps: int, in_pieces: bool
) -> torch.Tensor:
    """What precedes each target token of a decoder: hidden states, else logits, `[B, N, ...]`."""
    if not in_pieces:
        encoded = encode_rows(base, prompts, joined, keep_cache=False, keep_logits=steps + 1)
        assert encoded.logits is not None
        return encoded.logits[:, :-1]
    trunk, shared = trunk_of(base.model), prompts[0]
    if isinstance(shared, Shared):
        packing = Packing.of(shared.vectors.shape[0], joined)
        output = run_packed(base, trunk, packing, shared.vectors, joined)
        return cast(torch.Tensor, output.last_hidden_state[0][packing.places[:, -steps - 1 : -1]])
    inputs, mask, fed = _inputs(base, prompts, joined)
    output = trunk(**inputs, **position_arguments(base, mask, fed), use_cache=False)
    return cast(torch.Tensor, output.last_hidden_state[:, -steps - 1 : -1])


def _teacher_forced(
    base: BaseModel, prompts: Sequence[Prompt], texts: Rows, targets: Rows, in_pieces: bool
) -> torch.Tensor:
    """What precedes each target token of an encoder-decoder; as `_along_targets`."""
    encoded = encode_rows(base, prompts, texts, keep_cache=False)
    start = int(base.model.config.decoder_start_token_id)
    shifted = torch.nn.functional.pad(targets.ids[:, :-1], (1, 0), value=start)
    if in_pieces:
        output = trunk_of(base.model)(
            input_ids=shifted,
            encoder_hidden_states=encoded.encoder,
            encoder_attention_mask=encoded.mask.long(),
            use_cache=False,
        )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden
    output = base.model(
        encoder_outputs=BaseModelOutput(last_hidden_state=encoded.encoder),
        attention_mask=encoded.mask.long(),
        decoder_input_ids=shifted,
        use_cache=False,
    )
    logits: torch.Tensor = output.logits
    return logits


def _join_rows(texts: Rows, targets: Rows) -> Rows:
    """Texts and their targets as one left-padded batch."""
    ids = torch.cat([texts.ids, targets.ids], dim=1)
    mask = torch.cat([texts.mask, targets.mask], dim=1)
    return _flush_right(Rows(ids, mask))


def _flush_right(rows: Rows) -> Rows:
    """Move each row's real tokens to its end, keeping their order."""
    order = rows.mask.long().argsort(dim=1, stable=True)
    return Rows(rows.ids.gather(1, order), rows.mask.gather(1, order))
