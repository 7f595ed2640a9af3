"""Running a model in segments, in graph order: activations are looked at, and later weights may still change.

A segment is a slice of the nodes, run by onnxruntime as a model of its own on the activations that are alive where it
begins. One walk from start to end costs one inference, however many stops it makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto

from ..model.constants import RANDOM
from ..model.subgraphs import captures
from ..progress import steps
from .session import Feeds, Session, fitted

Live = dict[str, Any]


class SegmentRunner:
    """One pass over the nodes of `proto` with several batches of feeds; see `advance`.

    `proto` is read segment by segment: initializers changed or added ahead of the walk take effect. Tensors in `hold`
    stay alive to the end.
    """

    def __init__(
        self, proto: ModelProto, feeds: Sequence[Feeds], folder: Path | None = None, hold: Iterable[str] = ()
    ) -> None:
        self.proto, self.position = proto, 0
        self._folder = folder
        graph = proto.graph
        weights = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
        self._fixed: dict[str, int] = {}  # constants made by nodes: each segment computes what it needs of them
        for index, node in enumerate(graph.node):
            needs = [*filter(None, node.input), *captures(node)]
            if all(name in weights or name in self._fixed for name in needs) and node.op_type not in RANDOM:
                self._fixed.update(dict.fromkeys(filter(None, node.output), index))
        self._last: dict[str, int] = {}
        for index, node in enumerate(graph.node):
            for name in (*node.input, *captures(node)):
                if name and name not in weights and name not in self._fixed:
                    self._last[name] = index
        self._last.update(dict.fromkeys(hold, len(graph.node)))
        self._given = {v.name: dims(v) for v in graph.input}
        self._live: list[Live] = [
            {k: v for k, v in fitted(feed, self._given).items() if k in self._given} for feed in feeds
        ]

    def advance(self, stop: int, wanted: Iterable[str] = ()) -> list[dict[str, NDArray[Any]]]:
        """Run the nodes up to `stop` (exclusive) and hand back, per batch, those tensors of `wanted` that this makes,
        or that are alive already. Raises what onnxruntime raises."""
        nodes = self.proto.graph.node
        start, self.position = self.position, max(stop, self.position)
        made = {name for node in nodes[start:stop] for name in node.output if name and name not in self._fixed}
        asked = set(wanted)
        after = [name for name in made if self._last.get(name, -1) >= stop or name in asked]
        found: list[dict[str, NDArray[Any]]] = [{} for _ in self._live]
        if after:
            session = self._session(start, stop, after)
            for live in steps("running the model", self._live):
                feeds = {i.name: live[i.name] for i in session.inputs}
                for name, value in zip(session.outputs, session.run(feeds), strict=True):
                    live[name] = value
        for number, live in enumerate(self._live):
            found[number] = {name: live[name] for name in asked if name in live}
            for name in [name for name in live if self._last.get(name, -1) < stop]:
                del live[name]
        return found

    def fork(self, proto: ModelProto) -> SegmentRunner:
        """Another walk from here, over a version of the model whose nodes and weights are the same up to here."""
        other = SegmentRunner(proto, [], self._folder)
        other.position = self.position
        for live in self._live:
            inputs = {name: value for name, value in live.items() if name in other._given}
            other._live.append({**live, **fitted(inputs, other._given)})
        return other

    def _session(self, start: int, stop: int, after: Sequence[str]) -> Session:
        chosen: list[int] = [i for i in range(start, stop) if not self._is_fixed(i)]
        nodes = [self.proto.graph.node[i] for i in [*self._constants(chosen), *chosen]]
        part = segment(self.proto, nodes, after, lambda name: _typed(name, self._live[0][name]))
        return Session.of_version(part, self._folder)

    def _is_fixed(self, index: int) -> bool:
        outputs = [name for name in self.proto.graph.node[index].output if name]
        return bool(outputs) and outputs[0] in self._fixed

    def _constants(self, chosen: Sequence[int]) -> list[int]:
        """The nodes that make the constants which these nodes need, in graph order."""
        found: set[int] = set()
        waiting: list[NodeProto] = [self.proto.graph.node[i] for i in chosen]
        while waiting:
            node = waiting.pop()
            for name in (*node.input, *captures(node)):
                index = self._fixed.get(name)
                if index is not None and index not in found:
                    found.add(index)
                    waiting.append(self.proto.graph.node[index])
        return sorted(found)


def segment(
    proto: ModelProto, nodes: Sequence[NodeProto], outputs: Sequence[str], typed: Callable[[str], onnx.ValueInfoProto]
) -> ModelProto:
    """A model of some `nodes` of the main graph of `proto`; what others of them compute is an input, `typed`."""
    graph = proto.graph
    own = {name for node in nodes for name in node.output}
    needed = dict.fromkeys(n for node in nodes for n in (*node.input, *captures(node)) if n and n not in own)
    part = ModelProto(ir_version=max(proto.ir_version, 4))  # from 4 on initializers need not be inputs
    part.opset_import.extend(proto.opset_import)
    part.functions.extend(proto.functions)
    part.graph.name = graph.name or "segment"
    part.graph.node.extend(nodes)
    weights = {t.name: t for t in graph.initializer}
    sparse = {t.values.name: t for t in graph.sparse_initializer}
    for name in needed:
        if name in weights:
            part.graph.initializer.append(weights[name])
        elif name in sparse:
            part.graph.sparse_initializer.append(sparse[name])
        else:
            part.graph.input.append(typed(name))
    for name in outputs:
        part.graph.output.add(name=name)
    return part


def dims(value: onnx.ValueInfoProto) -> list[int | None]:
    """The declared dimensions of an input or output; None for those that are open."""
    return [d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim]


def _typed(name: str, value: Any) -> onnx.ValueInfoProto:
    """An input of the type of `value`, its shape left open."""
    if isinstance(value, list):
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.asarray(value[0]).dtype) if value else TensorProto.FLOAT
        return onnx.helper.make_tensor_sequence_value_info(name, kind, None)
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(np.asarray(value).dtype), None)
