"""A walk in segments gives what one run gives, and sees weights that are changed ahead of it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import as_constant_nodes, model
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper
from tiny import write_external

from onnxfold.runtime.segments import SegmentRunner
from onnxfold.runtime.session import Session

SEGMENT_RTOL = 1e-6  # the same kernels; onnxruntime fuses other neighbors in other segments. Measured under 1e-7

Array = NDArray[Any]

CHAIN = """(float[N,3,6,6] x) => (float y) {
    a = Conv <pads=[1,1,1,1]> (x, w, b) r = Relu (a) c = Conv <pads=[1,1,1,1]> (r, v) s = Add (c, a) t = Relu (s)
    p = GlobalAveragePool (t) f = Flatten (p) y = Gemm <transB=1> (f, u, z) }"""
CHAIN_WEIGHTS = {"w": (4, 3, 3, 3), "b": (4,), "v": (4, 4, 3, 3), "u": (5, 4), "z": (5,)}


def feeds_for(proto: ModelProto, batches: Sequence[int], seed: int = 0) -> list[dict[str, Array]]:
    """Random feeds with so many samples each."""
    rng = np.random.default_rng(seed)
    constants = {t.name for t in proto.graph.initializer}
    inputs = [v for v in proto.graph.input if v.name not in constants]
    return [
        {v.name: rng.standard_normal([d.dim_value or n for d in v.type.tensor_type.shape.dim]).astype(np.float32)
         for v in inputs}
        for n in batches
    ]  # fmt: skip


def made(proto: ModelProto) -> list[str]:
    """All tensors that nodes make."""
    return [name for node in proto.graph.node for name in node.output if name]


def exposed(proto: ModelProto, names: Sequence[str], feeds: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
    """What one run per batch gives for these tensors."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = Session(copy.SerializeToString())
    return [dict(zip(names, session.run(feed), strict=True)) for feed in feeds]


def assert_walked(
    proto: ModelProto, stops: Sequence[int], batches: Sequence[int] = (2, 3), folder: Path | None = None
) -> None:
    """A walk with these stops gives, for every tensor that no constants alone make, what one run gives."""
    feeds = feeds_for(proto, batches)
    walk = SegmentRunner(proto, feeds, folder)
    seen: list[dict[str, Array]] = [{} for _ in feeds]
    names = made(proto)
    for start, stop in itertools.pairwise((0, *stops, len(proto.graph.node))):
        here = [name for node in proto.graph.node[start:stop] for name in node.output]
        for one, new in zip(seen, walk.advance(stop, here), strict=True):
            one.update(new)
    whole = onnx.load_from_string(proto.SerializeToString())
    if folder is not None:
        onnx.load_external_data_for_model(whole, str(folder))
    for one, all_ in zip(seen, exposed(whole, names, feeds), strict=True):
        assert proto.graph.output[0].name in one
        for name, value in one.items():
            a, b = np.asarray(value, np.float64), np.asarray(all_[name], np.float64)
            assert np.abs(a - b).max() <= SEGMENT_RTOL * max(1.0, np.abs(b).max()), name


@pytest.mark.parametrize("stops", [(), (3,), (1, 2, 3, 4, 5, 6, 7), (2, 2, 5)], ids=str)
def test_any_stops(stops: tuple[int, ...]) -> None:
    assert_walked(model(CHAIN, CHAIN_WEIGHTS), stops)


def test_every_tensor_is_seen() -> None:
    proto = model(CHAIN, CHAIN_WEIGHTS)
    walk = SegmentRunner(proto, feeds_for(proto, (2,)))
    found = [walk.advance(stop, made(proto))[0] for stop in range(1, 9)]
    assert set().union(*found) == set(made(proto))


def test_what_is_alive_is_handed_back_and_what_is_not_is_dropped() -> None:
    proto = model(CHAIN, CHAIN_WEIGHTS)
    (feeds,) = feeds_for(proto, (2,))
    walk = SegmentRunner(proto, [feeds])
    assert set(walk.advance(0, ["x", "a"])[0]) == {"x"}
    assert set(walk.advance(1, ["x", "a"])[0]) == {"x", "a"}  # x is still there when asked for, but gone afterwards
    assert set(walk.advance(3, ["x", "a", "r", "c"])[0]) == {"a", "r", "c"}
    assert set(walk.advance(3, ["x", "a", "r", "c"])[0]) == {"a", "c"}
    assert set(walk.advance(8, ["a", "y"])[0]) == {"a", "y"}
    assert walk.advance(8, ["a", "y"]) == [{}]


def test_nothing_is_run_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = model(CHAIN, CHAIN_WEIGHTS)
    ran = list[str]()
    inner = SegmentRunner._session

    def counted(self: SegmentRunner, start: int, stop: int, after: Sequence[str]) -> Session:
        ran.extend(self.proto.graph.node[i].output[0] for i in range(start, stop))
        return inner(self, start, stop, after)

    monkeypatch.setattr(SegmentRunner, "_session", counted)
    walk = SegmentRunner(proto, feeds_for(proto, (1,)))
    for stop in (2, 2, 5, 4, 8):
        walk.advance(stop, ["y"])
    assert ran == made(proto)


def test_constants_made_by_nodes() -> None:
    text = """(float[N,3,6,6] x) => (float y) {
        k = Mul (w, two) m = Neg (k) a = Conv (x, m) r = Relu (a) c = Conv (r, v) d = Mul (c, k0) y = Add (d, e) }"""
    proto = model(text, {"w": (4, 3, 3, 3), "v": (4, 4, 3, 3), "k0": (1, 4, 1, 1), "e": (4, 1, 1)}, values={"two": 2.0})
    as_constant_nodes(proto, ["v", "two", "e"])
    for stops in ((), tuple(range(1, len(proto.graph.node)))):
        assert_walked(proto, stops)


