"""Consumers refitted: where the channels that went were redundant, the folded model gives the original's outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import as_constant_nodes, constant, model, node, random_labels
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper
from tiny import write_external

from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.result import Analysis
from onnxfold.evaluation.metrics import relative_l2
from onnxfold.folding.merge import Merge, folding, pruning
from onnxfold.model.model import Model, load
from onnxfold.model.save import inline
from onnxfold.options.choices import Recovery
from onnxfold.recovery.epilogue import Epilogue, Epilogues
from onnxfold.recovery.reconstruct import Changes, ReconstructionSettings, Refitted, reconstruct
from onnxfold.runtime.session import Session
from onnxfold.runtime.shared_prefix import SharedPrefix
from onnxfold.transform.edits import edits
from onnxfold.transform.emit import emit

REFIT_RTOL = 3e-4  # float32 moments and a ridge of 1e-7. Measured under 1e-4
HALF_RTOL = 3e-3  # the weights and all activations are float16, of 1e-3 each. Measured under 2e-3
CONTROL = 0.1  # what the plain pruned model loses at least. Measured over 0.2
NO_RIDGE = 1e-7
SAMPLES, BATCHES = 24, 4

Array = NDArray[Any]
BN = "BatchNormalization"


def norm(number: int, channels: int) -> dict[str, tuple[int]]:
    return {f"{name}{number}": (channels,) for name in ("scale", "bias", "mean", "var")}


@dataclass
class Case:
    """A model whose tensors `twins` hold every row (along axis 0, or 1 of a MatMul) twice."""

    text: str
    weights: Mapping[str, Sequence[int]]
    twins: Sequence[str]
    rtol: float = REFIT_RTOL
    refits: int = 1
    values: Mapping[str, Any] = field(default_factory=dict)

    def model(self) -> ModelProto:
        proto = model(self.text, self.weights, self.values)
        for tensor in proto.graph.initializer:
            if tensor.name in self.twins:
                value = numpy_helper.to_array(tensor).copy()
                rows = value.T if tensor.name.startswith("m") and value.ndim == 2 else value
                half = len(rows) // 2
                rows[half:] = rows[:half]
                tensor.raw_data = value.tobytes()
        return proto


CASES = {
    "convolutions": Case(
        "(float[N,3,6,6] x) => (float y) { h = Conv (x, w, b) r = Relu (h) y = Conv <pads=[1,1,1,1]> (r, v, c) }",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3), "c": (5,)}, ("w", "b"),
    ),
    "no bias anywhere": Case(
        "(float[N,3,6,6] x) => (float y) { h = Conv (x, w) r = Relu (h) y = Conv (r, v) }",
        {"w": (8, 3, 3, 3), "v": (5, 8, 3, 3)}, ("w",),
    ),
    "a bias is needed": Case(
        "(float[N,3,6,6] x) => (float y) { h = Conv (x, w, b) y = Conv (h, v) }",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3)}, ("w",),
    ),
    "a bias is needed in a Gemm": Case(
        "(float[N,6] x) => (float y) { h = Gemm <transB=1> (x, w, b) y = Gemm <transB=1> (h, v) }",
        {"w": (8, 6), "b": (8,), "v": (5, 8)}, ("w",),
    ),
    "a Gemm, not transposed": Case(
        "(float[N,6] x) => (float y) { h = Gemm <transB=1> (x, w, b) r = Relu (h) y = Gemm (r, v, c) }",
        {"w": (8, 6), "b": (8,), "v": (8, 5), "c": (5,)}, ("w", "b"),
    ),
    "a Gemm behind a Flatten": Case(
        "(float[N,3,6,6] x) => (float y) { h = Conv (x, w, b) r = Relu (h) f = Flatten (r) y = Gemm (f, v, c) }",
        {"w": (8, 3, 6, 5), "b": (8,), "v": (16, 5), "c": (5,)}, ("w", "b"),
    ),
    "MatMul": Case(
        "(float[N,4,6] x) => (float y) { h = MatMul (x, m) r = Relu (h) y = MatMul (r, v) }",
        {"m": (6, 8), "v": (8, 5)}, ("m",),
    ),
    "MatMul and Add": Case(
        """(float[N,4,6] x) => (float y) {
            h = MatMul (x, m) a = Add (h, b) r = Relu (a) g = MatMul (r, v) y = Add (c, g) }""",
        {"m": (6, 8), "b": (8,), "v": (8, 5), "c": (5,)}, ("m", "b"),
    ),
    "MatMul and Add, a bias is needed": Case(
        "(float[N,4,6] x) => (float y) { h = MatMul (x, m) a = Add (h, b) g = MatMul (a, v) y = Add (c, g) }",
        {"m": (6, 8), "b": (8,), "v": (8, 5), "c": (5,)}, ("m",),
    ),
    "batch norm": Case(
        f"""(float[N,3,6,6] x) => (float y) {{
            h = Conv (x, w) n = {BN} (h, scale1, bias1, mean1, var1) r = Relu (n) g = Conv (r, v)
            k = {BN} (g, scale2, bias2, mean2, var2) y = Relu (k) }}""",
        {"w": (8, 3, 3, 3), "v": (5, 8, 3, 3), **norm(1, 8), **norm(2, 5)},
        ("w", "scale1", "bias1", "mean1", "var1"),
    ),
    "batch norm takes the bias": Case(
        f"""(float[N,3,6,6] x) => (float y) {{
            h = Conv (x, w, b) g = Conv (h, v) k = {BN} (g, scale2, bias2, mean2, var2) y = Relu (k) }}""",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3), **norm(2, 5)}, ("w",),
    ),
    "a running mean that two share": Case(
        f"""(float[N,3,6,6] x) => (float y) {{
            h = Conv (x, w, b) g = Conv (h, v) k = {BN} (g, scale2, bias2, mean2, var2)
            i = Conv (x, u) j = {BN} (i, scale2, bias2, mean2, var2) q = GlobalAveragePool (k)
            s = GlobalAveragePool (j) t = Mul (q, s) y = Relu (t) }}""",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3), "u": (5, 3, 3, 3), **norm(2, 5)}, ("w",),
    ),
    "batch norm of an Identity": Case(
        f"""(float[N,3,6,6] x) => (float y) {{
            h = Conv (x, w, b) s = Identity (scale2) i = Identity (mean2) j = Identity (i) g = Conv (h, v)
            k = {BN} (g, s, bias2, j, var2) y = Relu (k) }}""",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3), **norm(2, 5)}, ("w",),
    ),
    "a running mean and an Identity of it": Case(
        f"""(float[N,3,6,6] x) => (float y) {{
            h = Conv (x, w, b) o = Identity (mean2) l = Conv (x, u) j = {BN} (l, scale2, bias2, mean2, var2)
            g = Conv (h, v) k = {BN} (g, scale2, bias2, o, var2)
            q = GlobalAveragePool (k) s = GlobalAveragePool (j) t = Mul (q, s) y = Relu (t) }}""",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3), "u": (5, 3, 3, 3), **norm(2, 5)}, ("w",),
    ),
    "an Identity of a running mean that another reads too": Case(
        f"""(float[N,3,6,6] x) => (float y) {{
            h = Conv (x, w, b) o = Identity (mean2) l = Conv (x, u) j = {BN} (l, scale2, bias2, o, var2)
            g = Conv (h, v) k = {BN} (g, scale2, bias2, mean2, var2)
            q = GlobalAveragePool (k) s = GlobalAveragePool (j) t = Mul (q, s) y = Relu (t) }}""",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3), "u": (5, 3, 3, 3), **norm(2, 5)}, ("w",),
    ),
    "an Identity of a weight and of a bias": Case(
        """(float[N,3,6,6] x) => (float y) {
            h = Conv (x, w, b) z = Identity (v) d = Identity (c) g = Conv (h, z, d) y = Relu (g) }""",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3), "c": (5,)}, ("w",),
    ),
    "depthwise": Case(
        """(float[N,3,6,6] x) => (float y) {
            h = Conv (x, w, b) r = Relu (h) d = Conv <group=8> (r, k, l) s = Relu (d) y = Conv (s, v, c) }""",
        {"w": (8, 3, 3, 3), "b": (8,), "k": (8, 1, 3, 3), "l": (8,), "v": (5, 8, 1, 1), "c": (5,)},
        ("w", "b", "k", "l"), refits=2,
    ),
    "up": Case(
        """(float[N,3,5,5] x) => (float y) {
            h = Conv (x, w, b) r = Relu (h) g = ConvTranspose <strides=[2,2], pads=[1,0,1,0]> (r, v) y = Relu (g) }""",
        {"w": (8, 3, 2, 2), "b": (8,), "v": (8, 5, 3, 3)}, ("w", "b"),
    ),
    "up, a bias is needed": Case(
        """(float[N,3,5,5] x) => (float y) {
            h = Conv (x, w, b) y = ConvTranspose (h, v) }""",
        {"w": (8, 3, 2, 2), "b": (8,), "v": (8, 5, 1, 1)}, ("w",),
    ),
    "up, batch norm": Case(
        f"""(float[N,3,5,5] x) => (float y) {{
            h = Conv (x, w, b) g = ConvTranspose <strides=[2,2]> (h, v) k = {BN} (g, scale2, bias2, mean2, var2)
            y = Relu (k) }}""",
        {"w": (8, 3, 2, 2), "b": (8,), "v": (8, 5, 2, 2), **norm(2, 5)}, ("w", "b"),
    ),
    "up in groups": Case(
        """(float[N,3,5,5] x) => (float y) {
            h = Conv (x, w, b) r = Relu (h) g = ConvTranspose <group=8, strides=[2,2]> (r, k, l) s = Relu (g)
            y = Conv (s, v, c) }""",
        {"w": (8, 3, 2, 2), "b": (8,), "k": (8, 1, 3, 3), "l": (8,), "v": (5, 8, 1, 1), "c": (5,)},
        ("w", "b", "k", "l"), refits=2,
    ),
    "a chain": Case(
        """(float[N,3,8,8] x) => (float y) {
            h = Conv (x, w, b) r = Relu (h) g = Conv (r, v, c) s = Relu (g) p = GlobalAveragePool (s)
            f = Flatten (p) y = Gemm <transB=1> (f, u) }""",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (6, 8, 3, 3), "c": (6,), "u": (5, 6)}, ("w", "b", "v", "c"), refits=2,
    ),
    "a residual stream": Case(
        """(float[N,3,6,6] x) => (float y) {
            h = Conv (x, w, b) r = Relu (h) g = Conv <pads=[1,1,1,1]> (r, v, c) q = Relu (g)
            i = Conv (q, t, e) s = Add (i, r) k = Relu (s) y = Conv (k, u) }""",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (6, 8, 3, 3), "c": (6,), "t": (8, 6, 1, 1), "e": (8,), "u": (5, 8, 1, 1)},
        ("w", "b", "v", "c", "t", "e"), refits=3,
    ),
    "two consumers": Case(
        """(float[N,3,6,6] x) => (float y) {
            h = Conv (x, w, b) r = Relu (h) g = Conv (r, v, c) i = Conv <strides=[1,1]> (r, u) y = Mul (g, i) }""",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3), "c": (5,), "u": (5, 8, 3, 3)}, ("w", "b"), refits=2,
    ),
}  # fmt: skip


def feeds_for(proto: ModelProto, seed: int, batches: int = BATCHES, size: int = SAMPLES) -> list[dict[str, Array]]:
    rng = np.random.default_rng(seed)
    constants = {t.name for t in proto.graph.initializer}
    kinds = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.FLOAT16: np.float16}
    return [
        {
            v.name: rng.standard_normal([d.dim_value or size for d in v.type.tensor_type.shape.dim]).astype(
                kinds[v.type.tensor_type.elem_type]
            )
            for v in proto.graph.input
            if v.name not in constants
        }
        for _ in range(batches)
    ]


def outputs(proto: ModelProto, feeds: Sequence[Mapping[str, Array]]) -> Array:
    session = Session(proto.SerializeToString())
    return np.concatenate([np.asarray(session.run(feed)[0], np.float64).ravel() for feed in feeds])


@dataclass
class MergeOutcome:
    """The errors of the plain folded model and of the refitted one, on inputs that were not fitted on."""

    plain: float
    refitted: float
    proto: ModelProto
    before: ModelProto
    done: tuple[Refitted, ...]


def halves(analysis: Analysis) -> dict[str, Merge]:
    """Every group pruned to the first half of its channels."""
    return {g.name: pruning(np.arange(g.size // 2), g.size) for g in analysis.groups}


def refitted(
    source: ModelProto | Path, merges: Mapping[str, Merge] | None = None, ridge: float = NO_RIDGE, **options: Any
) -> MergeOutcome:
    loaded: Model = load(source)
    analysis = analyze(loaded)
    assert analysis.groups
    merges = merges or halves(analysis)
    whole, plain = inline(loaded.proto, loaded.folder), emit(loaded, edits(loaded, analysis, merges))
    folded = ModelProto()
    folded.CopyFrom(plain)
    feeds, others = feeds_for(whole, 0), feeds_for(whole, 1)
    settings = ReconstructionSettings(ridge=ridge, **options)
    done = reconstruct(SharedPrefix(loaded, feeds), analysis, Changes(merges), folded, settings)
    expected = outputs(whole, others)
    plain, inlined = inline(plain, loaded.folder), inline(folded, loaded.folder)
    onnx.checker.check_model(inlined, full_check=True)
    errors = [relative_l2(expected, outputs(proto, others)) for proto in (plain, inlined)]
    return MergeOutcome(*errors, inlined, plain, done)


def reproduces(found: MergeOutcome, rtol: float = REFIT_RTOL) -> None:
    assert found.plain > CONTROL, "the control shows nothing"
    assert found.refitted < rtol


@pytest.mark.parametrize("case", CASES)
def test_redundant_channels_cost_nothing(case: str) -> None:
    found = refitted(CASES[case].model())
    reproduces(found)
    assert len(found.done) == CASES[case].refits
    assert all(one.after < 1e-5 for one in found.done)
    assert max(one.before for one in found.done) > CONTROL**2


@pytest.mark.parametrize("case", ["convolutions", "MatMul and Add", "batch norm", "depthwise", "a chain"])
def test_from_constant_nodes(case: str) -> None:
    proto = CASES[case].model()
    reproduces(refitted(as_constant_nodes(proto, [t.name for t in proto.graph.initializer])))


@pytest.mark.parametrize("case", ["convolutions", "a bias is needed", "a chain"])
def test_from_external_data(case: str, tmp_path: Path) -> None:
    path = write_external(tmp_path / "m.onnx", CASES[case].model())
    reproduces(refitted(path))


@pytest.mark.parametrize("case", ["convolutions", "a bias is needed", "MatMul and Add", "a chain", "batch norm"])
def test_half_precision(case: str) -> None:
    proto = CASES[case].model()
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in [*proto.graph.input, *proto.graph.output]:
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    del proto.graph.value_info[:]
    found = refitted(proto, ridge=1e-5)
    reproduces(found, HALF_RTOL)
    assert {t.data_type for t in found.proto.graph.initializer} == {onnx.TensorProto.FLOAT16}


def test_linear_combinations() -> None:
    """No activation between: any half of the channels holds what all of them hold."""
    proto = CASES["a bias is needed"].model()
    tensors = {t.name: t for t in proto.graph.initializer}
    weights = numpy_helper.to_array(tensors["w"]).copy()
    mixing = np.random.default_rng(5).standard_normal((4, 4)).astype(np.float32)
    weights[4:] = np.einsum("ij,jabc->iabc", mixing, weights[:4])
    tensors["w"].raw_data = weights.tobytes()
    reproduces(refitted(proto))
    (group,) = analyze(load(proto)).groups
    merges = {group.name: folding(np.array([0, 1, 2, 3, 0, 1, 2, 3]))}
    reproduces(refitted(proto, merges))


def test_a_bias_is_added_where_there_was_none() -> None:
    found = refitted(CASES["a bias is needed"].model())
    assert list(node(found.before, "Conv", 1).input) == ["h", "v"]
    assert list(node(found.proto, "Conv", 1).input) == ["h", "v", "v_bias"]
    assert np.abs(constant(found.proto, "v_bias")).max() > 0.1


def test_an_added_bias_has_a_name_of_its_own() -> None:
    proto = CASES["a bias is needed"].model()
    proto.graph.node[1].output[0] = "v_bias"
    proto.graph.node.append(helper.make_node("Relu", ["v_bias"], ["y"]))
    found = refitted(proto)
    reproduces(found)
    assert list(node(found.proto, "Conv", 1).input) == ["h", "v", "v_bias_"]


def test_an_added_bias_is_an_input_where_weights_must_be() -> None:
    case = CASES["a bias is needed"]
    proto = model(case.text, case.weights, opset=8, ir_version=3)
    tensor = next(t for t in proto.graph.initializer if t.name == "w")
    value = numpy_helper.to_array(tensor).copy()
    value[4:] = value[:4]
    tensor.raw_data = value.tobytes()
    found = refitted(proto)
    reproduces(found)
    assert "v_bias" in {v.name for v in found.proto.graph.input}


@pytest.mark.parametrize("case", ["batch norm takes the bias", "MatMul and Add, a bias is needed"])
def test_the_bias_goes_where_there_is_one(case: str) -> None:
    found = refitted(CASES[case].model())
    before, after = ({t.name for t in p.graph.initializer} for p in (found.before, found.proto))
    assert before == after
    where = "mean2" if "norm" in case else "c"
    assert np.abs(constant(found.proto, where) - constant(found.before, where)).max() > 0.1


@pytest.mark.parametrize("case", ["convolutions", "a chain", "batch norm", "a residual stream", "MatMul and Add"])
def test_merged_groups(case: str) -> None:
    """Twins merged by chance with others: refitting makes good what can be."""
    proto = CASES[case].model()
    analysis, rng = analyze(load(proto)), np.random.default_rng(0)
    merges = {g.name: folding(random_labels(g, rng, 0.6)) for g in analysis.groups}
    found = refitted(proto, merges)
    assert found.plain > CONTROL
    assert found.refitted < 0.8 * found.plain
    twins = {g.name: folding(np.arange(g.size) % (g.size // 2)) for g in analysis.groups}
    exact = refitted(proto, twins)
    assert exact.plain < 1e-5 and exact.refitted < REFIT_RTOL  # what was right stays right


def test_an_identity_gives_way_to_a_constant_of_its_own() -> None:
    """The source is another's too, and stays."""
    found = refitted(CASES["a running mean and an Identity of it"].model())
    assert [n.op_type for n in found.before.graph.node].count("Identity") == 1
    changed = next(n for n in found.proto.graph.node if n.output[0] == "o")
    assert changed.op_type == "Constant"
    np.testing.assert_array_equal(constant(found.proto, "mean2"), constant(found.before, "mean2"))
    assert np.abs(numpy_helper.to_array(changed.attribute[0].t) - constant(found.proto, "mean2")).max() > 0.1
    assert len(node(found.proto, "Conv", 2).input) == 2  # no bias was added


