"""The graph for training: both versions of a model side by side, the loss between them, and its gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto

from ...frozen import read_only
from ...model.editable_weights import Weights
from ...model.model import Model
from ...model.shapes.inference import with_shapes
from ...model.subgraphs import captures
from ...runtime.autodiff.emitter import LOSS, PREFIX, Emitter
from ...runtime.autodiff.prepare import prune, shapes_of, static_copy
from ...runtime.autodiff.reverse import PREFIX as GRADIENT
from ...runtime.autodiff.reverse import with_gradient
from ...runtime.outputs import raw_outputs
from ...runtime.session import Feeds, Session
from ...runtime.token_scores import word_scores
from .block_targets import Counterparts, Target, blocks
from .bn_affine import spell_out
from .variables import as_inputs, variables

Floats = NDArray[np.float32]
BEFORE = PREFIX + "before_"  # what tensors of the original are called in the graph


class NotTrainableError(Exception):
    """Why a model cannot be refined."""


@dataclass(frozen=True, eq=False)
class DistillationProblem:
    """`session` takes a batch of inputs and the values of `start` and gives LOSS and its gradients.

    `start`: the variables, by name, as they are before refinement. `blocks`: how many outputs of blocks are compared.
    """

    session: Session
    start: Mapping[str, Floats] = field(repr=False)
    blocks: int

    def __post_init__(self) -> None:
        read_only(self)

    def evaluate(self, values: Mapping[str, Floats], feeds: Feeds) -> tuple[float, dict[str, Floats]]:
        """The loss and its gradients, by variable."""
        kinds = {i.name: i.dtype for i in self.session.inputs}  # float32 where the model takes half precision
        given = {name: x.astype(kinds[name], copy=False) for name, x in {**feeds, **values}.items() if name in kinds}
        found = dict(zip(self.session.outputs, self.session.run(given), strict=True))
        gradients = {name: found[GRADIENT + name].reshape(x.shape) for name, x in values.items()}
        return float(found[LOSS][0]), gradients


def pose(
    original: Model,
    compressed: Model,
    shapes: Mapping[str, Sequence[int]],
    pairs: Counterparts,
    provider: str,
    mask: str = "",
) -> DistillationProblem:
    """The training problem for a batch of inputs of these `shapes`.

    The loss is the mean of |now - then|^2 / |then|^2 over the outputs of blocks and those of the model (before a final
    softmax), of texts over the words that the input `mask` shows ('': all).

    Raises:
        NotTrainableError: with the reason.
        ExecutionError: what onnx, onnx-ad or onnxruntime refuse on the way.
    """
    before, after = static_copy(original, shapes), static_copy(compressed, shapes)
    outputs = [name for name in raw_outputs(original.graph) if name in raw_outputs(compressed.graph)]
    for graph in (before.graph, after.graph):
        _check_shapes(graph, outputs)
    compared = blocks(before.graph, after.graph, pairs, outputs)
    held = Weights(compressed.proto, compressed)
    start = {name: x for name, x in variables(after.graph).items() if held.read(name) is not None}
    spell_out(after.graph)
    as_inputs(after, start)
    before = onnx.compose.add_prefix(before, BEFORE, rename_inputs=False)
    scored = word_scores(original.graph)
    shown = _Shown(mask, (shapes[mask][0], shapes[mask][1])) if mask else None
    joined = _joined(before, after, [Target(name, name, tokens=name in scored) for name in outputs], compared, shown)
    used = {name for node in joined.graph.node for name in (*node.input, *captures(node))}
    start = {name: x for name, x in start.items() if name in used}
    kept = [v for v in joined.graph.input if v.name in used]
    copies = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in kept]
    del joined.graph.input[:]
    joined.graph.input.extend(copies)
    if not start:
        raise NotTrainableError("no weight of a linear operator or a normalization is stored as floats")
    joined = with_shapes(joined)
    session = Session.of_version(with_gradient(joined, LOSS, list(start)), None, provider)
    return DistillationProblem(session, start, len(compared))


def _check_shapes(graph: GraphProto, outputs: Sequence[str]) -> None:
    """Raise NotTrainableError unless the shapes of `outputs` are known."""
    known = shapes_of(graph)
    if not all(name in known for name in outputs):
        node = next(n for n in graph.node if any(name and name not in known for name in n.output))
        raise NotTrainableError(f"no shape is known for what {node.op_type} '{node.name or node.output[0]}' makes")


@dataclass(frozen=True)
class _Shown:
    """The input that is 1 for the words of texts, and its shape (samples, words)."""

    mask: str
    shape: tuple[int, int]

    def of(self, emit: Emitter, name: str, shape: Sequence[int]) -> str:
        """The tensor `name` with zeros in what is hidden; as it is where it has no axes of samples and words."""
        samples, words = self.shape
        if tuple(shape[:2]) == self.shape and len(shape) > 2:
            like = [samples, words, *(1 for _ in shape[2:])]
        elif len(shape) > 1 and shape[0] == samples * words:
            like = [samples * words, *(1 for _ in shape[1:])]
        else:
            return name
        weights = emit.name()
        emit.graph.node.append(onnx.helper.make_node("Cast", [self.mask], [weights], to=TensorProto.FLOAT))
        return emit.op("Mul", [name, emit.op("Reshape", [weights, emit.constant(like, np.int64)])])


def _joined(
    before: ModelProto, after: ModelProto, outputs: Sequence[Target], inner: Sequence[Target], shown: _Shown | None
) -> ModelProto:
    """`after` with the nodes of `before` in front and the output LOSS."""
    known = shapes_of(before.graph)
    joined = ModelProto()
    joined.CopyFrom(after)
    graph = joined.graph
    del graph.node[:], graph.output[:]
    for part in (before.graph, after.graph):
        graph.node.extend(part.node)
    graph.initializer.extend(before.graph.initializer)
    graph.value_info.extend([*before.graph.value_info, *after.graph.output, *before.graph.output])
    emit = Emitter(graph)
    terms = [_error(emit, target, known[BEFORE + target.source], shown) for target in (*inner, *outputs)]
    emit.output(emit.op("Mul", [emit.op("Sum", terms), emit.constant([1 / len(terms)])], LOSS), [1])
    prune(graph)
    return joined


def _error(emit: Emitter, target: Target, shape: Sequence[int], shown: _Shown | None) -> str:
    """A tensor [1]: |now - then|^2 / |then|^2, of scores of tokens by their probability, of what is `shown`."""
    then = BEFORE + target.source
    if target.map is not None:
        axis, matrix = target.map.axis, target.map.matrix
        apart = [int(np.prod(shape[:axis])), shape[axis], int(np.prod(shape[axis + 1 :]))]
        flat = emit.op("Reshape", [then, emit.constant(apart, np.int64)])
        mixed = emit.op("MatMul", [emit.constant(matrix), flat])
        then = emit.op("Reshape", [mixed, emit.constant([*shape[:axis], len(matrix), *shape[axis + 1 :]], np.int64)])
    now = target.name
    if target.tokens:
        then, now = (emit.op("LogSoftmax", [name], axis=-1) for name in (then, now))
        weight = emit.op("Exp", [emit.op("Mul", [then, emit.constant([0.5])])])
        then, now = (emit.op("Mul", [weight, name]) for name in (then, now))
    if shown is not None:
        then, now = (shown.of(emit, name, shape) for name in (then, now))
    off = emit.op("Sub", [now, then])
    least = emit.constant([1e-12])
    return emit.op("Div", [_square(emit, off, shape), emit.op("Max", [_square(emit, then, shape), least])])


def _square(emit: Emitter, name: str, shape: Sequence[Any]) -> str:
    axes = emit.constant(range(len(shape)), np.int64)
    total = emit.op("ReduceSum", [emit.op("Mul", [name, name]), axes], keepdims=0)
    return emit.op("Reshape", [total, emit.constant([1], np.int64)])
