"""The scale of a weight whose operator gives integers (MatMulInteger, ConvInteger): nodes behind it apply that."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray

from ..graph import Graph, Node

Array = NDArray[Any]


class Fixed(Protocol):
    """What is needed of a model's constants: the names of all, and their arrays as they are stored."""

    def __contains__(self, name: str) -> bool: ...
    def stored_array(self, name: str) -> Array: ...


def scale_behind(graph: Graph, fixed: Fixed, node: Node) -> tuple[str, int] | None:
    """Where the scale of a weight is whose operator gives integers: what makes floats of these is multiplied by it, or
    by it times the scale of the input. The first output of the node that holds it, and at which input."""
    cast = _only_consumer(graph, node.outputs[0])
    if cast is None or cast.op != "Cast":
        return None
    tensor, product = cast.outputs[0], _only_consumer(graph, cast.outputs[0])
    while product is not None and product.op == "Mul" and not product.domain:
        slot = 1 - product.inputs.index(tensor)
        factor = product.inputs[slot]
        if factor not in fixed:
            made = graph.producer.get(factor)
            scaled = graph.nodes[made] if made is not None else None
            if scaled is not None and scaled.op == "Mul" and _only_consumer(graph, factor) is product:
                held = next((i for i, name in enumerate(scaled.inputs) if name in fixed), None)
                if held is not None and _scales(fixed, node, scaled.inputs[held]):
                    return scaled.outputs[0], held
        elif _scales(fixed, node, factor):
            return product.outputs[0], slot
        tensor, product = product.outputs[0], _only_consumer(graph, product.outputs[0])
    return None


def _only_consumer(graph: Graph, tensor: str) -> Node | None:
    """The node that uses a tensor, where nothing else does."""
    consumers = graph.consumers.get(tensor, ())
    captured = any(tensor in node.captures for node in graph.nodes)
    alone = len(set(consumers)) == 1 and tensor not in graph.outputs and not captured
    node = graph.nodes[consumers[0]] if alone else None
    return node if node is not None and node.inputs.count(tensor) == 1 else None


def _scales(fixed: Fixed, node: Node, name: str) -> bool:
    """Whether a constant multiplies all that a node gives by one number, or by one for each of its channels."""
    scale, weight = fixed.stored_array(name), fixed.stored_array(node.inputs[1])
    axis = -1 if node.op == "MatMulInteger" else 1 - weight.ndim
    return scale.size == 1 or (scale.ndim >= -axis and scale.shape[axis] == scale.size)


def held(graph: Graph, place: tuple[str, int]) -> str:
    """The tensor at a place that `scale_behind` found."""
    return graph.nodes[graph.producer[place[0]]].inputs[place[1]]