def test_several_merges_of_one_stream() -> None:
    """The consumer's own outputs are merged too: it aims at the means of what they were."""
    proto = CASES["a chain"].model()
    analysis = analyze(load(proto))
    first, second = analysis.groups
    merges = {
        first.name: pruning(np.arange(4), 8),
        second.name: folding(np.array([0, 1, 2, 0, 1, 2])),
    }
    found = refitted(proto, merges)
    reproduces(found)
    assert [one.output for one in found.done] == ["g", "y"]


JOIN = """(float[N,4,6,6] x) => (float y) {
    u = Conv (x, wu) v = Conv (x, wv) a = Conv (u, wa) b = Conv (v, wb) y = Add (a, b) }"""
JOIN_WEIGHTS = {"wu": (8, 4, 1, 1), "wv": (8, 4, 1, 1), "wa": (6, 8, 1, 1), "wb": (6, 8, 1, 1)}


def join_merges(proto: ModelProto) -> dict[str, Merge]:
    """The first branch left with 2 channels, far too few; the second with 6, more than it needs."""
    first, second = analyze(load(proto)).groups
    return {first.name: pruning(np.arange(2), 8), second.name: pruning(np.arange(6), 8)}


def test_one_branch_makes_up_for_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = model(JOIN, JOIN_WEIGHTS)
    found = refitted(proto, join_merges(proto))
    reproduces(found)
    assert found.done[0].after > 0.05
    inner = Epilogues.epilogue

    def alone(self: Epilogues, of: Any) -> Epilogue:
        return replace(inner(self, of), join="", other="")

    monkeypatch.setattr(Epilogues, "epilogue", alone)
    assert refitted(proto, join_merges(proto)).refitted > CONTROL


