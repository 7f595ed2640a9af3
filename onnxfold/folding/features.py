"""Feature rows of channels, and the scores that pruning ranks them by.

One row per channel (Wang et al., ICLR 2025): [weights that produce it | weights that consume it | per-channel vectors].
The parts live on different scales (convolution weights are O(0.01), gamma is O(1)), so they are balanced first (see
`balanced`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..options.choices import Method
from .blas import one_thread
from .gram import SINGLE, Gram, GramSum, gram
from .group_weights import GroupWeights, Part

Floats = NDArray[np.floating[Any]]
MOST_ENTRIES = 2**24  # of the features of a group that are in memory all at once: 0.4 GB with what balancing needs
_CHUNK = 2**16  # numbers
VECTOR_WEIGHT = 0.1  # share of a per-channel vector beside a whole weight matrix; measured, see docs/design/folding.md


def balanced(part: Floats, share: float = 1.0) -> Floats:
    """`part` [n, d] scaled so that the squared distances of its rows to their mean add up to `share`.

    A part in which all rows are equal tells no channels apart and becomes zero.
    """
    centered = part - part.mean(axis=0, dtype=np.float64)
    size = float(np.sqrt(np.square(centered, dtype=np.float64).sum()))
    return part * 0.0 if size <= 1e-12 * (1 + float(np.abs(part).max(initial=0))) else part * (np.sqrt(share) / size)


def feature_parts(weights: GroupWeights) -> list[Floats]:
    """The balanced parts of the feature rows, [n, d] each: weights with share 1, per-channel vectors with less."""
    wide = [p.values for p in (*weights.rows, *weights.filters, *weights.columns)]
    parts = [balanced(p) for p in wide] + [balanced(p, VECTOR_WEIGHT) for p in _narrow(weights)]
    return parts or [np.zeros((weights.size, 1))]


def _narrow(weights: GroupWeights) -> list[Floats]:
    """The per-channel vectors that are features, [n, few] each."""
    if weights.norms:
        return [n.gamma[:, None] for n in weights.norms] + [n.beta[:, None] for n in weights.norms]
    return [p.values for p in weights.vectors]  # BatchNormalization was fused away: its shift is now in the biases


def feature_gram(weights: GroupWeights, threads: int = 0) -> Gram:
    """The centered Gram matrix [n, n] of the balanced feature rows; float32 for more than `gram.SINGLE` channels.

    Groups of many channels or many weights are read in blocks of columns, twice: first for the size of each part.
    """
    if weights.size <= SINGLE and weights.entries <= MOST_ENTRIES:
        with one_thread():  # two that wait for each other take up to 25 times as long, and give the same bits
            return gram(feature_parts(weights))
    total = GramSum(weights.size, threads)
    total.add(_streamed(weights))
    return total.whole()


def _streamed(weights: GroupWeights) -> Iterator[NDArray[np.float32]]:
    """The balanced and centered features block by block [n, columns]: every part in which rows differ.

    The factor of a part takes reading it once before. That is done piece by piece, between the blocks of the part
    before it, so that whoever multiplies these is never without one for long.
    """
    parts = (*weights.rows, *weights.filters, *weights.columns)
    measuring = [_Measuring(part) for part in parts]
    for part, own, following in zip(parts, measuring, [*measuring[1:], None], strict=True):
        factor = own.factor()
        for piece in part.pieces_as_stored() if factor else ():
            centered = _centered(piece)
            del piece  # not needed while the block is
            yield np.multiply(centered, factor, out=centered)
            if following is not None:
                following.step()
    for vector in _narrow(weights):
        yield _centered(balanced(vector, VECTOR_WEIGHT))


class _Measuring:
    """Finds the factor that balances a part, piece by piece."""

    def __init__(self, part: Part) -> None:
        self._pieces = part.pieces_as_stored()
        self._squares, self._largest = 0.0, 0.0

    def step(self) -> bool:
        """Look at the next piece; whether there was one."""
        piece = next(self._pieces, None)
        if piece is None:
            return False
        self._squares += _sum_of_squares(_centered(piece))
        self._largest = max(self._largest, float(piece.max(initial=0)), -float(piece.min(initial=0)))
        return True

    def factor(self) -> np.float32:
        """What it is, after a look at all that is left; 0 where all rows are equal."""
        while self.step():
            pass
        differ = np.sqrt(self._squares) > 1e-12 * (1 + self._largest)
        return np.float32(1 / np.sqrt(self._squares)) if differ else np.float32(0)


def _sum_of_squares(block: NDArray[np.float32]) -> float:
    """In float64, a cache's worth at a time."""
    flat = block.ravel(order="K")
    return sum(
        float(np.square(flat[begin : begin + _CHUNK], dtype=np.float64).sum()) for begin in range(0, len(flat), _CHUNK)
    )


def _centered(piece: Floats) -> NDArray[np.float32]:
    """A copy without its column means, which are found and taken off in float64."""
    made = np.empty_like(piece, np.float32)
    np.subtract(piece, piece.mean(axis=0, dtype=np.float64), out=made, dtype=np.float64, casting="same_kind")
    return made


def magnitudes(weights: GroupWeights, method: Method) -> NDArray[np.float64]:
    """[n] the norm of the weights that produce each channel: pruning keeps the channels with the largest.

    Rows as they stand in the file: the usual definition, and the stronger baseline (ResNet-20 at 0.25, inner groups:
    L2 66 % top-1 on raw rows, 32 % on rows times gamma / sigma).
    """
    rows = weights.rows or (*weights.filters, *weights.vectors)
    power = 1 if method is Method.PRUNE_L1 else 2
    total = np.zeros(weights.size)
    for row in rows:
        for piece in row.pieces():
            total += (np.abs(piece.astype(np.float64)) ** power).sum(axis=1)
    return total if power == 1 else np.sqrt(total)
