"""Continue rows in a running batch that they join and leave between tokens.

`ContinuousBatch` owns one left-padded cache of keys and values. New rows of similar length are
prefilled together, their prompts from cached keys and values, and concatenated to the running ones;
rows that have ended are removed. So a short answer never waits for a long one, and the tokens of
each row are those that it has alone. transformers' own continuous batching has no path for prompts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from softhub.errors import ConfigError
from softhub.inference.batching import widest
from softhub.inference.generation import continue_rows
from softhub.inference.requests import Request, prefixes_of
from softhub.inference.scheduling import PassCost, split_by_length
from softhub.inference.streaming import StreamedText, TextStream
from softhub.model.assembly import PADDED, pad_rows, position_arguments
from softhub.model.base import BaseModel
from softhub.model.kv_cache import Prefix, filled_layers, join_prefixes, select_rows


class ContinuousBatch:
    """Rows that are continued together, token by token. Only one thread may use it.

    Beams, and the rows of a base that cannot share prefixes, are continued as whole texts.

    Args:
        base: The base model.
        is_cancelled: Asked between the tokens of whole texts whether nobody waits for the row of a
            key anymore; other rows are removed with `cancel`.
    """

    def __init__(
        self, base: BaseModel, *, is_cancelled: Callable[[int], bool] = lambda _: False
    ) -> None:
        self._base = base
        self._is_cancelled = is_cancelled
        self._merges = _has_plain_cache(base)
        self._rows: list[TextStream] = []
        self._cache: DynamicCache | None = None
        self._mask = torch.zeros(0, 0, dtype=torch.bool, device=base.device)  # [B, L]
        self._pass_cost = PassCost()

    def __len__(self) -> int:
        """Return the number of rows that have not ended."""
        return len(self._rows)

    @torch.no_grad()
    def add(self, requests: Sequence[Request], keys: Sequence[int]) -> list[StreamedText]:
        """Prefill new rows, let them join, and return the beginning of their texts.

        Args:
            requests: Rows to continue.
            keys: A number for each, which its texts carry.

        Raises:
            ConfigError: An option is not supported; no row has joined.
        """
        pairs = zip(requests, keys, strict=True)
        streams = [TextStream(self._base, request, key) for request, key in pairs]
        together, whole = list[TextStream](), list[TextStream]()
        for each in streams:
            fits = each.options.get("num_beams", 1) == 1 and self._fits([*together, each])
            (together if fits else whole).append(each)
        found = self._continue_whole(whole)
        lengths = [len(each.request.text.ids) for each in together]
        try:
            for rows in split_by_length(lengths, len(lengths), self._pass_cost.tokens):
                found += self._begin([together[row] for row in rows])
        except Exception:
            self._keep([row for row in self._rows if row not in together])
            raise
        return found

    @torch.no_grad()
    def step(self) -> list[StreamedText]:
        """Generate one token for each row, and return the new texts; ended rows leave."""
        if not self._rows:
            return []
        last = torch.tensor([[row.tokens[-1]] for row in self._rows], device=self._base.device)
        self._mask = nn.functional.pad(self._mask, (0, 1), value=True)  # [B, L + 1]
        logits, self._cache = self._forward(last, self._mask, self._cache)
        return self._advance(list(self._rows), logits)

    def cancel(self, keys: Sequence[int]) -> None:
        """Remove rows whose texts nobody waits for."""
        self._keep([row for row in self._rows if row.key not in keys])

    # --- rows ---

    def _fits(self, rows: Sequence[TextStream]) -> bool:
        """Return whether new rows are exact in one padded batch with the running ones."""
        if not self._merges:
            return False
        requests = [row.request for row in (*self._rows, *rows)]
        prompted = any(request.prompt for request in requests)
        shortest = min(request.length for request in requests)
        answers = self._base.capabilities.texts(shortest, widest(requests), prompted=prompted)
        return answers.batching == PADDED and (answers.from_cache or not prompted)

    def _advance(self, rows: Sequence[TextStream], logits: torch.Tensor) -> list[StreamedText]:
        """Give each row its next token from logits `[B, V]`."""
        greedy = logits.argmax(dim=-1).tolist()
        found = [
            row.advance(best, of_row)
            for row, best, of_row in zip(rows, greedy, logits, strict=True)
        ]
        if any(row.finish_reason for row in rows):
            self._keep([row for row in self._rows if not row.finish_reason])
        return [each for each in found if each is not None]

    def _keep(self, rows: list[TextStream]) -> None:
        if len(rows) == len(self._rows):
            return
        kept = [index for index, row in enumerate(self._rows) if row in rows]
        if not rows or self._cache is None:
            self._rows, self._cache, self._mask = rows, None, self._mask[:0, :0]
            return
        index = torch.tensor(kept, device=self._mask.device)
        mask = self._mask[index]
        # Columns that are pads in every row that is left go too.
        pads = int(mask.any(dim=0).long().argmax())
        cache = select_rows(self._cache, index)
        for layer in filled_layers(cache):
            layer.keys, layer.values = layer.keys[:, :, pads:], layer.values[:, :, pads:]
        self._rows, self._cache, self._mask = rows, cache, mask[:, pads:]  # nothing failed

    def _begin(self, rows: Sequence[TextStream]) -> list[StreamedText]:
        """Prefill rows, let them join, and give each its first token."""
        prefixes = prefixes_of(self._base, [row.request.prompt for row in rows])
        started = time.perf_counter()
        logits, cache, mask = self._prefill(rows, prefixes)
        self._join(rows, cache, mask)
        found = self._advance(rows, logits)
        columns = max(len(row.request.text.ids) for row in rows)
        self._pass_cost.observe(len(rows) * columns, time.perf_counter() - started)
        return found

    def _continue_whole(self, rows: Sequence[TextStream]) -> list[StreamedText]:
        """Continue rows by `generate`, those with equal options in one batch."""
        groups: dict[str, list[TextStream]] = {}
        for row in rows:
            if row.request.logprobs is not None:
                raise ConfigError(
                    "logprobs is not available for this base model, or together with the other "
                    "options of this call; leave it out."
                )
            groups.setdefault(repr(row.request.options), []).append(row)
        found = []
        keys = {row.request: row.key for row in rows}
        for group in groups.values():
            tokens = continue_rows(
                self._base,
                [row.request for row in group],
                is_cancelled=lambda request: self._is_cancelled(keys[request]),
            )
            found += [row.finish(new) for row, new in zip(group, tokens, strict=True)]
        return found

    # --- tensors ---

    def _prefill(
        self, rows: Sequence[TextStream], prefixes: Sequence[Prefix | None]
    ) -> tuple[torch.Tensor, DynamicCache, torch.Tensor]:
        """Return next-token logits `[N, V]`, the cache and its mask `[N, P + T]`."""
        batch = pad_rows([row.request.text.ids for row in rows]).to(self._base.device)  # [N, T]
        cache, prefix_mask = join_prefixes(self._base, prefixes)
        mask = torch.cat([prefix_mask, batch.mask], dim=1)
        logits, filled = self._forward(batch.ids, mask, cache)
        return logits, filled, mask

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor, cache: DynamicCache | None
    ) -> tuple[torch.Tensor, DynamicCache]:
        """Run tokens `[B, T]` after a cache; return float32 logits `[B, V]` of the last."""
        arguments = position_arguments(self._base, mask, ids.shape[1])
        if "logits_to_keep" in self._base.forward_parameters:
            arguments["logits_to_keep"] = 1
        if cache is None:
            cache = DynamicCache(config=self._base.model.config)
        output = self._base.model(input_ids=ids, past_key_values=cache, use_cache=True, **arguments)
        return output.logits[:, -1].float(), output.past_key_values

    def _join(self, rows: Sequence[TextStream], cache: DynamicCache, mask: torch.Tensor) -> None:
        """Concatenate new rows `[N, …]` to the running ones, padded on the left to one length."""
        width = max(self._mask.shape[1], mask.shape[1])
        if self._cache is not None:
            running, new = filled_layers(self._cache), filled_layers(cache)
            for old, layer in zip(running, new, strict=True):
                layer.keys = torch.cat([_padded(old.keys, width), _padded(layer.keys, width)])
                layer.values = torch.cat([_padded(old.values, width), _padded(layer.values, width)])
            before = nn.functional.pad(self._mask, (width - self._mask.shape[1], 0))
            mask = torch.cat([before, nn.functional.pad(mask, (width - mask.shape[1], 0))])
        self._cache, self._mask = cache, mask
        self._rows = [*self._rows, *rows]


def _padded(part: torch.Tensor, width: int) -> torch.Tensor:
    """Pad keys or values `[B, heads, L, D]` on the left to a length."""
    return nn.functional.pad(part, (0, 0, width - part.shape[2], 0))


def _has_plain_cache(base: BaseModel) -> bool:
    """Return whether each layer caches every position, so that caches of rows can be joined."""
    if base.is_encoder_decoder or base.checkpoints_activations or base.is_sharded:
        return False
    cache = DynamicCache(config=base.model.config)
    return bool(cache.layers) and all(type(layer) is DynamicLayer for layer in cache.layers)


def stream_texts(
    base: BaseModel, requests: Sequence[Request], batch_size: int
) -> Iterator[StreamedText]:
    """Continue rows, at most `batch_size` at a time; yield their texts as they come.

    Raises:
        ConfigError: `batch_size` is not positive, or an option is not supported.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; expected 1 or more.")
    batch, start = ContinuousBatch(base), 0
    while start < len(requests) or len(batch):
        end = min(len(requests), start + batch_size - len(batch))
        if end > start:  # rows that have ended made room
            yield from batch.add(requests[start:end], range(start, end))
            start = end
        yield from batch.step()
