"""What a soft prompt looks like from outside: its neighbours in the vocabulary, norms, likeness.

Nothing here says what a prompt means. Prompts that solve a task equally well can have any text as
their nearest tokens, even that of another task (Khashabi et al. 2022, 'Prompt Waywardness', arXiv
2112.08348), and soft prompts lie in regions of the embedding space where no text lies (Bailey et
al. 2023, 'Soft prompting might be a bug, not a feature'). What the numbers are good for: seeing
whether training moved a prompt at all, whether it exploded, whether two prompts are copies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from softhub.adapter.layout import WEIGHTS
from softhub.errors import IncompatiblePrompt, SoftHubError
from softhub.model.base import BaseModel
from softhub.model.encoding import Encoder
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Task

CAVEAT = (
    "Neighbours explain little: prompts that do a task equally well may lie next to any words "
    "(Khashabi et al. 2022, arXiv 2112.08348), and soft prompts lie where no text lies "
    "(Bailey et al. 2023)."
)

_CHUNK = 4096
"""Rows of the vocabulary at a time, which bounds the memory."""

_SAMPLED = 256
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_TINY = 1e-12


@dataclass(frozen=True)
class Neighbour:
    """A token of the vocabulary beside a vector.

    Attributes:
        id: Its token id.
        token: Its text.
        cosine: Cosine of the two.
        distance: Euclidean distance.
    """

    id: int
    token: str
    cosine: float
    distance: float


@dataclass(frozen=True)
class VirtualToken:
    """One vector of the prompt.

    Attributes:
        norm: Its length.
        norm_rank: Share of the vocabulary that is shorter.
        by_cosine: Nearest tokens by angle, nearest first.
        by_distance: Nearest tokens by Euclidean distance, nearest first.
        start: The token that it started from, if that is known, as it stands to it now.
    """

    norm: float
    norm_rank: float
    by_cosine: tuple[Neighbour, ...]
    by_distance: tuple[Neighbour, ...]
    start: Neighbour | None = None


@dataclass(frozen=True)
class Vocabulary:
    """The base's own tokens, to hold the prompt against.

    Attributes:
        size: Tokens that the tokenizer knows.
        norms: Quantile (0.05, …) to length.
        nearest_cosine: Quantile to the cosine of a token with its nearest other token (a sample).
        nearest_distance: Quantile to the distance of a token from its nearest other (a sample).
    """

    size: int
    norms: Mapping[float, float]
    nearest_cosine: Mapping[float, float]
    nearest_distance: Mapping[float, float]


@dataclass(frozen=True)
class Likeness:
    """How like another prompt is.

    Attributes:
        name: What the other is called.
        similarity: Mean cosine over all pairs of virtual tokens (Vu et al. 2022, SPoT, arXiv
            2110.07904); the order does not matter.
        by_position: Cosine of each virtual token with the other's of the same position; None if
            they differ in number.
        distance: Length of the difference as a part of the other's length (Frobenius norms); None
            if they differ in number.
        is_parent: Whether this prompt's training went on from the other: then this is its drift.
    """

    name: str
    similarity: float
    by_position: tuple[float, ...] | None
    distance: float | None
    is_parent: bool


@dataclass(frozen=True)
class Inspection:
    """A prompt seen from outside; see the module's docstring for what that is worth.

    Attributes:
        base: Name of the base model.
        tokens: The prompt's vectors, in order.
        vocabulary: The base's own tokens.
        similarity: Cosines among the prompt's vectors, P rows of P.
        others: The prompts that it was compared with.
    """

    base: str
    tokens: tuple[VirtualToken, ...]
    vocabulary: Vocabulary
    similarity: tuple[tuple[float, ...], ...]
    others: tuple[Likeness, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """Return plain JSON values, the caveat with them."""
        return {"caveat": CAVEAT, **asdict(self)}


def inspect_prompt(
    prompt: SoftPrompt,
    base: BaseModel,
    *,
    compare: Mapping[str, SoftPrompt] | None = None,
    neighbours: int = 5,
    force: bool = False,
) -> Inspection:
    """Hold a prompt against its base's vocabulary and against other prompts.

    The vocabulary is embedded as the model does it, a few thousand tokens at a time.

    Args:
        prompt: The prompt.
        base: The base that it was made for.
        compare: Other prompts of the same width, by name.
        neighbours: Nearest tokens to give for each vector.
        force: Do so even though the prompt was made for another base of the same width.

    Raises:
        IncompatiblePrompt: The prompt was made for another base, or another prompt has another
            width.
    """
    prompt.check_fits(base, force=force)
    ids = torch.tensor(_vocabulary(base))
    drawn = torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))[:_SAMPLED]
    with torch.no_grad():
        sample = base.embed(ids[drawn]).float().cpu()
        found = _search(base, ids, torch.cat([prompt.vectors, sample]), ids[drawn], neighbours)
        starts = _starts(prompt, base)
    size, norms = prompt.num_virtual_tokens, prompt.vectors.norm(dim=1)
    ranks = torch.searchsorted(found.norms, norms) / len(ids)
    tokens = tuple(
        VirtualToken(
            norm=float(norms[i]),
            norm_rank=float(ranks[i]),
            by_cosine=_neighbours(base, prompt.vectors[i], found.by_cosine[i]),
            by_distance=_neighbours(base, prompt.vectors[i], found.by_distance[i]),
            start=starts.get(i),
        )
        for i in range(size)
    )
    directions = _directions(prompt.vectors)
    return Inspection(
        base=base.name,
        tokens=tokens,
        vocabulary=_describe(base, ids, found, sample, size),
        similarity=tuple(tuple(row) for row in (directions @ directions.T).tolist()),
        others=tuple(_likeness(prompt, name, other) for name, other in (compare or {}).items()),
    )


@dataclass(frozen=True, eq=False)
class _Found:
    """Outcome of one pass over the vocabulary.

    Attributes:
        norms: Lengths of all tokens' embeddings, sorted, `[V]`.
        by_cosine: For each query the ids nearest by angle, `[Q, k]`.
        by_distance: For each query the ids nearest by distance, `[Q, k]`.
    """

    norms: torch.Tensor
    by_cosine: torch.Tensor
    by_distance: torch.Tensor


def _vocabulary(base: BaseModel) -> list[int]:
    """Ids that the tokenizer knows; tables are often padded with rows that no text reaches."""
    rows = base.embedding.shape[0]
    return sorted({index for index in base.tokenizer.get_vocab().values() if index < rows})


def _search(
    base: BaseModel, ids: torch.Tensor, queries: torch.Tensor, own: torch.Tensor, count: int
) -> _Found:
    """Nearest tokens of each query; the last queries are the tokens `own` and not their own."""
    count = min(count, len(ids) - 1)
    own_of = torch.cat([torch.full((len(queries) - len(own),), -1), own])
    directions, norms = _directions(queries), []
    nearest: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for part, rows in _chunks(base, ids):
        norms.append(rows.norm(dim=1))
        products = queries @ rows.T
        # Of the squared distance |q|² - 2 q·r + |r|² the first term is the same for all tokens.
        scores = {
            "cosine": directions @ _directions(rows).T,
            "distance": 2 * products - norms[-1].square(),
        }
        for name, score in scores.items():
            score[part == own_of[:, None]] = -torch.inf
            nearest[name] = _best(nearest.get(name), score, part, count)
    return _Found(torch.cat(norms).sort().values, nearest["cosine"][1], nearest["distance"][1])


def _chunks(base: BaseModel, ids: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for part in ids.split(_CHUNK):
        yield part, base.embed(part).float().cpu()


def _best(
    before: tuple[torch.Tensor, torch.Tensor] | None,
    scores: torch.Tensor,
    ids: torch.Tensor,
    count: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Merge the best so far with a chunk's: scores and ids, `[Q, k]`."""
    ids = ids.expand(len(scores), -1)
    if before is not None:
        scores, ids = torch.cat([before[0], scores], 1), torch.cat([before[1], ids], 1)
    best, places = scores.topk(min(count, scores.shape[1]), dim=1)
    return best, ids.gather(1, places)


