"""Inspect a soft prompt: norms, nearest tokens of the vocabulary, similarity to other prompts.

None of this says what a prompt means. Prompts that solve a task equally well can have any text as
their nearest tokens, even that of another task (Khashabi et al. 2022, 'Prompt Waywardness', arXiv
2112.08348), and soft prompts occupy regions of the embedding space without text (Bailey et al.
2023, 'Soft prompting might be a bug, not a feature'). The numbers do show whether training moved a
prompt at all, whether it exploded, and whether two prompts are copies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from transformers.convert_slow_tokenizer import bytes_to_unicode

from softhub.errors import IncompatiblePrompt, SoftHubError, UnsupportedAdapter
from softhub.model.base import BaseModel
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Task

CAVEAT = (
    "Nearest tokens explain little: prompts that solve a task equally well can be near any words "
    "(Khashabi et al. 2022, arXiv 2112.08348), and soft prompts are in regions without text "
    "(Bailey et al. 2023)."
)

_CHUNK = 4096  # rows of the vocabulary at a time, which limits the memory
_SAMPLED = 256  # tokens of the vocabulary whose nearest tokens are searched too
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_TINY = 1e-12
# A byte-level vocabulary writes each byte as a printable character (Radford et al. 2019, GPT-2).
_BYTE_OF = {character: value for value, character in bytes_to_unicode().items()}


@dataclass(frozen=True)
class Neighbor:
    """A token of the vocabulary near a vector.

    Attributes:
        id: Its token id.
        token: Its text.
        cosine: Cosine similarity to the vector.
        distance: Euclidean distance from the vector.
    """

    id: int
    token: str
    cosine: float
    distance: float


@dataclass(frozen=True)
class VirtualToken:
    """One vector of the prompt.

    Attributes:
        norm: Euclidean norm.
        norm_rank: Share of the vocabulary with a smaller norm.
        by_cosine: Nearest tokens by cosine similarity, nearest first.
        start: The token with whose embedding it was initialized, if that is known.
    """

    norm: float
    norm_rank: float
    by_cosine: tuple[Neighbor, ...]
    start: Neighbor | None = None


@dataclass(frozen=True)
class Vocabulary:
    """Statistics of the base's own token embeddings, for comparison.

    Attributes:
        size: Number of tokens that the tokenizer knows.
        norms: Quantiles (0.05, …) of the norms.
        nearest_cosine: Quantiles of the cosine similarity to the nearest other token, of a sample.
    """

    size: int
    norms: Mapping[float, float]
    nearest_cosine: Mapping[float, float]


@dataclass(frozen=True)
class Comparison:
    """Similarity to another prompt.

    Attributes:
        name: Name of the other prompt.
        similarity: Cosine similarity of the mean vectors, as `Hub.similar` ranks by; 1 of a prompt
            with itself.
        by_position: Cosine similarity of the virtual tokens at each position; None if the prompts
            differ in length.
        distance: Frobenius norm of the difference relative to the other's norm; None if the
            prompts differ in length.
    """

    name: str
    similarity: float
    by_position: tuple[float, ...] | None
    distance: float | None


@dataclass(frozen=True)
class Inspection:
    """Norms, nearest tokens and similarities of a prompt; see the module for their limits.

    Attributes:
        base: Name of the base model.
        tokens: The prompt's vectors, in order.
        vocabulary: The base's own tokens.
        similarity: Cosine similarities between the prompt's vectors, P rows of P.
        others: The prompts that it was compared with.
    """

    base: str
    tokens: tuple[VirtualToken, ...]
    vocabulary: Vocabulary
    similarity: tuple[tuple[float, ...], ...]
    others: tuple[Comparison, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """Return plain JSON values, including the caveat."""
        return {"caveat": CAVEAT, **asdict(self)}


def require_embeddings(prompt: SoftPrompt, what: str = "The adapter") -> None:
    """Check that a prompt can be inspected, which needs no base.

    Args:
        prompt: The prompt.
        what: What it is, for the message.

    Raises:
        UnsupportedAdapter: It is a prefix.
    """
    if prompt.prompt_type == "prefix":
        raise UnsupportedAdapter(
            f"{what} is a prefix, which has keys and values of every layer; expected a prompt of "
            "input embeddings, because an inspection compares them with the embeddings of tokens. "
            "Compare prefixes with softhub similar or softhub diff."
        )


def inspect_prompt(
    prompt: SoftPrompt,
    base: BaseModel,
    *,
    compare: Mapping[str, SoftPrompt] | None = None,
    neighbors: int = 5,
    force: bool = False,
) -> Inspection:
    """Compare a prompt with its base's vocabulary and with other prompts.

    Args:
        prompt: The prompt.
        base: The base that it was made for.
        compare: Other prompts of the same width, by name.
        neighbors: Number of nearest tokens of each vector.
        force: Continue if the prompt was made for another base of the same width.

    Raises:
        IncompatiblePrompt: The prompt was made for another base, or another prompt has another
            width.
        UnsupportedAdapter: The prompt, or another one, is a prefix.
    """
    require_embeddings(prompt)
    for name, other in (compare or {}).items():
        require_embeddings(other, repr(name))
    prompt.check_fits(base, force=force)
    ids = torch.tensor(_vocabulary(base))  # [V]
    drawn = torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))[:_SAMPLED]
    with torch.no_grad():
        sample = base.embed(ids[drawn]).float().cpu()  # [S, H]
        # One pass over the vocabulary searches for the prompt's vectors and the sampled tokens.
        queries = torch.cat([prompt.vectors, sample])  # [P + S, H]
        found = _search(base, ids, queries, ids[drawn], neighbors)
        tokens = _virtual_tokens(prompt, base, found)
    directions = _directions(prompt.vectors)  # [P, H]
    return Inspection(
        base=base.name,
        tokens=tokens,
        vocabulary=_describe(base, found, sample),
        similarity=tuple(tuple(row) for row in (directions @ directions.T).tolist()),
        others=tuple(_compared(prompt, name, other) for name, other in (compare or {}).items()),
    )


class _Found(NamedTuple):
    """The result of one pass over the vocabulary."""

    norms: torch.Tensor  # of all token embeddings, sorted, [V]
    nearest: torch.Tensor  # ids nearest to each query by cosine similarity, [Q, k]


def _vocabulary(base: BaseModel) -> list[int]:
    """Return the ids that the tokenizer knows; tables are often padded with unused rows."""
    rows = base.embedding.shape[0]
    return sorted({index for index in base.tokenizer.get_vocab().values() if index < rows})


def _search(
    base: BaseModel, ids: torch.Tensor, queries: torch.Tensor, own: torch.Tensor, count: int
) -> _Found:
    """Return the nearest tokens of each query; the last queries are the tokens `own`."""
    count = min(count, len(ids) - 1)
    own_of = torch.cat([torch.full((len(queries) - len(own),), -1), own])  # [Q], -1: none
    directions, norms = _directions(queries), []
    best = torch.empty(len(queries), 0)  # [Q, k]
    nearest = torch.empty(len(queries), 0, dtype=torch.long)  # [Q, k]
    for part in ids.split(_CHUNK):
        rows = base.embed(part).float().cpu()  # [chunk, H]
        norms.append(rows.norm(dim=1))
        scores = directions @ _directions(rows).T  # [Q, chunk]
        scores[part == own_of[:, None]] = -torch.inf  # no token is its own neighbor
        scores = torch.cat([best, scores], 1)
        best, places = scores.topk(min(count, scores.shape[1]), dim=1)
        nearest = torch.cat([nearest, part.expand(len(queries), -1)], 1).gather(1, places)
    return _Found(torch.cat(norms).sort().values, nearest)


def _neighbors(base: BaseModel, vector: torch.Tensor, ids: torch.Tensor) -> tuple[Neighbor, ...]:
    """Return tokens with their cosine similarity and distance, computed exactly."""
    rows = base.embed(ids).detach().float().cpu()
    cosines = _directions(rows) @ _directions(vector[None])[0]
    distances = (rows - vector).norm(dim=1)
    return tuple(
        Neighbor(index, _text_of(base, index), cosine, distance)
        for index, cosine, distance in zip(
            ids.tolist(), cosines.tolist(), distances.tolist(), strict=True
        )
    )


def _text_of(base: BaseModel, index: int) -> str:
    """Return a token as text with its leading space; bytes of a partial character as `<0xE2>`."""
    raw = str(base.tokenizer.convert_ids_to_tokens(index))
    text = str(base.tokenizer.convert_tokens_to_string([raw]))
    values = [_BYTE_OF.get(character) for character in raw]
    if "\ufffd" in text and None not in values:
        decoded = bytes(values).decode("utf-8", "surrogateescape")  # type: ignore[arg-type]
        text = re.sub("[\udc80-\udcff]", lambda byte: f"<0x{ord(byte[0]) - 0xDC00:02X}>", decoded)
    text = text or raw.replace("▁", " ")  # a space alone, or a token that is no text
    return f" {text}" if raw[0] in "Ġ▁" and not text.startswith(" ") else text


def _virtual_tokens(prompt: SoftPrompt, base: BaseModel, found: _Found) -> tuple[VirtualToken, ...]:
    starts = _starts(prompt, base)
    norms = prompt.vectors.norm(dim=1)  # [P]
    ranks = torch.searchsorted(found.norms, norms) / len(found.norms)  # [P]
    return tuple(
        VirtualToken(
            norm=float(norms[i]),
            norm_rank=float(ranks[i]),
            by_cosine=_neighbors(base, vector, found.nearest[i]),
            start=starts.get(i),
        )
        for i, vector in enumerate(prompt.vectors)
    )


def _starts(prompt: SoftPrompt, base: BaseModel) -> dict[int, Neighbor]:
    """Return the tokens with which vectors were initialized, by position, as far as known.

    The initialization `labels` begins with the tokens of the label words, and `task` ends with
    those of the task's description and label words. The other vectors come from training texts,
    which are not available here.
    """
    record, init = prompt.manifest.task, prompt.manifest.provenance.get("init")
    if init not in ("labels", "task") or record is None:
        return {}
    encoder = base.encoder
    task, size = Task.from_record(record), prompt.num_virtual_tokens
    try:
        if init == "task":
            known = encoder.describe(task, size)
        else:
            candidates = encoder.candidates_of(task)
            known = candidates.token_ids[:size] if candidates else ()
    except SoftHubError:  # a forced base, whose tokenizer does not suit the task
        return {}
    first = size - len(known) if init == "task" else 0
    return {
        index: _neighbors(base, prompt.vectors[index], torch.tensor([token]))[0]
        for index, token in enumerate(known, start=first)
    }


def _describe(base: BaseModel, found: _Found, sample: torch.Tensor) -> Vocabulary:
    """Return statistics of the vocabulary; the last searches are those of the sampled tokens."""
    nearest = base.embed(found.nearest[-len(sample) :, 0]).detach().float().cpu()  # [S, H]
    cosines = (_directions(sample) * _directions(nearest)).sum(dim=1)  # [S]
    return Vocabulary(
        size=len(found.norms),
        norms=_quantiles(found.norms),
        nearest_cosine=_quantiles(cosines),
    )


def _compared(prompt: SoftPrompt, name: str, other: SoftPrompt) -> Comparison:
    if other.hidden_size != prompt.hidden_size:
        raise IncompatiblePrompt(
            f"The prompt {name!r} has the width {other.hidden_size} and this one "
            f"{prompt.hidden_size}; only prompts of the same base can be compared."
        )
    a, b = prompt.vectors, other.vectors  # [P, H], [P', H]
    alike = a.shape == b.shape
    cosines = (_directions(a) * _directions(b)).sum(dim=1).tolist() if alike else None
    return Comparison(
        name=name,
        similarity=float(torch.cosine_similarity(a.mean(dim=0), b.mean(dim=0), dim=0)),
        by_position=None if cosines is None else tuple(cosines),
        distance=float((a - b).norm() / b.norm().clamp_min(_TINY)) if alike else None,
    )


def _directions(rows: torch.Tensor) -> torch.Tensor:
    """Return rows of norm 1."""
    return torch.nn.functional.normalize(rows, dim=1, eps=_TINY)


def _quantiles(values: torch.Tensor) -> dict[float, float]:
    ordered = values.sort().values
    places = [round(share * (len(ordered) - 1)) for share in _QUANTILES]
    return dict(zip(_QUANTILES, ordered[places].tolist(), strict=True))