def test_a_join_behind_a_normalization() -> None:
    text = JOIN.replace("y = Add (a, b)", f"n = {BN} (b, scale1, bias1, mean1, var1) y = Add (n, a)")
    proto = model(text, {**JOIN_WEIGHTS, **norm(1, 6)})
    reproduces(refitted(proto, join_merges(proto)))


def test_faint_channels_of_a_normalization_aim_at_nothing_wild() -> None:
    text = JOIN.replace("y = Add (a, b)", f"n = {BN} (b, scale1, bias1, mean1, var1) y = Add (n, a)")
    proto = model(text, {**JOIN_WEIGHTS, **norm(1, 6)})
    tensor = next(t for t in proto.graph.initializer if t.name == "scale1")
    gamma = numpy_helper.to_array(tensor).copy()
    gamma[2] = 1e-9
    tensor.raw_data = gamma.tobytes()
    found = refitted(proto, join_merges(proto))
    sizes = np.abs(constant(found.proto, "wb")).max(axis=(1, 2, 3))
    assert sizes[2] < 10 * np.median(sizes)


def test_a_join_that_broadcasts() -> None:
    text = """(float[N,4,6,6] x) => (float y) {
        u = Conv (x, wu) a = Conv (u, wa) p = GlobalAveragePool (x) v = Conv (p, wv) b = Conv (v, wb)
        y = Add (a, b) }"""
    proto = model(text, JOIN_WEIGHTS)
    first, second = analyze(load(proto)).groups
    merges = {first.name: pruning(np.arange(4), 8), second.name: pruning(np.arange(4), 8)}
    reproduces(refitted(proto, merges))


