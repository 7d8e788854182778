"""Comparing soft prompts as numpy matrices, without a model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]


def similarity(a: Matrix, b: Matrix) -> float:
    """Return the cosine of the prompts' mean vectors, between -1 and 1; 1 of a prompt with itself.

    The order and the number of virtual tokens do not matter. Source: Vu et al. 2022, "SPoT:
    Better Frozen Model Adaptation through Soft Prompt Transfer" (arXiv 2110.07904), section 4,
    "cosine similarity of average tokens". (The mean cosine of all pairs, the paper's other measure,
    is far from 1 for a prompt with itself, because its own tokens differ.)
    """
    means = np.stack([a.mean(axis=0), b.mean(axis=0)])  # [2, H]
    return float(row_cosines(means[:1], means[1:])[0])


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