def _neighbours(base: BaseModel, vector: torch.Tensor, ids: torch.Tensor) -> tuple[Neighbour, ...]:
    """Tokens with their cosine and distance, computed exactly."""
    rows = base.embed(ids).detach().float().cpu()
    cosines = _directions(rows) @ _directions(vector[None])[0]
    distances = (rows - vector).norm(dim=1)
    return tuple(
        Neighbour(index, _text_of(base, index), cosine, distance)
        for index, cosine, distance in zip(
            ids.tolist(), cosines.tolist(), distances.tolist(), strict=True
        )
    )


def _text_of(base: BaseModel, index: int) -> str:
    """A token as text, its leading space kept; a part of a character as the tokenizer writes it."""
    raw = str(base.tokenizer.convert_ids_to_tokens(index))
    text = str(base.tokenizer.convert_tokens_to_string([raw]))
    if "\ufffd" in text or not text:
        return raw
    return f" {text}" if raw[0] in "Ġ▁" and not text.startswith(" ") else text


def _starts(prompt: SoftPrompt, base: BaseModel) -> dict[int, Neighbour]:
    """The tokens that vectors started from, by position, where the manifest tells.

    Init `labels` starts at the embeddings of the label words' tokens, `task` ends with those of
    what it says of the task; the others were drawn from the training texts, which are not at hand.
    """
    record, init = prompt.manifest.task, prompt.manifest.provenance.get("init")
    if init not in ("labels", "task") or record is None:
        return {}
    encoder = Encoder(base.tokenizer, is_encoder_decoder=base.is_encoder_decoder)
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
        index: _neighbours(base, prompt.vectors[index], torch.tensor([token]))[0]
        for index, token in enumerate(known, start=first)
    }