SHARED = {
    "a weight read twice": (
        "(float[N,6] x) => (float y) { h = MatMul (x, m) r = Relu (h) g = MatMul (r, v) i = Neg (h)"
        " j = MatMul (i, v) y = Add (g, j) }",
        {"m": (6, 8), "v": (8, 5)},
    ),
    "a bias read twice": (
        "(float[N,6] x) => (float y) { h = MatMul (x, m) r = Relu (h) g = Gemm (r, v, c) y = Mul (g, c) }",
        {"m": (6, 8), "v": (8, 5), "c": (5,)},
    ),
    "a bias that is an activation": (
        "(float[N,6] x, float[N,5] z) => (float y) { h = MatMul (x, m) r = Relu (h) y = Gemm (r, v, z) }",
        {"m": (6, 8), "v": (8, 5)},
    ),
    "a scaled Gemm": (
        "(float[N,6] x) => (float y) { h = MatMul (x, m) r = Relu (h) y = Gemm <alpha=0.5> (r, v) }",
        {"m": (6, 8), "v": (8, 5)},
    ),
    "a bias that a body reads": (
        """(float[N,6] x, bool q) => (float y) { h = MatMul (x, m) r = Relu (h) g = Gemm (r, v, c)
        i = If (q) < then_branch = one () => (float[5] o) { o = Relu (c) },
                     else_branch = two () => (float[5] p) { p = Neg (c) } > y = Mul (g, i) }""",
        {"m": (6, 8), "v": (8, 5), "c": (5,)},
    ),
}


