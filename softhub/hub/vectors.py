"""Soft prompts as plain numpy matrices, for comparing them without a model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from softhub.adapter.layout import WEIGHTS
from softhub.adapter.validation import parse_weights

Matrix = npt.NDArray[np.float32]


def read_vectors(files: Mapping[str, bytes], *, origin: str) -> Matrix:
    """Return the stored matrix `[P, H]` (or `[2P, H]`) as float32.

    Raises:
        InvalidArtefact: The weights file is not sound.
    """
    dtype, shape, body = parse_weights(files[WEIGHTS], origin=origin)
    if dtype == "BF16":
        # bfloat16 is the upper half of a float32.
        halves = np.frombuffer(body, dtype="<u2").astype("<u4") << 16
        return halves.view("<f4").reshape(shape).astype(np.float32)
    stored = {"F32": "<f4", "F16": "<f2"}[dtype]
    return np.frombuffer(body, dtype=stored).reshape(shape).astype(np.float32)


def similarity(a: Matrix, b: Matrix) -> float:
    """Return the mean cosine over all pairs of virtual tokens, between -1 and 1.

    The order and the number of virtual tokens do not matter. Source: Vu et al. 2022, "SPoT:
    Better Frozen Model Adaptation through Soft Prompt Transfer" (arXiv 2110.07904), section 4,
    "per-token average cosine similarity". A mean of all pairs' cosines is the product of the
    mean unit vectors.
    """
    return float(_directions(a).mean(axis=0) @ _directions(b).mean(axis=0))


def row_cosines(a: Matrix, b: Matrix) -> npt.NDArray[np.float32]:
    """Return the cosine of each row of `a` with the same row of `b`, both `[P, H]`."""
    cosines: npt.NDArray[np.float32] = np.einsum("ph,ph->p", _directions(a), _directions(b))
    return cosines


def relative_distance(a: Matrix, b: Matrix) -> float:
    """Return how far `b` is from `a`, as a part of the length of `a` (Frobenius norms)."""
    return float(np.linalg.norm(b - a) / max(float(np.linalg.norm(a)), 1e-12))


def _directions(rows: Matrix) -> Matrix:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    directions: Matrix = rows / np.maximum(lengths, np.float32(1e-12))
    return directions
