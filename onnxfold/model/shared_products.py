"""Products of constants whose weight also serves a layer: the keys of a table of positions, made by the key projection.

As a constant such a product would have to be stored in full when the weight changes, once for every layer. So it is
taken for what it is, something that the graph computes when it runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from .graph import Graph, Node

_PRODUCTS = ("MatMul", "Gemm")
_FORMS = ("Identity", "Transpose", "Cast", "Reshape", "Squeeze", "Unsqueeze")


def shared_products(graph: Graph, constants: Collection[str]) -> frozenset[int]:
    """The nodes, by index, of such products among `constants`, names of all that is constant."""
    made = [n for n in graph.nodes if n.op in _PRODUCTS and not n.domain and n.outputs[0] in constants]
    roots = {node.index: [_root(graph, name) for name in node.inputs[:2]] for node in made}
    return frozenset(i for i, names in roots.items() if any(_serves(graph, constants, name) for name in names))


def _root(graph: Graph, name: str) -> str:
    """The tensor of which `name` is another form."""
    while (index := graph.producer.get(name)) is not None and _is_form(graph.nodes[index]):
        name = graph.nodes[index].inputs[0]
    return name


def _serves(graph: Graph, constants: Collection[str], name: str) -> bool:
    """Whether a node that computes on data uses a constant, in this form or another."""
    return any(user.outputs[0] not in constants for user in _users(graph, name))


def _users(graph: Graph, name: str) -> Iterator[Node]:
    for index in graph.consumers.get(name, ()):
        node = graph.nodes[index]
        if _is_form(node) and node.inputs[0] == name:
            yield from _users(graph, node.outputs[0])
        else:
            yield node


def _is_form(node: Node) -> bool:
    return node.op in _FORMS and not node.domain
