"""Which linear nodes of a folded model are refitted, and what is known of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto
from scipy.sparse import csr_matrix

from ..analysis.axis_matrix import axis_matrix
from ..analysis.result import Analysis
from ..folding.merge import Merge
from ..model.editable_weights import Weights
from ..model.linear import Linear, linear
from ..model.model import Model
from ..model.quantized.detect import INTEGER_OPERATORS
from ..model.quantized.packing import NBITS
from ..model.subgraphs import captures
from .channel_maps import ChannelPooling
from .epilogue import Epilogue, Epilogues


@dataclass(frozen=True)
class Refittable:
    """A linear node of the folded model, the `index`-th of its graph, and what follows it.

    `pooling`: how its inputs are pooled, where it is too wide for the moments of all of them. `integers`: its weight is
    stored as integers. `shared`: other nodes have the same weight, so that what follows the node is fitted instead.
    `aim`: the tensor of the original that the sum which it joins should equal; '' for the same sum.
    """

    index: int
    proto: NodeProto
    node: Linear
    epilogue: Epilogue
    pooling: ChannelPooling | None = None
    integers: bool = False
    shared: bool = False
    aim: str = ""

    @property
    def sum(self) -> str:
        """The tensor of the original that the sum is to be like; '' where there is no sum, or it has no name."""
        return self.aim if self.epilogue.join and self.aim else self.epilogue.join

    @property
    def inputs(self) -> tuple[str, ...]:
        """The tensors of the folded model that fitting looks at."""
        return (self.node.x, self.epilogue.other) if self.epilogue.other else (self.node.x,)

    @property
    def targets(self) -> tuple[str, ...]:
        """The tensors of the original that fitting looks at."""
        total = self.sum or self.epilogue.other
        seen = (self.node.y, total, self.node.x if self.pooling is not None else "")
        return tuple(filter(None, seen))

    @property
    def has_bias(self) -> bool:
        """Whether there is, or can be, a bias; a kernel that takes integers takes none of floats."""
        present = self.node.bias or self.epilogue.mean or self.epilogue.added
        return bool(present or not (self.node.op in ("MatMul", NBITS) or self.integers))


def find_refittable(
    model: Model,
    folded: ModelProto,
    weights: Weights,
    changed: frozenset[str],
    shares: frozenset[str],
    aims: Mapping[str, str],
) -> list[Refittable]:
    """The linear nodes of `folded`, in order, that get a changed input, or one of the weights `shares`, which several
    nodes have. `changed`: tensors that differ from the original's. `aims`: see `Changes`."""
    found, touched, epilogues = list[Refittable](), set(changed), Epilogues(folded.graph, weights.read)
    used = Counter([v.name for v in folded.graph.output])
    used.update(name for node in folded.graph.node for name in (*node.input, *captures(node)))
    known = {name for node in model.proto.graph.node for name in node.output}
    for index, proto in enumerate(folded.graph.node):
        value = weights.read(proto.input[1]) if len(proto.input) > 1 else None
        node = linear(proto, value.shape) if value is not None else None
        if node is not None and node.y in known:
            shared = weights.uses(node.weight) > 1
            ours = not shared or node.weight in shares
            if node.bias:
                ours = ours and used[node.bias] == 1 and weights.read(node.bias) is not None
            if ours and (node.x in touched or shared):
                epilogue, stored = epilogues.epilogue(node), node.weight in weights.integers.stored
                aim = aims.get(epilogue.join, "")
                found.append(Refittable(index, proto, node, epilogue, integers=stored, shared=shared, aim=aim))
        if any(name in touched for name in (*proto.input, *captures(proto))):
            touched.update(filter(None, proto.output))
    return found


def on_integers(folded: ModelProto, changed: frozenset[str]) -> list[str]:
    """The outputs of nodes that take weights as integers, of which one input or the weight is in `changed`."""
    nodes = {node.output[0]: (node, INTEGER_OPERATORS.get((node.domain, node.op_type))) for node in folded.graph.node}
    return [y for y, (n, one) in nodes.items() if one is not None and one.computes and changed.intersection(n.input)]


def originals(model: Model, outputs: Sequence[str]) -> dict[str, Linear]:
    """The linear nodes of the original that make `outputs`, as they were."""
    wanted, found = set(outputs), dict[str, Linear]()
    for node in model.proto.graph.node:
        if wanted.intersection(node.output):
            shape = model.graph.tensor(node.input[1]).shape or ()
            one = linear(node, [d for d in shape if isinstance(d, int)])
            found.update({} if one is None else {one.y: one})
    return found


def touched(analysis: Analysis, merges: Mapping[str, Merge]) -> frozenset[str]:
    """The tensors, weights and activations, that merges make narrower."""
    return frozenset(p.tensor for g in analysis.groups if g.name in merges for p in g.places)


def output_matrix(analysis: Analysis, merges: Mapping[str, Merge], node: Linear) -> csr_matrix | None:
    """[new, old] for the channels of the node's output, None where they stay as they are."""
    groups = [(p, merges[g.name]) for g in analysis.groups if g.name in merges for p in g.places if p.tensor == node.y]
    return axis_matrix(analysis, groups, node.y) if groups else None
