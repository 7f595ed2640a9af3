"""Groups inside the bodies of If, Loop and Scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers import folds, model, oracles_hold
from onnx import ModelProto

import onnxfold
from onnxfold import inspect
from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.costs import count_parameters
from onnxfold.model.model import load

WEIGHTS = {"w": (3, 8), "v": (8, 5), "u": (3, 6), "t": (6, 5)}
BRANCHES = """then_branch = yes () => (float[2,5] r) {{ h = MatMul(x, {w}) a = Relu(h) r = MatMul(a, {v}) }},
              else_branch = no () => (float[2,5] {q}) {{ g = MatMul(x, {u}) e = Tanh(g) {q} = MatMul(e, {t}) }}"""


def branching(condition: bool, q: str = "q") -> ModelProto:
    """An MLP in either branch; weights of the outer graph."""
    names = {"w": "w", "v": "v", "u": "u", "t": "t", "q": q}
    text = f"(float[2,3] x) => (float[2,5] y) {{ y = If(c) <{BRANCHES.format(**names)}> }}"
    return model(text, WEIGHTS, {"c": np.array(condition)})


def inside(condition: bool) -> ModelProto:
    """The same with the weights moved into the branches that use them."""
    proto = branching(condition)
    node = proto.graph.node[0]
    for attribute in node.attribute:
        used = {name for inner in attribute.g.node for name in inner.input}
        attribute.g.initializer.extend(t for t in proto.graph.initializer if t.name in used)
    for tensor in [t for t in proto.graph.initializer if t.name in WEIGHTS]:
        proto.graph.initializer.remove(tensor)
    onnx.checker.check_model(proto)
    return proto


@pytest.mark.parametrize("make", [branching, inside])
@pytest.mark.parametrize("condition", [True, False])
def test_both_branches(make: object, condition: bool) -> None:
    """Each oracle sees the branch that runs: its control breaks the last group, so the other branch needs a model."""
    proto = make(condition)  # type: ignore[operator]
    loaded = load(proto)
    found = analyze(loaded)
    assert [g.size for g in found.groups] == [8, 6]
    assert not [r for r in found.refusals if "body of" in r.kind]
    if not condition:
        oracles_hold(proto, groups=[8, 6])
    folds(proto)


def test_nodes_of_bodies_come_last() -> None:
    proto = inside(True)
    graph = load(proto).graph
    assert [node.op for node in graph.main_nodes] == [node.op_type for node in proto.graph.node] == ["If"]
    assert [node.op for node in graph.nodes if graph.in_body(node.index)] == [
        "MatMul", "Relu", "MatMul", "MatMul", "Tanh", "MatMul"
    ]  # fmt: skip


def test_weights_inside_really_shrink(tmp_path: Path) -> None:
    """Those of the branch that a constant rules out stay."""
    proto = inside(True)
    onnx.save(proto, tmp_path / "in.onnx")
    result = onnxfold.fold(
        tmp_path / "in.onnx", tmp_path / "out.onnx", ratio=0.5, round_to=1, effort="fast", latency=False
    )
    after = onnx.load(tmp_path / "out.onnx")
    shapes = {t.name: tuple(t.dims) for a in after.graph.node[0].attribute for t in a.g.initializer}
    assert shapes == {"w": (3, 4), "v": (4, 5), "u": (3, 6), "t": (6, 5)}
    assert count_parameters(after) == sum(int(np.prod(s)) for s in shapes.values()) < count_parameters(proto)
    assert [(g.before, g.after) for g in result.report.groups] == [(8, 4), (6, 6)]


def test_samples_do_not_reach_into_bodies() -> None:
    x = {"x": np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)}
    result = onnxfold.fold(inside(True), ratio=0.5, round_to=1, calibration=[x] * 8, latency=False)
    assert [(g.before, g.after) for g in result.report.groups] == [(8, 4), (6, 6)]


TWINS = """(float[2,3] x) => (float[2,5] y) { y = If(c) <
    then_branch = yes () => (float[2,5] r) { h = MatMul(x, w) a = Relu(h) r = MatMul(a, v) },
    else_branch = no () => (float[2,5] r) { h = MatMul(x, u) a = Tanh(h) r = MatMul(a, t) }> }"""
DEEPER = """(float[2,3] x) => (float[2,5] y) { y = If(c) <
    then_branch = yes () => (float[2,5] r) { h = MatMul(x, w) a = Relu(h) r = If(c) <
        then_branch = in () => (float[2,5] q) { b = Neg(a) q = MatMul(b, v) },
        else_branch = out () => (float[2,5] q) { b = Abs(a) q = MatMul(b, v) }> },
    else_branch = no () => (float[2,5] r) { a = MatMul(x, u) b = Tanh(a) r = MatMul(b, t) }> }"""


def named_alike(text: str, condition: bool) -> ModelProto:
    """Branches that give their tensors the same names, and hold weights that are called alike too."""
    proto = model(text, WEIGHTS, {"c": np.array(condition)})
    if text is TWINS:
        for attribute, names in zip(proto.graph.node[0].attribute, ("wv", "ut"), strict=True):
            own = {name: next(t for t in proto.graph.initializer if t.name == name) for name in names}
            for tensor, name in zip(own.values(), ("first", "second"), strict=True):
                attribute.g.initializer.append(tensor)
                attribute.g.initializer[-1].name = name
            for inner in attribute.g.node:
                given = {names[0]: "first", names[1]: "second"}
                inner.input[:] = [given.get(one, one) for one in inner.input]
        for tensor in [t for t in proto.graph.initializer if t.name in WEIGHTS]:
            proto.graph.initializer.remove(tensor)
    onnx.checker.check_model(proto)
    return proto


@pytest.mark.parametrize("text", [TWINS, DEEPER], ids=["twins", "deeper"])
@pytest.mark.parametrize("condition", [True, False])
def test_names_that_branches_share_are_told_apart(text: str, condition: bool) -> None:
    proto = named_alike(text, condition)
    loaded = load(proto)
    found = analyze(loaded)
    assert [g.size for g in found.groups] == [8, 6]
    assert found.parameters == sum(int(np.prod(size)) for size in WEIGHTS.values())
    if not condition:
        oracles_hold(proto, groups=[8, 6])
    folds(proto)


@pytest.mark.parametrize("text", [TWINS, DEEPER], ids=["twins", "deeper"])
def test_names_that_branches_share_are_put_back(text: str, tmp_path: Path) -> None:
    proto = named_alike(text, False)
    onnx.save(proto, tmp_path / "in.onnx")
    x = [{"x": np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)}] * 8
    kept = onnxfold.fold(
        tmp_path / "in.onnx", tmp_path / "out.onnx", ratio=0.5, round_to=1, calibration=x, latency=False
    )
    after = onnx.load(tmp_path / "out.onnx")
    assert after.SerializeToString() == kept.model.SerializeToString()
    assert [g.after for g in kept.report.groups] == [8, 3]
    assert count_parameters(after) < count_parameters(proto)
    assert [n.output[:] for n in walk(after)] == [n.output[:] for n in walk(proto)]
    assert [n.input[:] for n in walk(after)] == [n.input[:] for n in walk(proto)]


def walk(proto: ModelProto) -> list[onnx.NodeProto]:
    """All nodes, those of bodies behind their owners."""
    found, waiting = [], list(proto.graph.node)
    while waiting:
        node = waiting.pop(0)
        found.append(node)
        waiting = [inner for attribute in node.attribute for inner in attribute.g.node] + waiting
    return found


def test_a_model_without_shared_names_is_not_copied() -> None:
    proto = branching(True)
    assert load(proto).proto is proto


def test_what_passes_through_a_loop_is_kept() -> None:
    """The hidden units of the body's MLP are a group; its state, which comes back, is not."""
    text = """(float[2,3] x, int64 n, bool c) => (float[2,3] y) {
        y = Loop(n, c, x) <body = step (int64 i, bool d, float[2,3] s) => (bool e, float[2,3] z) {
            e = Identity(d) h = MatMul(s, w) a = Relu(h) z = MatMul(a, v) }> }"""
    proto = model(text, {"w": (3, 8), "v": (8, 3)})
    found = analyze(load(proto))
    assert [g.size for g in found.groups] == [8]
    kinds = {r.kind for r in found.refusals}
    assert "values that Loop returns from its body" in kinds
    report = inspect(proto)
    assert report.coverage is not None and report.coverage.parameters == 1.0
    feeds = {"x": np.ones((2, 3), np.float32), "n": np.array(3), "c": np.array(True)}
    result = onnxfold.fold(proto, ratio=0.25, round_to=1, effort="fast", latency=False)
    from onnxfold.runtime.session import Session

    before, after = (Session(p.SerializeToString()).run(feeds)[0] for p in (proto, result.model))
    assert before.shape == after.shape and np.isfinite(after).all()