def test_random_nodes_are_run_once() -> None:
    text = """(float[N,4] x) => (float y) {
        n = RandomUniform <shape=[1,4]> () r = RandomNormal <shape=[1,4]> () m = Add (n, r) a = Add (x, m)
        y = Sub (a, m) }"""
    proto = model(text)
    (feeds,) = feeds_for(proto, (2,))
    walk = SegmentRunner(proto, [feeds])
    walk.advance(4)
    np.testing.assert_allclose(walk.advance(5, ["y"])[0]["y"], feeds["x"], atol=1e-6)  # the noise was the same


def test_bodies_that_capture() -> None:
    text = """(float[N,4] x) => (float y) {
        a = MatMul (x, w) r = Relu (a) s = ReduceSum <keepdims=0> (r) q = Greater (s, zero)
        i = If (q) <
            then_branch = then () => (float[N,4] t) { t0 = MatMul (r, v) t = Add (t0, k) },
            else_branch = other () => (float[N,4] o) { o = Identity (a) }
        >
        d = Neg (x) y = Add (i, d) }"""
    proto = model(text, {"w": (4, 4), "v": (4, 4), "k0": (4,)}, values={"zero": 0.0})
    proto.graph.node.insert(3, helper.make_node("Neg", ["k0"], ["k"]))  # a constant that only the body reads
    for stops in ((), tuple(range(1, len(proto.graph.node)))):
        assert_walked(proto, stops)


def test_several_inputs() -> None:
    text = """(float[N,4] x, float[N,4] z, float[1,4] late) => (float y) {
        a = MatMul (x, w) r = Relu (a) b = Add (r, z) c = MatMul (b, v) y = Mul (c, late) }"""
    proto = model(text, {"w": (4, 4), "v": (4, 4)})
    assert_walked(proto, (1, 2, 3, 4))
    feeds = [{**feed, "unknown": np.zeros(3)} for feed in feeds_for(proto, (2,))]
    assert set(SegmentRunner(proto, feeds).advance(0, ["x", "z", "late", "unknown"])[0]) == {"x", "z", "late"}


def test_several_outputs_and_unused_ones() -> None:
    text = """(float[N,6,4] x) => (float y) {
        a, b = Split <axis=1> (x, s) c, i = TopK <axis=1> (b, k) r = Relu (a) y = Add (r, c) }"""
    assert_walked(model(text, values={"s": [3, 3], "k": [3]}), (1, 2, 3))


def test_weights_listed_as_inputs() -> None:
    assert_walked(model(CHAIN, CHAIN_WEIGHTS, opset=8, ir_version=3), (1, 3, 6))


def test_external_data(tmp_path: Path) -> None:
    path = write_external(tmp_path / "m.onnx", model(CHAIN, CHAIN_WEIGHTS))
    proto = onnx.load(path, load_external_data=False)
    assert_walked(proto, (2, 5), folder=tmp_path)


def test_sparse_initializers() -> None:
    proto = model("(float[N,4] x) => (float y) { a = MatMul (x, w) r = Relu (a) y = MatMul (r, v) }", {"w": (4, 4)})
    values = numpy_helper.from_array(np.array([1.0, 2.0, -1.0], np.float32), "v")
    places = numpy_helper.from_array(np.array([0, 5, 11]), "at")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4, 4]))
    assert_walked(proto, (1, 2))


def test_weights_changed_ahead_take_effect() -> None:
    proto = model(CHAIN, CHAIN_WEIGHTS)
    feeds = feeds_for(proto, (2,))
    before = exposed(proto, ["y"], feeds)[0]["y"]
    walk = SegmentRunner(proto, feeds)
    walk.advance(2)
    tensor = next(t for t in proto.graph.initializer if t.name == "v")
    tensor.raw_data = (2 * numpy_helper.to_array(tensor)).tobytes()
    after = exposed(proto, ["y"], feeds)[0]["y"]
    assert np.abs(after - before).max() > 0.1
    np.testing.assert_allclose(walk.advance(8, ["y"])[0]["y"], after, rtol=1e-5, atol=1e-6)


def test_weights_added_ahead_take_effect() -> None:
    proto = model(CHAIN, CHAIN_WEIGHTS)
    feeds = feeds_for(proto, (2,))
    walk = SegmentRunner(proto, feeds)
    walk.advance(2)
    proto.graph.initializer.append(numpy_helper.from_array(np.arange(4, dtype=np.float32), "new"))
    proto.graph.node[2].input.append("new")
    np.testing.assert_allclose(
        walk.advance(8, ["y"])[0]["y"], exposed(proto, ["y"], feeds)[0]["y"], rtol=1e-5, atol=1e-6
    )


def test_half_precision_passes_from_segment_to_segment() -> None:
    text = "(float16[N,4] x) => (float16[N,4] y) { a = MatMul (x, w) r = Relu (a) y = MatMul (r, w) }"
    proto = model(text)
    proto.graph.initializer.append(numpy_helper.from_array(np.eye(4, dtype=np.float16)[::-1], "w"))
    x = np.arange(8).reshape(2, 4).astype(np.float16)
    walk = SegmentRunner(proto, [{"x": x}])
    walk.advance(1)
    found = walk.advance(3, ["y"])[0]["y"]
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, x)
