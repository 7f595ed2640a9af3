"""Residual streams under norms: which channels or directions go is measured on samples, never told by weights alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..analysis.result import OverChannels
from ..analysis.rotation import CENTERED, Stream
from ..analysis.spreads import spread, variance
from ..folding.basis import Basis, Spread, selection
from ..folding.merge import Merge
from ..folding.second_order import Elimination
from ..model.graph import Node
from ..model.model import Model
from ..runtime.segments import SegmentRunner
from ..runtime.session import Feeds

_ROWS = 4096  # of each norm that are looked at: moments of more hardly differ
_OF_GROUPS = ("GroupNormalization", "InstanceNormalization")  # of one group of all channels
_TRIED = 0.8  # of the channels kept, where the two ways to fold a stream are compared


class Narrowing(Protocol):
    """One way to fold a stream."""

    @property
    def words(self) -> str: ...
    def merge(self, keep: int) -> Merge: ...
    def curve(self) -> NDArray[np.float64]: ...


@dataclass(frozen=True, eq=False)
class Dropping:
    """Channels go, in the order that consumers refitted to the others allow."""

    size: int
    spreads: Sequence[Spread] = field(repr=False)
    found: Elimination = field(repr=False)
    words: str = "some channels were dropped"

    def merge(self, keep: int) -> Merge:
        """The merge that leaves `keep` channels."""
        gone = self.size - keep
        kept = np.setdiff1d(np.arange(self.size), self.found.order[:gone])
        return selection(kept, self.size, self.spreads, float(self.found.errors[gone]))

    def curve(self) -> NDArray[np.float64]:
        """[n + 1] the error with k channels, up to a factor; NaN where no width can be."""
        curve = np.full(self.size + 1, np.nan)
        curve[self.size - np.arange(len(self.found.errors))] = self.found.errors
        return curve


@dataclass(frozen=True, eq=False)
class Turning:
    """The basis changes, and the directions of least energy go."""

    basis: Basis
    spreads: Sequence[Spread] = field(repr=False)
    words: str = "the basis was changed, and directions of little energy were dropped"

    def merge(self, keep: int) -> Merge:
        """The merge that leaves `keep` directions."""
        return self.basis.merge(keep, self.spreads)

    def curve(self) -> NDArray[np.float64]:
        """[n + 1] the energy lost with k directions; NaN where no width can be."""
        return self.basis.lost()


def narrowings(
    streams: Mapping[str, Stream], eliminations: Mapping[str, Elimination], feeds: Sequence[Feeds]
) -> dict[str, list[Narrowing]]:
    """The ways to fold every one of `streams`, by name; none for those that samples do not reach. Raises what
    onnxruntime raises for a model that does not run."""
    found = dict[str, list[Narrowing]]()
    for name, stream in streams.items():
        spreads = measured(stream, feeds)
        ways: list[Narrowing] = []
        if spreads and name in eliminations:
            ways.append(Dropping(stream.group.size, spreads, eliminations[name]))
        if spreads and not stream.obstacle():
            ways.append(Turning(Basis.of(spreads), spreads))
        found[name] = ways
    return found


def tried_width(size: int) -> int:
    """How many of `size` channels are kept where ways are compared."""
    return max(2, round(_TRIED * size))


def measured(stream: Stream, feeds: Sequence[Feeds]) -> list[Spread]:
    """What the norms of a stream divide, on samples; empty where a norm is out of reach or sees what is not finite."""
    model, graph = stream.model, stream.model.graph
    nodes = {one.node: graph.nodes[one.node] for one in stream.norms.values()}
    if any(graph.in_body(index) for index in nodes):
        return []
    runner, found = SegmentRunner(model.proto, feeds, model.folder), list[Spread]()
    for norm in sorted(stream.norms.values(), key=lambda one: one.node):
        node = nodes[norm.node]
        names = _divided(model, node, norm)
        if not names:
            continue  # a mean that is only taken off
        have = runner.advance(norm.node, names)
        centered = bool(norm.scale) and node.op in (*CENTERED, *_OF_GROUPS)
        centered |= variance(graph, model.constants, node) is not None
        places = stream.positions(node.inputs[0], norm.axis)
        rows = (_rows(model, names, h, norm, places) for h in have)
        moments, means = _moments(rows, centered, len(feeds))
        if not np.isfinite(moments).all() or not moments.any():
            return []
        found.append(Spread(node.outputs[0], moments, centered, means))
    return found


def _divided(model: Model, node: Node, norm: OverChannels) -> list[str]:
    """The tensors whose sum a norm divides."""
    if not norm.scale:
        base = spread(model.graph, model.constants, node)
        return [base] if base else []
    if not node.op.startswith("Skip"):
        return [node.inputs[0]]
    bias = 4 if node.op in CENTERED else 3
    return [name for name in (*node.inputs[:2], *node.inputs[bias:]) if name]


def _rows(
    model: Model, names: Sequence[str], have: Mapping[str, NDArray[Any]], norm: OverChannels, places: NDArray[np.int64]
) -> NDArray[np.float64]:
    """[samples, rows, n]: what the norm sees at once, its rows over channels; their `places` [n, r] are on one axis."""
    parts = [model.constants.array(name) if name in model.constants else have[name] for name in names]
    whole = np.asarray(sum(part.astype(np.float64) for part in parts))
    whole = np.moveaxis(whole, (*norm.beside, norm.axis), range(-1 - len(norm.beside), 0))[..., places.T]
    return whole.reshape(-1, int(np.prod(whole.shape[-2 - len(norm.beside) : -1])), len(places))


def _moments(
    batches: Iterator[NDArray[np.float64]], centered: bool, count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """`Spread.moments` and `Spread.means` [n, n] of some samples of every batch; None where each has one row."""
    seen, each, single = 0, max(16, _ROWS // max(1, count)), True
    sums: NDArray[np.float64] | float = 0.0
    means: NDArray[np.float64] | float = 0.0
    for rows in batches:
        rows = rows[:: max(1, len(rows) // each)]
        rows = rows - rows.mean(axis=(1, 2), keepdims=True) if centered else rows
        size = np.sqrt(np.mean(rows**2, axis=(1, 2), keepdims=True))
        rows = np.divide(rows, size, out=np.zeros_like(rows), where=size > 0)
        mean, flat, single = rows.mean(axis=1), rows.reshape(-1, rows.shape[-1]), single and rows.shape[1] == 1
        sums, means = sums + flat.T @ flat / rows.shape[1], means + mean.T @ mean
        seen += int((size > 0).sum())
    moments, of_means = (np.asarray(one / max(1, seen), np.float64) for one in (sums, means))
    return moments, None if single else of_means
