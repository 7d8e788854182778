"""What is trained in place of the plain `[P, H]` vectors, and how it folds back into them.

A reparameterisation is a small module whose output is the prompt. It changes how an optimizer
moves through the space of prompts, not what a prompt is: after training its output is stored as
plain vectors and the module is thrown away. Each starts at the vectors that the init gives, so
that reparameterisations can be compared from the same start.

| name | output | starts at the init |
|---|---|---|
| `none` | V | exactly |
| `residual` | V + LayerNorm(MLP(V)) | exactly |
| `ulpt` | V₀ + (Z R) · scale + shift | exactly |
| `superpos` | V + W E | exactly |
| `mlp` | MLP(X) | to the rounding of least squares, for P ≤ width of the MLP |

Learning rates: at the default 0.01 a step of `residual`, `ulpt` or `superpos` moves a prompt about
as far as one of `none`, so begin there; `mlp`, all of whose weights move every token at once, wants
about a tenth. The papers' own, mostly on T5, whose embeddings are many times as long as those of
the usual decoder: `none` 0.3 with Adafactor, `residual` 0.3 with AdamW, `ulpt` 0.6 on T5-base and
0.001 on Llama 3.2 (r = 2 and more).

Weight decay reaches the matrices that a module names in `decayed`. It never touches biases, norms,
scales, shifts, or the vectors of any but `none`, which has nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import nn

from softhub.errors import TrainingError, did_you_mean

DrawEmbeddings = Callable[[int], torch.Tensor]
"""Gives embeddings `[count, H]` of words that occur in the task's texts."""


class Reparameterization(nn.Module):
    """A module whose output is the prompt.

    Attributes:
        decayed: Names of the parameters that weight decay may pull towards 0.
    """

    decayed: ClassVar[tuple[str, ...]] = ()

    def forward(self) -> torch.Tensor:
        """The prompt as it stands, `[P, H]`, float32."""
        raise NotImplementedError


class Plain(Reparameterization):
    """The vectors themselves (Lester et al. 2021, arXiv 2104.08691).

    Args:
        vectors: Where the prompt starts, `[P, H]`.
    """

    decayed = ("vectors",)

    def __init__(self, vectors: torch.Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors.clone())

    def forward(self) -> torch.Tensor:
        """The vectors."""
        return self.vectors


class Residual(Reparameterization):
    """Residual Prompt Tuning (Razdaibiedina et al. 2023, arXiv 2305.03937).

    One MLP with a bottleneck and a LayerNorm, shared by all tokens, is added to the vectors. The
    LayerNorm's gain starts at 0 rather than 1: its output would otherwise be as long as √H,
    several times any word's vector.

    Args:
        vectors: Where the prompt starts, `[P, H]`.
        size: Width of the bottleneck.
    """

    decayed = ("down.weight", "up.weight")

    def __init__(self, vectors: torch.Tensor, size: int) -> None:
        super().__init__()
        width = vectors.shape[1]
        self.vectors = nn.Parameter(vectors.clone())
        self.down, self.up = nn.Linear(width, size), nn.Linear(size, width)
        self.norm = nn.LayerNorm(width)
        nn.init.zeros_(self.norm.weight)

    def forward(self) -> torch.Tensor:
        """Vectors and what the MLP adds."""
        added: torch.Tensor = self.norm(self.up(torch.relu(self.down(self.vectors))))
        return self.vectors + added


class UltraLowDimensional(Reparameterization):
    """Ultra-Low-Dimensional Prompt Tuning (Wu et al. 2025, arXiv 2502.04501).

    Learned codes `[P, r]` times a frozen random matrix `[r, H]`, with a scale and a shift for each
    dimension that all tokens share. The paper starts at random codes; here the codes start at 0
    and the result is added to the init's vectors, which stay as they are.

    Args:
        vectors: Where the prompt starts, `[P, H]`.
        size: Number r of learned dimensions of each token.
    """

    decayed = ("codes",)
    start: torch.Tensor
    projection: torch.Tensor

    def __init__(self, vectors: torch.Tensor, size: int) -> None:
        super().__init__()
        tokens, width = vectors.shape
        self.register_buffer("start", vectors.clone())
        self.register_buffer("projection", torch.randn(size, width) * size**-0.5)
        self.codes = nn.Parameter(torch.zeros(tokens, size))
        self.scale = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))

    def forward(self) -> torch.Tensor:
        """The start, moved by the projected codes."""
        return self.start + (self.codes @ self.projection) * self.scale + self.shift


