"""Which bodies of If, Loop and Scan run: a copy of the model in which each of them leaves a mark.

Every body gives one more tensor to its owner: a flag for every body of the model, set where that body ran. Loop and
Scan carry it from turn to turn; the model's only output is what all owners of the main graph say together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from ..model.model import Model
from ..model.subgraphs import BODY_OPERATORS, DEFAULT_DOMAINS, Body, opened, subgraphs
from .session import Feeds, Session

MARKS = "onnxfold:marks"  # how all names begin that the copy has in addition
_NONE = f"{MARKS}:none"
_SCAN = 9  # the opset from which Scan has no batches, and state that can be added to


class Watch:
    """Tells which of a model's `opened` bodies run, by their number. Raises ExecutionError where the model does not."""

    def __init__(self, model: Model) -> None:
        self._session = Session.of_version(watched(model.proto), model.folder)

    @property
    def session(self) -> Session:
        """Where the model runs; it has the inputs of the original."""
        return self._session

    def bodies(self, feeds: Feeds) -> frozenset[int]:
        """The bodies that run on these inputs, once at least."""
        (marks,) = self._session.run(feeds)
        return frozenset(np.flatnonzero(marks).tolist())


def watched(proto: ModelProto) -> ModelProto:
    """A copy of `proto` whose only output says of each opened body whether it ran."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    copy.ir_version = max(proto.ir_version, 4)  # from 4 on initializers need not be inputs
    bodies = opened(copy)
    scan = max((o.version for o in copy.opset_import if o.domain in DEFAULT_DOMAINS), default=1) >= _SCAN
    marking = _Marking(bodies, scan)
    result = marking.mark(copy.graph, [_NONE])
    del copy.graph.output[:]
    copy.graph.output.append(marking.flags(result))
    marks = np.eye(len(bodies), dtype=np.bool_)
    copy.graph.initializer.append(numpy_helper.from_array(np.zeros(len(bodies), np.bool_), _NONE))
    copy.graph.initializer.extend(numpy_helper.from_array(mark, _mark(at)) for at, mark in enumerate(marks))
    return copy


class _Marking:
    """Adds flags to graphs, in place, inner ones first. `scan`: whether also to bodies of Scan."""

    def __init__(self, bodies: list[Body], scan: bool) -> None:
        self._bodies, self._made = bodies, 0
        self._operators = [op for op in BODY_OPERATORS if scan or op != "Scan"]

    def mark(self, graph: GraphProto, given: list[str]) -> str:
        """The tensor of `graph` that has the flags of `given` and of all that runs in it."""
        flags = [*given, *(self._owner(node) for node in list(graph.node) if self._owns(node))]
        result = self._name()
        graph.node.append(helper.make_node("Identity", flags[:1], [result]))
        for flag in flags[1:]:
            both, result = [result, flag], self._name()
            graph.node.append(helper.make_node("Or", both, [result]))
        return result

    def _owns(self, node: NodeProto) -> bool:
        mine = node.op_type in self._operators and node.domain in DEFAULT_DOMAINS
        return mine and any(self._number(body) is not None for body in subgraphs(node))

    def _owner(self, node: NodeProto) -> str:
        """The output of an If, Loop or Scan that has the flags of its bodies."""
        place, result = _place(node), self._name()
        if place.carried is not None:
            node.input.insert(place.carried, _NONE)
        for body in subgraphs(node):
            given = [self._mark(body)]
            if place.carried is not None:
                given.append(self._name())
                body.input.insert(place.carried, self.flags(given[1]))
            made = self.mark(body, given)
            body.output.insert(place.inside, self.flags(made))
        node.output.insert(place.outside, result)
        return result

    def _mark(self, body: GraphProto) -> str:
        """The flags in which that of `body` alone is set; none where it is not opened."""
        number = self._number(body)
        return _NONE if number is None else _mark(number)

    def _number(self, body: GraphProto) -> int | None:
        return next((at for at, one in enumerate(self._bodies) if one.graph is body), None)

    def flags(self, name: str) -> ValueInfoProto:
        """The type of a tensor of flags."""
        return helper.make_tensor_value_info(name, TensorProto.BOOL, [len(self._bodies)])

    def _name(self) -> str:
        self._made += 1
        return f"{MARKS}:{self._made}"


@dataclass(frozen=True)
class _Place:
    """Where flags go: among the inputs of the owner and of its body (None: not carried from turn to turn), among the
    outputs of its body (`inside`), and among its own (`outside`)."""

    carried: int | None
    inside: int
    outside: int


def _place(node: NodeProto) -> _Place:
    """Flags are the last of what If gives, and of what Loop and Scan carry."""
    if node.op_type == "If":
        return _Place(None, len(node.output), len(node.output))
    if node.op_type == "Loop":  # the count, the condition, what it carries
        states = len(node.input) - 2
        return _Place(2 + states, 1 + states, states)
    states = len(node.input) - next(a.i for a in node.attribute if a.name == "num_scan_inputs")
    return _Place(states, states, states)


def _mark(number: int) -> str:
    return f"{MARKS}:body{number}"
