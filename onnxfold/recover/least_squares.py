"""Refitting a reader: the weights that give the original's outputs from the inputs it has now."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from ..blas import one_thread
from ..moments import Moments

Floats = NDArray[np.float64]

_SMALL = 1024  # inputs; systems of so many are solved by one thread


def refit(moments: Moments, weights: Floats, ridge: float, bias: bool = True) -> tuple[Floats, Floats, float, float]:
    """Minimise |y - W x - b|^2 + ridge mean(diag H) |W - `weights`|^2.

    Args:
        moments: of the inputs now and the outputs wanted.
        weights: [groups, outputs, features] the merged weights, which the solution is pulled towards.
        ridge: relative to the mean of the diagonal of the inputs' moments H.
        bias: whether b may be chosen (else it is 0).

    Returns W like `weights`, b [groups * outputs], and the relative squared errors before (with the best b) and after.
    """
    solved, offsets = np.empty_like(weights), list[Floats]()
    before = after = total = 0.0
    for g in range(len(weights)):
        h, c = (moments.inputs(g), moments.cross(g)) if bias else moments.raw(g)
        old = weights[g]
        gap = c - old @ h
        damped = h + np.eye(len(h)) * max(ridge * float(np.trace(h)) / len(h), 1e-12)
        with one_thread(len(h) <= _SMALL):
            change = cho_solve(cho_factor(damped, lower=True), gap.T).T
        solved[g] = old + change
        x, y = moments.means(g)
        offsets.append(y - solved[g] @ x if bias else np.zeros(len(y)))
        energy = float(moments.energies(g, centred=bias).sum())
        error = energy - 2 * float(np.sum(c * old)) + float(np.sum((old @ h) * old))
        before += error
        after += error - 2 * float(np.sum(gap * change)) + float(np.sum((change @ h) * change))
        total += energy
    scale = max(total, 1e-30)
    return solved, np.concatenate(offsets), before / scale, after / scale


def rescale(moments: Moments, weights: Floats, bias: bool = True) -> tuple[Floats, Floats, float, float]:
    """REPAIR: every output scaled to the variance, and shifted to the mean, that is wanted. As `refit` otherwise.

    Source: Jordan et al., REPAIR, ICLR 2023.
    """
    solved, offsets = np.empty_like(weights), list[Floats]()
    before = after = total = 0.0
    for g in range(len(weights)):
        h, c = (moments.inputs(g), moments.cross(g)) if bias else moments.raw(g)
        old, energies = weights[g], moments.energies(g, centred=bias)
        spread = np.maximum(np.sum((old @ h) * old, axis=1), 0.0)
        both = np.sum(c * old, axis=1)
        factor = np.where(spread > 1e-12 * max(float(spread.max(initial=0)), 1e-30), 1.0, 0.0)
        factor = np.where(factor > 0, np.sqrt(energies / np.where(factor > 0, spread, 1.0)), 1.0)
        solved[g] = old * factor[:, None]
        x, y = moments.means(g)
        offsets.append(y - solved[g] @ x if bias else np.zeros(len(y)))
        before += float(np.sum(energies - 2 * both + spread))
        after += float(np.sum(energies - 2 * factor * both + factor**2 * spread))
        total += float(energies.sum())
    scale = max(total, 1e-30)
    return solved, np.concatenate(offsets), before / scale, after / scale
