"""Small models written as text, and the two oracles as assertions."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnx.defs
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, parser

from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.costs import count_parameters
from onnxfold.analysis.groups import ChannelGroup
from onnxfold.analysis.result import Analysis
from onnxfold.folding.merge import Merge, folding, pruning
from onnxfold.model.graph import plain_domains
from onnxfold.model.model import Model, load
from onnxfold.runtime.probe_inputs import index_limits, probe
from onnxfold.runtime.session import Session
from onnxfold.testing import duplicate, permute
from onnxfold.transform.edits import edits
from onnxfold.transform.emit import emit

EXACT_PERMUTE_RTOL = 1e-5  # float32, sums in another order; measured 2e-7 on the small models, 1e-6 on VGG-19
EXACT_FOLD_RTOL = 1e-5  # float32, reordered sums, and means of equal numbers; measured 2e-7, 1.1e-6 on VGG-19
CONTROL = 1e-3  # what the oracles must show when one parameter is left out on purpose; measured 8e-3 and more
OLDEST_OPSET = 7

Array = NDArray[Any]


def model(
    text: str,
    weights: Mapping[str, Sequence[int]] | None = None,
    values: Mapping[str, Any] | None = None,
    opset: int = 17,
    ir_version: int = 8,
    seed: int = 0,
    batch: str | int = "N",
) -> ModelProto:
    """A model from the text of its graph, ``(float[N,3,6,6] x) => (float y) { y = Conv(x, w) }``.

    `weights` (name -> shape) become random float32 initializers, those called var... or scale... positive; `values` are
    initializers as given (integers as int64, floats as float32). Outputs may leave out their shape. `batch` replaces N.
    """
    text = re.sub(r"\bN\b(?!=)", str(batch), text)
    domains = '"" : %d, "com.microsoft" : 1' % opset  # noqa: UP031 (braces are part of the text format)
    domains += ', "ai.onnx.ml" : 1' if "ai.onnx.ml." in text else ""
    header = f"<ir_version: {ir_version}, opset_import: [{domains}]>"
    proto = parser.parse_model(f"{header} agraph {text}")
    rng = np.random.default_rng(seed)
    arrays = {name: random_weight(name, shape, rng) for name, shape in (weights or {}).items()}
    for name, value in (values or {}).items():
        array = np.asarray(value)
        arrays[name] = array.astype({"i": np.int64, "f": np.float32}.get(array.dtype.kind, array.dtype))
    for name, array in arrays.items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    if ir_version < 4:
        as_inputs(proto, arrays)
    for output in proto.graph.output:
        if not output.type.tensor_type.shape.dim:
            output.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    del proto.graph.output[:]
    proto.graph.output.extend(inferred.graph.output)
    return proto


def random_weight(name: str, shape: Sequence[int], rng: np.random.Generator) -> Array:
    """Normal, of variance 1 / fan-in; positive for scales and variances."""
    if name.startswith(("var", "scale")):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    fan_in = max(1, int(np.prod(shape[1:])))
    return (rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)


def as_inputs(proto: ModelProto, names: Mapping[str, Any] | Sequence[str]) -> ModelProto:
    """The initializers `names` listed as graph inputs too: as ir_version 3 asks for; later, those one may override."""
    for tensor in proto.graph.initializer:
        if tensor.name in names:
            proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return proto


def as_constant_nodes(proto: ModelProto, names: Sequence[str]) -> ModelProto:
    """The initializers `names` moved into Constant nodes in front."""
    moved = [t for t in proto.graph.initializer if t.name in names]
    rest = list(proto.graph.node)
    del proto.graph.node[:]
    for tensor in moved:
        proto.graph.node.append(helper.make_node("Constant", [], [tensor.name], value=tensor))
        proto.graph.initializer.remove(tensor)
    proto.graph.node.extend(rest)
    return proto


@functools.cache
def newest_opset() -> int:
    """The newest opset that the installed onnxruntime accepts."""
    for opset in range(onnx.defs.onnx_opset_version(), 0, -1):
        proto = model("(float[N,3] x) => (float[N,3] y) { y = Relu(x) }", opset=opset)
        try:
            ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        except Exception:  # onnxruntime's exceptions share no base class
            continue
        return opset
    raise AssertionError("onnxruntime runs no model at all")


# models as data ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A test model, the sizes of the groups that must be found in it, and texts that the refusals must hold."""

    name: str
    text: str
    weights: Mapping[str, Sequence[int]] = field(repr=False)
    groups: Sequence[int] = ()
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    refused: Sequence[str] = ()
    opset: int = 17
    ir_version: int = 8

    def model(self, batch: str | int = "N") -> ModelProto:
        return model(self.text, self.weights, self.values, self.opset, self.ir_version, batch=batch)

    def of_batch(self, batch: str | int, **changes: Any) -> Case:
        """The same with this batch always, whatever a test asks for."""
        return replace(self, name=f"{self.name}-{batch}", text=re.sub(r"\[N,", f"[{batch},", self.text), **changes)

    def __str__(self) -> str:
        return self.name