@pytest.mark.parametrize("case", SHARED)
def test_what_others_see_is_left_alone(case: str) -> None:
    proto = model(*SHARED[case])
    loaded = load(proto)
    analysis = analyze(loaded)
    assert analysis.groups
    merges = halves(analysis)
    folded = emit(loaded, edits(loaded, analysis, merges))
    plain = folded.SerializeToString(deterministic=True)
    feeds = [
        {**feed, **({"q": np.array(True)} if "bool q" in SHARED[case][0] else {})}
        for feed in feeds_for(model("(float[N,6] x, float[N,5] z) => (float y) { y = Neg (x) }"), 0)
    ]
    assert reconstruct(SharedPrefix(loaded, feeds), analysis, Changes(merges), folded) == ()
    assert folded.SerializeToString(deterministic=True) == plain


def test_consumers_behind_a_body_are_refitted() -> None:
    """What a body captures changed, so what it gives changed too."""
    text = """(float[N,6] x) => (float y) {
        h = MatMul (x, m) r = Relu (h) g = MatMul (r, v) s = ReduceSum <keepdims=0> (x) q = Greater (s, zero)
        i = If (q) < then_branch = one () => (float[N,5] o) { o = Relu (g) },
                     else_branch = two () => (float[N,5] p) { p = Neg (g) } >
        y = MatMul (i, u) }"""
    proto = model(text, {"m": (6, 8), "v": (8, 5), "u": (5, 3)}, values={"zero": 0.0})
    found = refitted(proto, ridge=0.1)
    assert [one.output for one in found.done] == ["g", "y"]