class Superposition(Reparameterization):
    """SuperPos-Prompt (Sadraei Javaeri et al. 2024, arXiv 2406.05279).

    Each token is a weighted sum of m sampled vocabulary embeddings, no softmax. In the paper
    token i is (E + ΔE_i) w_i with a trained ΔE_i `[m, H]` of its own; with w_i starting on the
    token's own vector that is, to first order, a free vector plus a weighted sum of frozen
    embeddings, which is what is trained here, with m times fewer numbers.

    Args:
        vectors: Where the prompt starts, `[P, H]`.
        embeddings: The sampled embeddings `[m, H]`.
    """

    decayed = ("weights",)
    embeddings: torch.Tensor

    def __init__(self, vectors: torch.Tensor, embeddings: torch.Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors.clone())
        self.weights = nn.Parameter(torch.zeros(vectors.shape[0], embeddings.shape[0]))
        self.register_buffer("embeddings", embeddings.clone())

    def forward(self) -> torch.Tensor:
        """Vectors and the weighted sums of embeddings."""
        return self.vectors + self.weights @ self.embeddings


class Encoded(Reparameterization):
    """P-tuning's encoder (Liu et al. 2021, arXiv 2103.10385): an MLP over learned inputs.

    There is no path around the MLP, so its last layer starts as the least-squares solution that
    maps the random inputs' features to the init's vectors.

    Args:
        vectors: Where the prompt starts, `[P, H]`.
        size: Width of the two hidden layers.
    """

    decayed = ("first.weight", "second.weight", "last.weight")

    def __init__(self, vectors: torch.Tensor, size: int) -> None:
        super().__init__()
        tokens, width = vectors.shape
        self.inputs = nn.Parameter(torch.randn(tokens, width))
        self.first, self.second = nn.Linear(width, size), nn.Linear(size, size)
        self.last = nn.Linear(size, width)
        with torch.no_grad():
            mean = vectors.mean(0)
            solution = torch.linalg.pinv(self._features().double()) @ (vectors - mean).double()
            self.last.weight.copy_(solution.T)
            self.last.bias.copy_(mean)

    def forward(self) -> torch.Tensor:
        """What the MLP makes of its inputs."""
        vectors: torch.Tensor = self.last(self._features())
        return vectors

    def _features(self) -> torch.Tensor:
        return torch.relu(self.second(torch.relu(self.first(self.inputs))))


REPARAMETERIZATIONS = ("none", "residual", "ulpt", "superpos", "mlp")
_RANK, _SAMPLED = 64, 128  # where the papers' own curves flatten


def check_reparameterization(name: str, size: int | None) -> None:
    """Refuse what `reparameterize` cannot make.

    Raises:
        TrainingError: The name is unknown, or the size is not positive or of no use.
    """
    if name not in REPARAMETERIZATIONS:
        raise TrainingError(
            f"Unknown reparameterization {name!r}{did_you_mean(name, REPARAMETERIZATIONS)}"
        )
    if size is not None and (size < 1 or name == "none"):
        raise TrainingError(
            f"reparameterization_size is {size} and reparameterization {name!r}: expected a "
            "positive size for one of residual, ulpt, superpos and mlp, or no size."
        )


def reparameterize(
    name: str,
    vectors: torch.Tensor,
    *,
    size: int | None = None,
    seed: int = 0,
    draw: DrawEmbeddings,
) -> Reparameterization:
    """Make the module that is trained.

    Args:
        name: One of `REPARAMETERIZATIONS`.
        vectors: Where the prompt starts, `[P, H]`, float32.
        size: Width of the MLP (`residual`, `mlp`; default H), learned dimensions of each token
            (`ulpt`; 64), or number of sampled embeddings (`superpos`; 128).
        seed: Seed of what is random in it.
        draw: Where `superpos` gets its embeddings.

    Returns:
        A module whose output is `vectors`.

    Raises:
        TrainingError: See `check_reparameterization`.
    """
    check_reparameterization(name, size)
    width = vectors.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "residual":
            return Residual(vectors, size or width)
        if name == "ulpt":
            return UltraLowDimensional(vectors, size or _RANK)
        if name == "superpos":
            return Superposition(vectors, draw(size or _SAMPLED))
        if name == "mlp":
            return Encoded(vectors, size or width)
    return Plain(vectors)


def fold(module: Reparameterization) -> torch.Tensor:
    """The plain vectors that a module stands for.

    Args:
        module: A trained module; its parameters may be sharded over processes, all of which must
            then call this.

    Returns:
        Vectors `[P, H]`, float32, on the CPU, detached.
    """
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    with torch.no_grad():
        vectors: torch.Tensor = torch.func.functional_call(module, _gathered(state), ())
    return vectors.float().cpu().clone()


def _gathered(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name: value.full_tensor() if hasattr(value, "full_tensor") else value
        for name, value in state.items()
    }
