"""One weight for several layers by least squares: their moments, and the weight that serves all of them best.

Without normalization this is RegMean (Jin et al., "Dataless Knowledge Fusion by Merging Weights of Language Models",
ICLR 2023): W = (sum of Y_i X_i') (sum of X_i X_i')^-1, here pulled towards the plain fusion. Behind a normalization
each layer has a factor of its own for every output, found in turns with the weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from ...folding.blas import one_thread
from ...folding.ridge import damping
from ...frozen import read_only
from ...model.model import Model
from ...recovery.epilogue import Epilogue, Epilogues
from ...recovery.least_squares import factors
from ...recovery.moments import LEAST_ROWS, MOST_FEATURES, Moments, share_of_places
from ...runtime.segments import SegmentRunner
from ...runtime.session import Feeds
from .layers import Layer

Floats = NDArray[np.float64]
Order = tuple[NDArray[np.int64], NDArray[np.int64]]
RIDGE = 1e-2  # of the mean diagonal of the moments, towards the plain fusion
_TURNS = 4  # factors, then the weight
_SMALL = 1024  # inputs; systems of so many are solved by one thread
_BY_ROW = 2e12  # multiply-adds; above, all outputs of a layer weigh alike and one system is solved


@dataclass(frozen=True, eq=False)
class Seen:
    """A layer on the samples: the moments of its inputs and outputs, and what follows it."""

    moments: Moments = field(repr=False)
    epilogue: Epilogue = field(repr=False)

    @property
    def worth(self) -> Floats:
        """[groups * outputs] squared scales of the outputs, over the energy of all of them."""
        node = self.moments.node
        energy = np.concatenate([self.moments.energies(g) for g in range(node.groups)])
        squares = np.square(self.epilogue.scale)
        return np.asarray(squares / max(float(np.sum(squares * energy)), 1e-30))

    @property
    def scaled(self) -> bool:
        """Whether every output may have a factor of its own: a normalization follows that can take it."""
        return bool(self.epilogue.mean and self.epilogue.gamma)


def seen(
    model: Model, found: Sequence[Layer], feeds: Sequence[Feeds], seed: int = 0, rows: int = LEAST_ROWS
) -> dict[str, Seen]:
    """The moments of layers, by their keys, in one pass over the model; those too wide, or not finite, are left out.

    Raises what onnxruntime raises."""
    runner, rng = SegmentRunner(model.proto, feeds, model.folder), np.random.default_rng(seed)
    epilogues = Epilogues(model.proto.graph, model.constants.read)
    at = {index: layer for layer in found for index in layer.nodes[:1] if layer.linear.features <= MOST_FEATURES}
    out: dict[str, Seen] = {}
    for index in sorted(at):
        node, sums = at[index].linear, Moments(at[index].linear)
        for batch in runner.advance(index + 1, [node.x, node.y]):
            share = share_of_places(node, node.positions(batch[node.y]) * len(feeds), rows)
            sums.add(batch[node.x], batch[node.y], share, rng)
        if sums.finite:
            out[at[index].key] = Seen(sums, epilogues.epilogue(node))
    return out


@dataclass(frozen=True, eq=False)
class Joint:
    """A `weight` [groups, outputs, features] for several layers, and the share of the energy of their outputs that it
    misses: the mean over the layers, with the plain fusion (`before`) and with this one (`after`)."""

    weight: Floats = field(repr=False)
    before: float
    after: float

    def __post_init__(self) -> None:
        read_only(self)


def joint(
    members: Sequence[Seen],
    start: Floats,
    ridge: float = RIDGE,
    orders: Sequence[Order] | None = None,
    quick: bool = False,
) -> Joint:
    """The weight that best reproduces the outputs of all `members` from their inputs, all layers counting alike.

    `orders`: of the outputs and features of each, where these are to be taken in another order than they were seen in
    (one group only). `quick`: one system for all outputs, which weigh alike then, and have no factors.

    Minimize the sum over layers i and outputs c of s_ic^2 |y_ic - a_ic w_c x_i - b_ic|^2, and the ridge on
    |W - `start`|^2, where s_i are the scales behind layer i over its energy; a_ic = 1 where the layer has no
    normalization of its own.
    """
    node, weight = members[0].moments.node, np.array(start, np.float64)
    by_row = not quick and node.groups * node.outputs * float(node.features) ** 3 / 3 <= _BY_ROW
    before = after = 0.0
    for g in range(node.groups):
        parts = [_Part.of(member, g) for member in members]
        if orders is not None:
            parts = [part.ordered(*order) for part, order in zip(parts, orders, strict=True)]
        before += sum(part.missed(weight[g]) for part in parts)
        turns = _TURNS if by_row and any(part.free for part in parts) else 1
        for _ in range(turns):
            weight[g] = _solved(parts, weight[g], start[g], ridge, by_row)
        after += sum(part.missed(weight[g]) for part in parts)
    return Joint(weight, before / len(members), after / len(members))


@dataclass(frozen=True, eq=False)
class _Part:
    """One group of a layer: covariances of its inputs [d, d] and of its outputs with its inputs [o, d]; the
    variances and the worth of its outputs [o]; whether each has a factor."""

    inputs: Floats
    cross: Floats
    energy: Floats
    worth: Floats
    free: bool

    def __post_init__(self) -> None:
        read_only(self)

    @classmethod
    def of(cls, one: Seen, group: int) -> _Part:
        sums, outputs = one.moments, one.moments.node.outputs
        worth = one.worth[group * outputs : (group + 1) * outputs]
        return cls(sums.inputs(group), sums.cross(group), sums.energies(group), worth, one.scaled)

    def ordered(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> _Part:
        """The same with outputs and features in another order."""
        inputs, cross = self.inputs[np.ix_(columns, columns)], self.cross[np.ix_(rows, columns)]
        return _Part(inputs, cross, self.energy[rows], self.worth[rows], self.free)

    def factors(self, rows: Floats) -> Floats:
        """[o] the best factor for every output."""
        return factors(self.inputs, self.cross, rows)[0] if self.free else np.ones(len(rows))

    def missed(self, rows: Floats) -> float:
        """The share of the layer's energy that is missed with the best factors."""
        _, spread, both = factors(self.inputs, self.cross, rows)
        a = self.factors(rows)
        return float(np.sum(self.worth * (self.energy - 2 * a * both + a * a * spread)))


def _solved(parts: Sequence[_Part], rows: Floats, start: Floats, ridge: float, by_row: bool) -> Floats:
    """[o, d] the best weight, with the factors that are best for `rows`."""
    if by_row:
        shares = [(part, part.worth, part.factors(rows)) for part in parts]
    else:  # one system for all outputs: they weigh alike, and have no factors
        shares = [(part, np.full(1, part.worth.mean()), np.ones(1)) for part in parts]
    out, count = np.empty_like(start), len(shares[0][1])
    with one_thread(start.shape[1] <= _SMALL):
        for row in range(count):
            at = slice(row, row + 1) if by_row else slice(None)
            h = sum(w[row] * a[row] ** 2 * part.inputs for part, w, a in shares)
            c = sum(w[row] * a[row] * part.cross[at] for part, w, a in shares)
            added = max(damping(h, ridge), 1e-12 * max(1.0, float(np.abs(h).max())))
            factor = cho_factor(h + added * np.eye(len(h)), lower=True)
            out[at] = cho_solve(factor, (c + added * start[at]).T).T
    return out
