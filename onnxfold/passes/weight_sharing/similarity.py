"""How far two weights of one shape, or what two layers give, are from each other. Plain arrays; nothing sees a graph.

Weights are matrices [outputs, features]: one row per neuron. All distances are symmetric, 0 for equal weights, and free
of units, so that pairs of different shapes and scales can be ranked together.

Which of these layer fusion uses: O'Neill, Ver Steeg, Galstyan, "Compressing Deep Neural Networks via Layer Fusion"
(arXiv 2007.14917).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...options.choices import Distance

Floats = NDArray[np.float64]
_TINY = 1e-30


def euclidean(a: Floats, b: Floats) -> float:
    """|A - B|_F / sqrt(|A|_F^2 + |B|_F^2): 1 for orthogonal weights, sqrt(2) for opposite ones."""
    return float(np.linalg.norm(a - b) / np.sqrt(max(np.sum(a * a) + np.sum(b * b), _TINY)))


def manhattan(a: Floats, b: Floats) -> float:
    """sum |A - B| / sum (|A| + |B|), 0..1 (the dissimilarity of Bray and Curtis, Ecol. Monogr. 27, 1957)."""
    return float(np.abs(a - b).sum() / max(np.abs(a).sum() + np.abs(b).sum(), _TINY))


def cosine(a: Floats, b: Floats) -> float:
    """1 - <A, B> / (|A| |B|), 0..2. Two weights of zeros are equal."""
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return 1 - float(np.sum(a * b)) / size if size > 0 else float(np.any(a != b))


def cka(x: Floats, y: Floats) -> float:
    """1 - |Y'X|_F^2 / (|X'X|_F |Y'Y|_F), columns centered: 0..1.

    Linear CKA (Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019), of x [n, p] and
    y [n, q] with one row per example. An orthogonal map of the columns of either, or a factor, changes nothing. For
    weights the neurons are the examples.
    """
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    if min(x.shape[1], y.shape[1]) > len(x):  # the same by Gram matrices of examples
        k, m = x @ x.T, y @ y.T
        both, own = float(np.sum(k * m)), float(np.linalg.norm(k) * np.linalg.norm(m))
    else:
        both = float(np.sum(np.square(y.T @ x)))
        own = float(np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    if own <= _TINY:
        return float(np.any(x != 0) or np.any(y != 0))
    return max(0.0, 1 - both / own)


def covariance(a: Floats, b: Floats) -> float:
    """|cov A - cov B|_F / (|cov A|_F + |cov B|_F), 0..1, with the neurons as variables: [outputs, outputs]."""
    return _relative(_cov(a), _cov(b))


def spectrum(a: Floats, b: Floats) -> float:
    """The same for the sorted eigenvalues of these covariances: no orthogonal map of either side changes it."""
    return _relative(np.linalg.eigvalsh(_cov(a)), np.linalg.eigvalsh(_cov(b)))


def kl(a: Floats, b: Floats) -> float:
    """The mean over neurons of KL(p|q) + KL(q|p), p and q the normal distributions fitted to their weights.

    1/2 ((s^2 + d^2) / t^2 + (t^2 + d^2) / s^2) - 1 with variances s^2, t^2 and means d apart (Jeffreys, Proc. R. Soc. A
    186, 1946; Kullback, "Information Theory and Statistics", 1959, chapter 9).
    """
    floor = max(1e-12 * float(np.square(a).mean() + np.square(b).mean()), _TINY)
    s, t, d = a.var(axis=1) + floor, b.var(axis=1) + floor, np.square(a.mean(axis=1) - b.mean(axis=1))
    return float(np.mean(0.5 * ((s + d) / t + (t + d) / s) - 1))


def wasserstein(a: Floats, b: Floats) -> float:
    """W2 between the neurons as points: sqrt(min over pairings of |A - P B|_F^2 / (|A|_F^2 + |B|_F^2)).

    Of as many points of equal mass the best transport is a pairing (Peyre and Cuturi, "Computational Optimal
    Transport", 2019, proposition 2.1), which linear assignment finds. The order of the neurons does not matter.
    """
    return euclidean(a, b[paired(a, b)])


def earth_mover(a: Floats, b: Floats) -> float:
    """W1 between the weights as numbers, over their mean size, by `scipy.stats.wasserstein_distance`."""
    from scipy.stats import wasserstein_distance  # takes a second to import, and only this distance needs it

    size = float(np.abs(a).mean() + np.abs(b).mean())
    return float(wasserstein_distance(a.ravel(), b.ravel())) / max(size, _TINY)


def paired(a: Floats, b: Floats) -> NDArray[np.int64]:
    """[n] for every row of `a` the row of `b` in the pairing of least sum of squared distances."""
    from scipy.optimize import linear_sum_assignment  # slow to import, and folds do not need it

    _, found = linear_sum_assignment(a @ b.T, maximize=True)
    return np.asarray(found, np.int64)


OF_WEIGHTS: Mapping[Distance, Callable[[Floats, Floats], float]] = MappingProxyType(
    {
        Distance.EUCLIDEAN: euclidean,
        Distance.MANHATTAN: manhattan,
        Distance.COSINE: cosine,
        Distance.CKA: cka,
        Distance.COVARIANCE: covariance,
        Distance.SPECTRUM: spectrum,
        Distance.KL: kl,
        Distance.WASSERSTEIN: wasserstein,
        Distance.EARTH_MOVER: earth_mover,
    }
)


def _cov(a: Floats) -> Floats:
    centered = a - a.mean(axis=1, keepdims=True)
    return np.asarray(centered @ centered.T / a.shape[1])


def _relative(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(a) + np.linalg.norm(b)), _TINY)
