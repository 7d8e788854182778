"""Comparing soft prompts as numpy matrices, without a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from softhub.adapter.adapter import Adapter
from softhub.adapter.manifest import PrefixShape

Matrix = npt.NDArray[np.floating[Any]]


def layer_units(rows: Matrix, prefix: PrefixShape | None) -> Matrix:
    """Return the root mean square of each layer's keys, and of its values, for each column.

    Layers differ in size by orders of magnitude, and the largest would decide every comparison.

    Args:
        rows: `[P, width]` of a prefix, or a prompt `[P, H]`.
        prefix: How a row of a prefix is divided; None for a prompt, whose units are all 1.

    Returns:
        `[width]` or `[H]`, positive; float64, in which no quotient of float32 numbers overflows.
    """
    if prefix is None:
        return np.ones(rows.shape[1])
    parts = rows.reshape(len(rows), -1, prefix.layer_width)  # [P, layers * 2, layer width]
    sizes = np.sqrt(np.square(parts, dtype=np.float64).mean(axis=(0, 2)))  # [layers * 2]
    return np.where(sizes > 0, sizes, 1.0).repeat(prefix.layer_width)


def similarity_of(a: Adapter, b: Adapter) -> float | None:
    """Return the similarity of two adapters, of prefixes in each one's units of the layers.

    None if they are of different widths or types.
    """
    if (a.shape[1], a.prefix) != (b.shape[1], b.prefix):
        return None
    return similarity(*(each.vectors / layer_units(each.vectors, each.prefix) for each in (a, b)))


def similarity(a: Matrix, b: Matrix) -> float:
    """Return the cosine of the prompts' mean vectors, between -1 and 1; 1 of a prompt with itself.

    The order and the number of virtual tokens do not matter. Source: Vu et al. 2022, "SPoT:
    Better Frozen Model Adaptation through Soft Prompt Transfer" (arXiv 2110.07904), section 4,
    "cosine similarity of average tokens". (The mean cosine of all pairs, the paper's other measure,
    is far from 1 for a prompt with itself, because its own tokens differ.)
    """
    means = np.stack([a.mean(axis=0), b.mean(axis=0)])  # [2, H]
    return float(row_cosines(means[:1], means[1:])[0])


def row_cosines(a: Matrix, b: Matrix) -> Matrix:
    """Return the cosine of each row of `a` with the same row of `b`, both `[P, H]`."""
    cosines: Matrix = np.einsum("ph,ph->p", _unit_rows(a), _unit_rows(b))
    return cosines


def relative_distance(a: Matrix, b: Matrix) -> float:
    """Return the distance from `a` to `b` relative to the norm of `a` (Frobenius norms)."""
    return float(np.linalg.norm(b - a) / max(float(np.linalg.norm(a)), 1e-12))


def _unit_rows(rows: Matrix) -> Matrix:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)  # [P, 1]
    unit: Matrix = rows / np.maximum(lengths, 1e-12)
    return unit