def by_name(cases: Iterable[Case]) -> Callable[[str], Case]:
    """Finds the case of a name."""
    return {case.name: case for case in cases}.__getitem__


def runs(case: Case) -> bool:
    """Whether the installed onnxruntime has what a case needs on a CPU."""
    try:
        ort.InferenceSession(case.model(2).SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime's exceptions share no base class
        return False
    return True


CONV = {"w": (8, 3, 3, 3), "b": (8,)}
"""The weights of the convolution in `behind_conv`."""


def behind_conv(
    size: int, name: str, body: str, groups: tuple[int, ...] = (8,), opset: int = 17,
    weights: Mapping[str, Sequence[int]] | None = None, **more: Any,
) -> Case:  # fmt: skip
    """A Conv from x [N,3,size,size] to 8 channels, and `body` from its output h, two positions smaller, to y."""
    text = f"(float[N,3,{size},{size}] x) => (float y) {{ h = Conv(x, w, b) {body} }}"
    return Case(name, text, {**CONV, **(weights or {})}, groups, opset=opset, **more)


def assert_holds(case: Case, batch: str | int) -> Analysis:
    """All that is asked of a case: groups, refusals, both oracles, and models that still run after real folding."""
    loaded = load(case.model(batch))
    found = oracles_hold_in(loaded, groups=case.groups)
    refused_for(found, case.refused)
    folds_in(loaded, found)
    return found


def refused_for(analysis: Analysis, texts: Sequence[str]) -> None:
    """Each text is part of a reason for which channels are kept; no text: nothing is kept but inputs and outputs."""
    reasons = [str(r.kind) for r in analysis.refusals]
    for text in texts:
        assert any(text in reason for reason in reasons), f"no refusal says '{text}': {reasons}"
    if not texts:
        kept = {r.kind for r in analysis.refusals if r.channels}
        assert kept <= {"a graph input", "a graph output"}, reasons


# oracles ----------------------------------------------------------------------------------------------------------


def oracles_hold(
    proto: ModelProto, shapes: Mapping[str, Sequence[int]] | None = None, groups: Sequence[int] | None = None
) -> Analysis:
    """Exactly these group sizes are found (in file order), and both oracles hold and are not blind."""
    return oracles_hold_in(load(proto, shapes), shapes, groups)


def oracles_hold_in(
    loaded: Model, shapes: Mapping[str, Sequence[int]] | None = None, groups: Sequence[int] | None = None
) -> Analysis:
    """`oracles_hold`, for a model that is loaded."""
    found = analyze(loaded)
    if groups is not None:
        sizes = [g.size for g in found.groups]
        assert sizes == list(groups), f"{[(g.name, g.size) for g in found.groups]}, refused {found.refusals}"
    if not found.groups:
        return found
    for oracle, rtol in ((permute, EXACT_PERMUTE_RTOL), (duplicate, EXACT_FOLD_RTOL)):
        result = oracle(loaded, found, shapes=shapes)
        assert result.error <= rtol, f"{oracle.__name__}: error {result.error} in {found.groups}"
        assert result.control > CONTROL, f"{oracle.__name__}: blind, {result}"
    return found


def random_labels(group: ChannelGroup, rng: np.random.Generator, share: float = 0.6) -> NDArray[np.int64]:
    """Random clusters, equally many in every cell."""
    labels = np.zeros(group.size, np.int64)
    for cell in range(group.blocks):
        mine = np.flatnonzero(group.cells == cell)
        k = max(1, int(len(mine) * share))
        part = np.concatenate([np.arange(k), rng.integers(0, k, len(mine) - k)])
        labels[mine] = cell * k + rng.permutation(part)
    return labels


def fold_by(labels: Mapping[str, Sequence[int]], proto: ModelProto) -> ModelProto:
    """Groups (by name) folded by labels."""
    loaded = load(proto)
    merges = {name: folding(np.asarray(given)) for name, given in labels.items()}
    return emit(loaded, edits(loaded, analyze(loaded), merges))


def keep_first(count: int, proto: ModelProto) -> ModelProto:
    """The model with all groups pruned to the first `count` channels of each of their cells."""
    loaded = load(proto)
    found = analyze(loaded)
    merges = {}
    for group in found.groups:
        cells = [np.flatnonzero(group.cells == cell)[:count] for cell in range(group.blocks)]
        merges[group.name] = pruning(np.concatenate(cells), group.size)
    return emit(loaded, edits(loaded, found, merges))


def folds(proto: ModelProto, seed: int = 0, alone: bool = True) -> None:
    """Folded by random labels and pruned, the model is valid and runs as before; with `alone` group by group too."""
    loaded = load(proto)
    folds_in(loaded, analyze(loaded), seed, alone)


def folds_in(loaded: Model, found: Analysis, seed: int = 0, alone: bool = True) -> None:
    """`folds`, for a model that is analyzed."""
    rng, proto = np.random.default_rng(seed), loaded.proto
    kept = {g.name: random_labels(g, rng) for g in found.groups}
    fold = {name: folding(labels) for name, labels in kept.items()}
    prune = {name: pruning(merge.keep, merge.before) for name, merge in fold.items()}
    evaluators: list[Mapping[str, Merge]] = [fold, prune]
    if alone and len(fold) > 1:
        evaluators += [{name: merge} for name, merge in fold.items()]
    before = run(loaded, proto)
    for merges in evaluators:
        after = emit(loaded, edits(loaded, found, merges))
        onnx.checker.check_model(plain_domains(after), full_check=True)
        shapes = [x.shape for x in run(loaded, after)]
        assert shapes == [x.shape for x in before]
        shrunk = any(m.after < m.before for m in merges.values())
        assert not shrunk or count_parameters(after) < count_parameters(proto)


def run(loaded: Model, proto: ModelProto) -> list[Array]:
    """Outputs of a version of a model on probe inputs."""
    session = Session(proto.SerializeToString())
    inputs = [i for i in session.inputs if i.name not in {t.name for t in proto.graph.initializer}]
    return [np.asarray(x) for x in session.run(probe(inputs, batch=2, limits=index_limits(loaded.graph)))]


# looking into models ----------------------------------------------------------------------------------------------


def node(proto: ModelProto, op: str, which: int = 0) -> NodeProto:
    """The node number `which` of type `op`."""
    return [n for n in proto.graph.node if n.op_type == op][which]


def attribute(proto: ModelProto, op: str, name: str, which: int = 0) -> Any:
    """The value of an attribute; None if it is absent."""
    found = [a for a in node(proto, op, which).attribute if a.name == name]
    return helper.get_attribute_value(found[0]) if found else None


def constant(proto: ModelProto, name: str) -> Array:
    """The value of an initializer or of a Constant node's output."""
    for tensor in proto.graph.initializer:
        if tensor.name == name:
            return numpy_helper.to_array(tensor)
    producer = next(n for n in proto.graph.node if name in n.output)
    value = helper.get_attribute_value(producer.attribute[0])
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


def given(proto: ModelProto, op: str, number: int, which: int = 0) -> list[int]:
    """The integers that input `number` of a node holds."""
    return [int(v) for v in constant(proto, node(proto, op, which).input[number]).ravel()]


def halved(proto: ModelProto) -> ModelProto:
    """The model with all groups pruned to their first half."""
    loaded = load(proto)
    found = analyze(loaded)
    merges = {g.name: pruning(np.arange(g.size // 2), g.size) for g in found.groups}
    after = emit(loaded, edits(loaded, found, merges))
    onnx.checker.check_model(after, full_check=True)
    return after
