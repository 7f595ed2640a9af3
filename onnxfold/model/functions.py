"""What a model's functions come to once every call is replaced by the nodes it stands for: counted, not made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter

from onnx import ModelProto, NodeProto

from ..errors import ModelError
from ..units import in_bytes, in_units
from .subgraphs import DEFAULT_DOMAINS, subgraphs

MOST_NODES = 1_000_000
# what is suspicious where the file holds only a small part of it
SOME_NODES, NODES_TIMES = 50_000, 100
SOME_BYTES, BYTES_TIMES = 2**28, 10
_Key = tuple[str, str, str]


def check_functions(proto: ModelProto, what: str) -> None:
    """Raise ModelError for functions that call themselves, or that come to far more nodes or bytes than the file holds.

    onnx and onnxruntime put every call's nodes in its place, whatever that takes: forty functions that each call the
    next one twice are a million millions.
    """
    if not proto.functions:
        return
    keys = [_key(f.domain, f.name, f.overload) for f in proto.functions]
    bodies = {key: list(_every(function.node)) for key, function in zip(keys, proto.functions, strict=True)}
    calls = {key: Counter(filter(bodies.__contains__, map(_called, nodes))) for key, nodes in bodies.items()}
    try:
        order = list(TopologicalSorter({key: set(found) for key, found in calls.items()}).static_order())
    except CycleError as error:
        domain, name, _ = error.args[1][0]
        raise ModelError(
            f"{what}: its function '{name}' of domain '{domain}' calls itself, by itself or through others: export the "
            "model again"
        ) from None
    nodes, size = dict[_Key, int](), dict[_Key, int]()
    for key in order:
        inner = calls[key].items()
        nodes[key] = len(bodies[key]) + sum(times * nodes[one] for one, times in inner)
        size[key] = sum(node.ByteSize() for node in bodies[key]) + sum(times * size[one] for one, times in inner)
    main = list(_every(proto.graph.node))
    called_first = Counter(filter(bodies.__contains__, map(_called, main)))
    held = len(main) + sum(map(len, bodies.values()))
    total = len(main) + sum(times * nodes[one] for one, times in called_first.items())
    if total > MOST_NODES or total > max(SOME_NODES, NODES_TIMES * held):
        raise ModelError(
            f"{what} has {held} nodes, which its functions' calls of each other turn into {_count(total)}: too many to "
            "run (call fewer functions, or export the model again without functions)"
        )
    room = max(SOME_BYTES, BYTES_TIMES * proto.ByteSize())
    more = sum(times * size[one] for one, times in called_first.items())
    if more > room:
        raise ModelError(
            f"{what} has functions whose calls come to {in_bytes(more)} of constants and nodes: too much to run (let "
            "functions take weights as inputs)"
        )


def _key(domain: str, name: str, overload: str) -> _Key:
    return "" if domain in DEFAULT_DOMAINS else domain, name, overload


def _called(node: NodeProto) -> _Key:
    return _key(node.domain, node.op_type, node.overload)


def _every(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """`nodes` and those of their bodies."""
    for node in nodes:
        yield node
        for body in subgraphs(node):
            yield from _every(body.node)


def _count(n: int) -> str:
    return in_units(n) if n < 10**12 else f"more than 10^{len(str(n)) - 1}"
