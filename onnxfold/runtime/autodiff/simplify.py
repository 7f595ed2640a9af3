"""A gradient graph without its seed axis: onnx-ad gives every adjoint one more axis at the end, of length 1 here.

Reshapes between the two forms keep onnxruntime from computing neighbors in its own layout, and every one is a call. So
nodes that only change a shape are followed back to what they reshape, element-wise operators work without that axis,
and Reshape is written only where another shape is really needed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from ...errors import ExecutionError
from ...model.shapes.inference import with_shapes
from ...model.subgraphs import captures
from .prepare import shapes_of

_RESHAPE = frozenset(("Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity"))
_SAME_SIZE = frozenset(("Expand", "ReduceSum"))  # these too, if the number of elements stays
_ELEMENTWISE = frozenset(("Add", "Sub", "Mul", "Div", "Sum", "Neg"))
_DEFAULT = ("", "ai.onnx")
Shape = tuple[int, ...]


def without_seed_axis(model: ModelProto) -> None:
    """Rewrite the main graph of `model` (a gradient, one seed), in place; its inputs and outputs stay as they are."""
    try:
        inferred = with_shapes(model)
    except ExecutionError:  # slower, but as right
        return
    graph = model.graph
    shapes = shapes_of(inferred.graph) | {t.name: tuple(t.dims) for t in graph.initializer}
    exact = {v.name for v in graph.output}.union(*(captures(node) for node in graph.node))
    rewriter = _Rewriter(shapes, {v.name for v in graph.input})
    for node in graph.node:
        rewriter.add(node, exact)
    nodes = [NodeProto.FromString(n.SerializeToString()) for n in rewriter.nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(rewriter.constants(graph))


class _Rewriter:
    """The new `nodes`. `_root`: by name of a tensor that is another one in another shape, that other one."""

    def __init__(self, shapes: Mapping[str, Shape], taken: set[str]) -> None:
        self.nodes: list[NodeProto] = []
        self._shapes, self._taken = dict(shapes), taken | set(shapes)
        self._root: dict[str, str] = {}
        self._made: dict[tuple[str, Shape], str] = {}
        self._targets: dict[Shape, str] = {}

    def add(self, node: NodeProto, exact: set[str]) -> None:
        """Add a node, or what stands for it. Tensors in `exact` must exist under their own names."""
        if node.domain in _DEFAULT and self._only_reshapes(node):
            name = node.output[0]
            self._root[name] = self._root.get(node.input[0], node.input[0])
            if name in exact:
                self._put(node)
        elif node.domain in _DEFAULT and node.op_type in _ELEMENTWISE and self._has_axis_to_lose(node, exact):
            self._put_without_axis(node)
        else:
            self._put(node)

    def constants(self, graph: GraphProto) -> list[onnx.TensorProto]:
        """The targets of Reshape that the new nodes need."""
        known = {t.name for t in graph.initializer}
        named = ((name, shape) for shape, name in self._targets.items() if name not in known)
        return [numpy_helper.from_array(np.array(shape, np.int64), name) for name, shape in named]

    def _only_reshapes(self, node: NodeProto) -> bool:
        if node.op_type not in _RESHAPE | _SAME_SIZE or not {node.input[0], node.output[0]} <= self._shapes.keys():
            return False
        before, after = self._shapes[node.input[0]], self._shapes[node.output[0]]
        return node.op_type in _RESHAPE or (np.prod(before) == np.prod(after) > 0)

    def _has_axis_to_lose(self, node: NodeProto, exact: set[str]) -> bool:
        names = [*node.input, *node.output]
        if not all(name in self._shapes for name in names) or exact.intersection(node.output):
            return False
        shapes = [self._shapes[name] for name in names]
        return len(shapes[-1]) > 1 and all(shape[-1:] in ((), (1,)) for shape in shapes)

    def _put_without_axis(self, node: NodeProto) -> None:
        name = node.output[0]
        shape = self._shapes[name][:-1]
        short = self._name(f"{name}_plain")
        inputs = [self._shaped(n, self._shapes[n][:-1]) for n in node.input]
        while node.op_type == "Sum" and len(inputs) > 2:
            made = self._name(f"{short}_part")
            self.nodes.append(helper.make_node("Add", [inputs.pop(), inputs.pop()], [made]))
            inputs.append(made)
        kind = "Add" if len(inputs) == 2 and node.op_type == "Sum" else node.op_type
        self.nodes.append(helper.make_node(kind, inputs, [short]))
        self._shapes[short] = shape
        self._root[name] = short

    def _put(self, node: NodeProto) -> None:
        copy = NodeProto.FromString(node.SerializeToString())
        for at, name in enumerate(node.input):
            if name in self._root:
                copy.input[at] = self._shaped(name, self._shapes[name])
        self.nodes.append(copy)

    def _shaped(self, name: str, shape: Shape) -> str:
        """The numbers of tensor `name` in this shape."""
        root = self._root.get(name, name)
        if self._shapes[root] == shape:
            return root
        if (root, shape) not in self._made:
            made = self._name(f"{root}_shaped")
            target = self._targets.setdefault(shape, f"onnxfold_shape_{'_'.join(map(str, shape))}")
            self.nodes.append(helper.make_node("Reshape", [root, target], [made]))
            self._shapes[made] = shape
            self._made[root, shape] = made
        return self._made[root, shape]

    def _name(self, wanted: str) -> str:
        name, count = wanted, 0
        while name in self._taken:
            name, count = f"{wanted}{count}", count + 1
        self._taken.add(name)
        return name
