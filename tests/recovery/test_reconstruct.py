"""Consumers refitted: where the channels that went were redundant, the folded model gives the original's outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers import as_constant_nodes, constant, model, node, random_labels
from onnx import ModelProto, helper, numpy_helper
from tiny import write_external
from twins import CASES, CONTROL, HALF_RTOL, REFIT_RTOL, Array, feeds_for, halves, refitted, reproduces

from onnxfold.analysis.analyze import analyze
from onnxfold.folding.merge import folding, pruning
from onnxfold.model.model import load
from onnxfold.options.choices import Recovery
from onnxfold.recovery.reconstruct import Changes, reconstruct
from onnxfold.runtime.session import Session
from onnxfold.runtime.shared_prefix import SharedPrefix
from onnxfold.transform.edits import edits
from onnxfold.transform.emit import emit


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
