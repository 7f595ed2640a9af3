"""How far outputs differ: the only definitions of error and agreement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


def relative_l2(expected: NDArray[Any], found: NDArray[Any]) -> float:
    """|found - expected| / |expected|; inf where the shapes differ, nan where `found` is not finite."""
    a, b = np.asarray(expected, np.float64), np.asarray(found, np.float64)
    if a.shape != b.shape:
        return float("inf")
    size = float(np.linalg.norm(a))
    return float(np.linalg.norm(a - b)) / size if size > 0 else float(np.linalg.norm(b))


@dataclass(frozen=True)
class OutputError:
    """How one output differs. `top1`: share of equal argmax (None where the output is no score per class)."""

    name: str
    relative_l2: float
    cosine: float
    sqnr_db: float
    max_abs: float
    top1: float | None


def output_error(name: str, expected: NDArray[Any], found: NDArray[Any]) -> OutputError:
    """All figures for one output. Equal outputs have an error of 0 and a SQNR of inf.

    Values that are NaN or infinite in both count as equal where they agree; one that is not finite makes the error inf.
    """
    a, b = expected.astype(np.float64).ravel(), found.astype(np.float64).ravel()
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    a, b = np.where(same & ~np.isfinite(a), 0.0, a), np.where(same & ~np.isfinite(b), 0.0, b)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        infinite = float("inf")
        return OutputError(name, infinite, 0.0, -infinite, infinite, top1(expected, found))
    signal, noise = float(np.linalg.norm(a)), float(np.linalg.norm(a - b))
    norms = signal * float(np.linalg.norm(b))
    if noise == 0:
        relative, cosine, sqnr = 0.0, 1.0, float("inf")
    else:
        relative = noise / signal if signal > 0 else float("inf")
        cosine = float(a @ b) / norms if norms > 0 else 0.0
        sqnr = -20 * float(np.log10(relative)) if signal > 0 else -float("inf")
    return OutputError(name, relative, cosine, sqnr, float(np.abs(a - b).max(initial=0.0)), top1(expected, found))


def top1(expected: NDArray[Any], found: NDArray[Any]) -> float | None:
    """Share of samples whose largest score stays in place; only for floating-point outputs [batch, classes, 1...]."""
    shape = expected.shape
    if expected.dtype.kind != "f" or len(shape) < 2 or shape[1] < 2 or any(d != 1 for d in shape[2:]) or not shape[0]:
        return None
    a, b = expected.reshape(shape[:2]), found.reshape(shape[:2])
    return float((a.argmax(1) == b.argmax(1)).mean())