def test_what_constants_make_is_no_consumer() -> None:
    """A network on constants (relative positions) makes a constant: nothing is measured there, and nothing fails."""
    text = """(float[N,6] x) => (float y) {
        k = MatMul (places, m) r = Relu (k) t = MatMul (r, v) h = MatMul (x, n) s = Relu (h) g = MatMul (s, u)
        y = Add (g, t) }"""
    proto = model(text, {"places": (1, 6), "m": (6, 8), "v": (8, 5), "n": (6, 8), "u": (8, 5)})
    found = refitted(proto, ridge=0.1)
    assert "t" not in [one.output for one in found.done]


def test_only_some() -> None:
    proto = CASES["two consumers"].model()
    found = refitted(proto, only=frozenset(["i"]))
    assert [one.output for one in found.done] == ["i"]
    np.testing.assert_array_equal(constant(found.proto, "v"), constant(found.before, "v"))
    assert np.abs(constant(found.proto, "u") - constant(found.before, "u")).max() > 0.1


def test_what_did_not_change_is_left_alone() -> None:
    proto = CASES["a chain"].model()
    _, second = analyze(load(proto)).groups
    found = refitted(proto, {second.name: pruning(np.arange(3), 6)})
    reproduces(found)
    assert [one.output for one in found.done] == ["y"]
    for name in ("w", "b"):
        np.testing.assert_array_equal(constant(found.proto, name), constant(found.before, name))