def test_a_captured_channel_is_followed_into_the_body() -> None:
    """Channels made outside, read inside: one group across the border."""
    text = """(float[2,3] x) => (float[2,5] y) {
        h = MatMul(x, w) a = Relu(h)
        y = If(c) <then_branch = yes () => (float[2,5] r) { r = MatMul(a, v) },
                   else_branch = no () => (float[2,5] q) { b = Neg(a) q = MatMul(b, k) }> }"""
    for condition in (True, False):
        proto = model(text, {"w": (3, 8), "v": (8, 5), "k": (8, 5)}, {"c": np.array(condition)})
        oracles_hold(proto, groups=[8])
        folds(proto)


def test_nested_bodies() -> None:
    text = """(float[2,3] x) => (float[2,5] y) {
        y = If(c) <then_branch = yes () => (float[2,5] r) {
            r = If(c) <then_branch = inner () => (float[2,5] p) { h = MatMul(x, w) a = Relu(h) p = MatMul(a, v) },
                       else_branch = other () => (float[2,5] o) { o = MatMul(x, k) }> },
            else_branch = no () => (float[2,5] q) { q = MatMul(x, m) }> }"""
    proto = model(text, {"w": (3, 8), "v": (8, 5), "k": (3, 5), "m": (3, 5)}, {"c": np.array(True)})
    oracles_hold(proto, groups=[8])
    folds(proto)
