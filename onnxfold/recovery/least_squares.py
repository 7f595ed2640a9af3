"""Refitting a consumer: the weights that give the original's outputs from the inputs it has now."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from ..folding.blas import one_thread
from ..folding.ridge import damping
from .moments import Moments

Floats = NDArray[np.float64]

_FACTORS = (0.125, 8.0)  # least and greatest: small or negative correlations are mostly noise
_SMALL = 1024  # inputs; systems of so many are solved by one thread


def refit(moments: Moments, weights: Floats, ridge: float, bias: bool = True) -> tuple[Floats, Floats, float, float]:
    """Minimize |y - W x - b|^2 + ridge mean(diag H) |W - `weights`|^2.

    Args:
        moments: of the inputs now and the outputs wanted.
        weights: [groups, outputs, features] the merged weights, which the solution is pulled towards.
        ridge: relative to the mean of the diagonal of the inputs' moments H (see `damping`).
        bias: whether b may be chosen (else it is 0).

    Returns W like `weights`, b [groups * outputs], and the relative squared errors before (with the best b) and after.
    """
    solved, offsets = np.empty_like(weights), list[Floats]()
    before = after = total = 0.0
    for g in range(len(weights)):
        h, c = (moments.inputs(g), moments.cross(g)) if bias else moments.raw(g)
        old = weights[g]
        gap = c - old @ h
        change = _change(h, gap, ridge)
        solved[g] = old + change
        x, y = moments.means(g)
        offsets.append(y - solved[g] @ x if bias else np.zeros(len(y)))
        energy = float(moments.energies(g, centered=bias).sum())
        error = energy - 2 * float(np.sum(c * old)) + float(np.sum((old @ h) * old))
        before += error
        after += error - 2 * float(np.sum(gap * change)) + float(np.sum((change @ h) * change))
        total += energy
    scale = max(total, 1e-30)
    return solved, np.concatenate(offsets), before / scale, after / scale


def remap(
    moments: Moments, weights: Floats, wanted: Floats, ridge: float, centered: bool = True
) -> tuple[Floats, float, float]:
    """Channel-level maps: every channel of the original as a combination of those now, the same one at every kernel
    position.

    Minimize |wanted x - W z|^2 + ridge mean(diag H) |W - weights|^2 over W, where z are the channels now and x the
    original's at the same positions: W = wanted B but for the ridge, with B the least-squares map from z to x.

    Args:
        moments: of rows [z, x], k + n inputs.
        weights: [m, k] the merged weights; every kernel position of every output is a row of its own.
        wanted: [m, n] the original's.
        ridge: relative to the mean of the diagonal of the moments H of z.
        centered: whether means are taken off (a bias restores them).

    Returns W [m, k] and the relative squared errors before and after, kernel positions taken one by one.

    Source: GRAIL (arXiv 2602.23795), whose map B = G R' (R G R' + ridge I)^-1 is pulled to zero instead, and takes
    the channels now to be R x; here z is what the folded model computes.
    """
    h = moments.inputs() if centered else moments.raw()[0]
    k = weights.shape[1]
    mine, both, theirs = h[:k, :k], h[k:, :k], h[k:, k:]
    c = wanted @ both
    gap = c - weights @ mine
    change = _change(mine, gap, ridge)
    energy = float(np.sum((wanted @ theirs) * wanted))
    before = energy - 2 * float(np.sum(c * weights)) + float(np.sum((weights @ mine) * weights))
    after = before - 2 * float(np.sum(gap * change)) + float(np.sum((change @ mine) * change))
    return weights + change, before / max(energy, 1e-30), after / max(energy, 1e-30)


def _change(h: Floats, gap: Floats, ridge: float) -> Floats:
    """gap (h + damping I)^-1."""
    damped = np.array(h, order="F")
    damped[np.diag_indices(len(h))] += damping(h, ridge)
    with one_thread(len(h) <= _SMALL):
        return np.asarray(cho_solve(cho_factor(damped, lower=True, overwrite_a=True), gap.T).T, np.float64)


def rescale(moments: Moments, weights: Floats, bias: bool = True) -> tuple[Floats, Floats, float, float]:
    """REPAIR: every output scaled to the variance, and shifted to the mean, that is wanted. As `refit` otherwise.

    Source: Jordan et al., REPAIR, ICLR 2023.
    """
    solved, offsets = np.empty_like(weights), list[Floats]()
    before = after = total = 0.0
    for g in range(len(weights)):
        h, c = (moments.inputs(g), moments.cross(g)) if bias else moments.raw(g)
        old, energies = weights[g], moments.energies(g, centered=bias)
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


def scaled(moments: Moments, weights: Floats, fixed: bool = False) -> tuple[Floats, Floats, float, float]:
    """Minimize |y - a W x - b|^2 over a factor a (`fixed`: 1) and an offset b for every output; W stays.

    Returns a and b [groups * outputs], and the relative squared errors before (a = 1, with the best b) and after.
    """
    found, offsets = list[Floats](), list[Floats]()
    before = after = total = 0.0
    for g, old in enumerate(weights):
        h, c, energies = moments.inputs(g), moments.cross(g), moments.energies(g)
        factor, spread, both = factors(h, c, old)
        factor = np.ones_like(factor) if fixed else factor
        x, y = moments.means(g)
        found.append(factor)
        offsets.append(y - factor * (old @ x))
        before += float(np.sum(energies - 2 * both + spread))
        after += float(np.sum(energies - 2 * factor * both + factor**2 * spread))
        total += float(energies.sum())
    scale = max(total, 1e-30)
    return np.concatenate(found), np.concatenate(offsets), before / scale, after / scale


def factors(h: Floats, c: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """For every output (row of `weights`) the best factor in 1/8..8, by the covariances h of x and c of y with x; the
    variance of W x; and its covariance with y. Each [outputs]."""
    spread = np.maximum(np.sum((weights @ h) * weights, axis=1), 0.0)
    both = np.sum(c * weights, axis=1)
    live = spread > 1e-12 * max(float(spread.max(initial=0)), 1e-30)
    return np.where(live, np.clip(both / np.where(live, spread, 1.0), *_FACTORS), 1.0), spread, both
