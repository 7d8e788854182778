"""Comparing soft prompts as numpy matrices, without a model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]


def similarity(a: Matrix, b: Matrix) -> float:
    """Return the mean cosine over all pairs of virtual tokens, between -1 and 1.

    The order and the number of virtual tokens do not matter. Source: Vu et al. 2022, "SPoT:
    Better Frozen Model Adaptation through Soft Prompt Transfer" (arXiv 2110.07904), section 4,
    "per-token average cosine similarity". A mean of all pairs' cosines is the product of the
    mean unit vectors.
    """
    return float(_unit_rows(a).mean(axis=0) @ _unit_rows(b).mean(axis=0))


def row_cosines(a: Matrix, b: Matrix) -> npt.NDArray[np.float32]:
    """Return the cosine of each row of `a` with the same row of `b`, both `[P, H]`."""
    cosines: npt.NDArray[np.float32] = np.einsum("ph,ph->p", _unit_rows(a), _unit_rows(b))
    return cosines


def relative_distance(a: Matrix, b: Matrix) -> float:
    """Return the distance from `a` to `b` relative to the norm of `a` (Frobenius norms)."""
    return float(np.linalg.norm(b - a) / max(float(np.linalg.norm(a)), 1e-12))


def _unit_rows(rows: Matrix) -> Matrix:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)  # [P, 1]
    unit: Matrix = rows / np.maximum(lengths, np.float32(1e-12))
    return unit