def _describe(
    base: BaseModel, ids: torch.Tensor, found: _Found, sample: torch.Tensor, size: int
) -> Vocabulary:
    """The vocabulary; the sampled tokens' searches stand behind the prompt's `size` ones."""
    nearest = base.embed(found.by_cosine[size:, 0]).detach().float().cpu()
    cosines = (_directions(sample) * _directions(nearest)).sum(dim=1)
    nearest = base.embed(found.by_distance[size:, 0]).detach().float().cpu()
    return Vocabulary(
        size=len(ids),
        norms=_quantiles(found.norms),
        nearest_cosine=_quantiles(cosines),
        nearest_distance=_quantiles((sample - nearest).norm(dim=1)),
    )


def _likeness(prompt: SoftPrompt, name: str, other: SoftPrompt) -> Likeness:
    if other.hidden_size != prompt.hidden_size:
        raise IncompatiblePrompt(
            f"The prompt {name!r} has the width {other.hidden_size} and this one "
            f"{prompt.hidden_size}: only prompts of one base can be compared."
        )
    a, b = prompt.vectors, other.vectors
    alike = a.shape == b.shape
    parent = prompt.manifest.provenance.get("init")
    hashes = parent.get("parent", {}) if isinstance(parent, Mapping) else {}
    own = other.manifest.files.get(WEIGHTS)
    cosines = (_directions(a) * _directions(b)).sum(dim=1).tolist() if alike else None
    return Likeness(
        name=name,
        similarity=float(_directions(a).mean(dim=0) @ _directions(b).mean(dim=0)),
        by_position=None if cosines is None else tuple(cosines),
        distance=float((a - b).norm() / b.norm().clamp_min(_TINY)) if alike else None,
        is_parent=own is not None and hashes.get(WEIGHTS) == own,
    )


def _directions(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows, dim=1, eps=_TINY)


def _quantiles(values: torch.Tensor) -> dict[float, float]:
    ordered = values.sort().values
    places = [round(share * (len(ordered) - 1)) for share in _QUANTILES]
    return dict(zip(_QUANTILES, ordered[places].tolist(), strict=True))
