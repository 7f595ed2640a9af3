"""How large models are, before and after."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto

from ..analysis.costs import Costs, Size, costs, count_parameters
from ..analysis.peak_memory import peak_memory
from ..errors import ModelError
from ..model.model import Model, load
from .base import State

Lengths = Mapping[tuple[str, int], int]  # of axes that changed


def size_of(model: Model, prices: Costs) -> Size:
    """The size of a model as it is."""
    return Size(model.size, count_parameters(model.proto), prices.macs({}), peak_memory(model, prices))


def size_written(state: State, prices: Costs, lengths: Lengths) -> Size:
    """The size of the file that was staged, a fold of the source (of which `prices` are) to the axis `lengths`."""
    assert state.staged is not None
    parameters, macs = count_parameters(state.current.proto), prices.macs(lengths)
    return Size(state.staged.size, parameters, macs, _peak_written(state, prices, lengths))


def _peak_written(state: State, prices: Costs, lengths: Lengths) -> int | None:
    """By the axis lengths where the graph has the nodes that it had; else by the file."""
    if _nodes(state.current.proto) == _nodes(state.source.proto) or state.known.streamed:
        return peak_memory(state.source, prices, lengths)
    assert state.staged is not None
    try:
        written = load(state.staged.path)
    except ModelError:  # the verdict says what is wrong with it
        return None
    return peak_memory(written, costs(written, state.shapes))


def _nodes(proto: ModelProto) -> list[tuple[str, list[str]]]:
    return [(node.op_type, list(node.output)) for node in proto.graph.node]
