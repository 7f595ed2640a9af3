"""Rounding a refitted consumer to the integers it is stored as: later columns compensate the errors of earlier ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

from ..folding.ridge import damping
from ..model.linear import Linear
from ..model.quantized.scheme import Scheme
from .moments import Moments

Floats = NDArray[np.float64]
_TOGETHER = 128  # columns whose errors go to the later ones in one product


def rounded(
    node: Linear,
    weights: Floats,
    shape: Sequence[int],
    scheme: Scheme,
    moments: Moments,
    ridge: float,
    bias: bool = True,
) -> tuple[Floats, Floats]:
    """Refitted weights [groups, outputs, features] of a node (with these moments and this ridge) as they are when
    stored by `scheme` in a tensor of `shape`, and what that adds to the best bias [groups * outputs]: 0 if it has no
    `bias`."""
    step, zero = (
        node.matrix(np.broadcast_to(scheme.across(numbers, len(shape)), tuple(shape)))
        for numbers in (scheme.scale, scheme.zero)
    )
    out, shift = np.empty_like(weights), list[Floats]()
    for g, one in enumerate(weights):
        h = moments.inputs(g) if bias else moments.raw(g)[0]
        out[g] = compensated(one, step[g], zero[g], (scheme.low, scheme.high), h, ridge)
        shift.append((one - out[g]) @ moments.means(g)[0] if bias else np.zeros(len(one)))
    return out, np.concatenate(shift)


def compensated(
    weights: Floats, step: Floats, zero: Floats, limits: tuple[int, int], moments: Floats, ridge: float
) -> Floats:
    """Numbers ``(integer - zero) * step`` near W that raise |y - W x|^2 + ridge mean(diag H) |W - W0|^2 little.

    Column by column: each is rounded, and those that follow are changed to compensate it as well as they can.

    Args:
        weights: [outputs, features] the minimum W.
        step, zero: [outputs, features] of each number; a step of 0 allows 0 alone.
        limits: the least and the greatest integer.
        moments: [features, features] H of the inputs x.
        ridge: relative to the mean of the diagonal of H.

    Source: Frantar et al., GPTQ, ICLR 2023 (with the steps chosen before).
    """
    h = moments + np.eye(len(moments)) * damping(moments, ridge)
    lower = cholesky(h[::-1, ::-1], lower=True)  # of the reversed order: its inverse is the factor of the inverse
    factor = solve_triangular(lower, np.eye(len(h)), lower=True)[::-1, ::-1]  # upper, factor' factor = inverse of h
    left, out = weights.copy(), np.empty_like(weights)
    safe = np.where(step == 0, 1.0, step)
    for start in range(0, left.shape[1], _TOGETHER):
        stop = min(start + _TOGETHER, left.shape[1])
        errors = np.empty((len(left), stop - start))
        for j in range(start, stop):
            whole = np.clip(np.rint(left[:, j] / safe[:, j] + zero[:, j]), *limits)
            out[:, j] = (whole - zero[:, j]) * step[:, j]
            errors[:, j - start] = (left[:, j] - out[:, j]) / factor[j, j]
            left[:, j + 1 : stop] -= np.outer(errors[:, j - start], factor[j, j + 1 : stop])
        left[:, stop:] -= errors @ factor[start:stop, stop:]
    return out
