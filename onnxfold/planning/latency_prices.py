"""What a plan will take of the latency on this machine: from the time of each layer at a few widths, measured alone."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from onnx import TensorProto

from ..analysis.costs import Costs, Dim, Dims, macs_of
from ..errors import ExecutionError
from ..evaluation.latency import Profiler
from ..evaluation.layer_times import Layer, Surface, surfaces
from ..model.graph import Graph, Node
from ..model.leftovers import scratch_folder
from ..runtime.session import brief
from .allocation import Width, round_width
from .group_layout import GroupLayout

_SMALL = 0.005  # of the time of a run: what less is spent on goes with the activations of all layers
_PREFIX = "Fused"  # of operators that onnxruntime makes of several

_log = logging.getLogger(__name__)
Lengths = Mapping[Dim, int]


@dataclass(frozen=True)
class _Measured:
    """A layer whose time is known at several widths, and the axes that these are."""

    surface: Surface
    outputs: Dim
    inputs: Dim


@dataclass(frozen=True)
class _Kind:
    """What onnxruntime spends on one operator in a run: `scale` times what its layers take alone. Those that were
    `measured` are known at other widths; of the rest, products of lengths with the milliseconds per unit of each."""

    scale: float
    measured: tuple[_Measured, ...]
    products: tuple[tuple[float, Dims], ...]

    def expected(self, prices: Costs, lengths: Lengths) -> float:
        """In milliseconds."""
        length = prices.length
        layers = (one.surface.at(length(one.outputs, lengths), length(one.inputs, lengths)) for one in self.measured)
        others = (each * math.prod(length(dim, lengths) for dim in term) for each, term in self.products)
        return self.scale * (sum(layers) + sum(others))


@dataclass(frozen=True, eq=False)
class LatencyPrices:
    """The share of the latency that a plan leaves, expected: by kind of operator, in proportion to the time of all its
    layers, each as it was measured alone at these widths. `whole`: milliseconds of the original."""

    prices: Costs = field(repr=False)
    kinds: tuple[_Kind, ...] = field(repr=False)
    whole: float

    def share(self, lengths: Lengths) -> float:
        """For changed axis `lengths`."""
        return sum(one.expected(self.prices, lengths) for one in self.kinds) / self.whole


def latency_prices(
    layout: GroupLayout, prices: Costs, profiler: Profiler, widths: Sequence[Width], round_to: int
) -> LatencyPrices | None:
    """Measured on the CPU, in the time of about fifty runs of the model; None where that tells nothing: another device
    counts, weights are stored in few bits, or something of it does not run alone.

    Raises RequestError where the original cannot be timed.
    """
    if not profiler.is_here or layout.model.constants.stored:
        return None
    halved = {w.name: k for w in widths if (k := round_width(w, w.size / 2, round_to)) < w.size}
    changed = layout.lengths(halved)
    layers = dict(_layers(layout.model.graph, prices))
    try:
        with scratch_folder() as folder:
            times = profiler.operators(folder)
            found = surfaces([(one, out in changed, into in changed) for one, out, into in layers.values()], folder)
    except ExecutionError as error:
        _log.debug("layers cannot be timed alone (%s): latency is taken to follow the MACs", brief(error))
        return None
    measured = {n: _Measured(found[one], out, into) for n, (one, out, into) in layers.items()}
    kinds = tuple(_kinds(layout.model.graph.nodes, prices, times, measured))
    return LatencyPrices(prices, kinds, sum(times.values())) if measured and kinds else None


def _layers(graph: Graph, prices: Costs) -> Iterator[tuple[int, tuple[Layer, Dim, Dim]]]:
    """By number of its node, every layer that can be timed alone, and the axes of its weight that are its outputs and
    inputs."""
    for number, node in enumerate(graph.nodes):
        if node.op not in ("Conv", "MatMul", "Gemm") or node.domain not in ("", "ai.onnx"):
            continue
        x, w = node.inputs[:2]
        shapes = prices.shapes.get(x, ()), prices.shapes.get(w, ())
        floats = {graph.tensor(name).dtype for name in (x, w)} == {TensorProto.FLOAT}
        if not floats or graph.producer.get(w) is not None or not all(map(all, shapes)) or not all(shapes):
            continue
        if len(shapes[1]) < 3 if node.op == "Conv" else len(shapes[1]) != 2 or node.attrs.get("transA"):
            continue
        named = ((key, tuple(v) if isinstance(v, list) else v) for key, v in node.attrs.items())
        layer = Layer(node.op, tuple(sorted(named)), *shapes)
        first, second = (w, 0), (w, 1)
        yield number, (layer, *((first, second) if layer.transposed else (second, first)))


def _kinds(
    nodes: Sequence[Node], prices: Costs, times: Mapping[str, float], measured: Mapping[int, _Measured]
) -> Iterator[_Kind]:
    small, least = 0.0, _SMALL * sum(times.values())
    for op, milliseconds in times.items():
        mine = [n for n, node in enumerate(nodes) if node.op == op.removeprefix(_PREFIX)]
        found = _kind(milliseconds, nodes, mine, prices, measured) if milliseconds >= least else None
        small += milliseconds if found is None else 0.0
        yield from () if found is None else (found,)
    found = _kind(small, nodes, [n for n in measured], prices, {})
    yield from () if found is None else (found,)


def _kind(
    milliseconds: float, nodes: Sequence[Node], mine: Sequence[int], prices: Costs, measured: Mapping[int, _Measured]
) -> _Kind | None:
    """What the nodes `mine` take together; None where nothing is known of them."""
    layers = [(measured[n], nodes[n]) for n in mine if n in measured]
    alone = sum(one.surface.at(prices.length(one.outputs, {}), prices.length(one.inputs, {})) for one, _ in layers)
    work = sum(_size(_work(node, prices), prices) for _, node in layers)
    each = alone / work if alone and work else 1.0
    products = [(each, term) for n in mine if n not in measured and (term := _work(nodes[n], prices))]
    found = _Kind(1.0, tuple(one for one, _ in layers), tuple(products))
    base = found.expected(prices, {})
    return replace(found, scale=milliseconds / base) if base > 0 else None


def _work(node: Node, prices: Costs) -> Dims:
    """What the time of a node follows: its MACs, or the numbers that it makes."""
    made = node.outputs[0] if node.outputs else ""
    whole = tuple((made, axis) for axis in range(len(prices.shapes.get(made, ()))))
    return next(iter(macs_of(node, prices.shapes)), whole)


def _size(term: Dims, prices: Costs) -> int:
    return math.prod(prices.length(dim, {}) for dim in term)