def test_the_ridge_holds_weights() -> None:
    proto = CASES["convolutions"].model()
    gaps = []
    for ridge in (1e-6, 0.1, 10.0, 1e9):
        found = refitted(proto, ridge=ridge)
        gaps.append(float(np.abs(constant(found.proto, "v") - constant(found.before, "v")).max()))
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 0.1 and gaps[-1] < 1e-6


def test_errors_are_those_of_the_outputs() -> None:
    """What is reported is measured: here on all the data, with the best bias before."""
    proto = CASES["convolutions"].model()
    found = refitted(proto, ridge=0.1)
    feeds = feeds_for(proto, 0)
    session = [Session(p.SerializeToString()) for p in (proto, found.before, found.proto)]
    y, plain, after = (np.concatenate([s.run(f)[0] for f in feeds]).astype(np.float64) for s in session)
    axes, energy = (0, 2, 3), y.var(axis=(0, 2, 3)).sum()
    (one,) = found.done
    assert one.before == pytest.approx(float((plain - y).var(axis=axes).sum() / energy), rel=1e-4)
    assert one.after == pytest.approx(float(((after - y) ** 2).mean(axis=axes).sum() / energy), rel=1e-4)


@pytest.mark.parametrize("case", ["convolutions", "MatMul and Add", "batch norm", "a chain"])
def test_statistics(case: str) -> None:
    """Means and variances of every consumer are the original's, on the samples."""
    proto = CASES[case].model()
    found = refitted(proto, level=Recovery.STATISTICS)
    assert len(found.done) == CASES[case].refits
    last = found.done[-1].output
    for version in (proto, found.proto, found.before):
        version.graph.output.add(name=last)
    axes = (0, 2, 3) if case in ("convolutions", "batch norm") else tuple(range({"a chain": 1}.get(case, 2)))

    def moments(version: ModelProto) -> tuple[Array, Array]:
        """Of the consumer's output with what is added behind it: biases may lie there."""
        seen = {"MatMul and Add": 0, "batch norm": 0}.get(case, -1)
        session = Session(version.SerializeToString())
        y = np.concatenate([session.run(f)[seen] for f in feeds_for(proto, 0)]).astype(np.float64)
        return (y.mean(axis=axes), y.var(axis=axes)) if seen else (y.mean(axis=axes), y.mean(axis=axes))

    wanted, got, plain = moments(proto), moments(found.proto), moments(found.before)
    if case != "batch norm":  # its output is behind a Relu
        for a, b in zip(wanted, got, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-4)
    assert np.abs(plain[0] - wanted[0]).max() > 0.02


def test_the_same_seed_gives_the_same_bytes() -> None:
    proto = CASES["a residual stream"].model()
    one, same = (refitted(proto, seed=3).proto.SerializeToString(deterministic=True) for _ in range(2))
    assert one == same


def test_original_and_samples_stay_as_they_are() -> None:
    proto = CASES["batch norm takes the bias"].model()
    before = proto.SerializeToString(deterministic=True)
    refitted(proto)
    assert proto.SerializeToString(deterministic=True) == before
