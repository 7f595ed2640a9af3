"""Ridge terms of least-squares problems, and how many variables of a problem vary at all."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_CONSTANT = 1e-12  # of the largest variance: less is rounding


def damping(moments: Array, ridge: float) -> float:
    """What `ridge` adds to the diagonal of `moments` [d, d]: relative to its mean over the inputs that vary at all.

    Inputs that never do (heads filled up with zeros, dead channels) change nothing.
    """
    return max(ridge * float(np.trace(moments)) / max(1, varying(np.diagonal(moments))), 1e-12)


def varying(spread: Array) -> int:
    """How many inputs of these variances [d] vary at all."""
    return int(np.count_nonzero(spread > _CONSTANT * float(spread.max(initial=0))))
