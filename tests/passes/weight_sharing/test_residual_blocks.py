"""Residual blocks: found where they are, dropped without a trace, and made up for by what is left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from alike import two_blocks, weights, with_values
from helpers import model, run
from numpy.typing import NDArray
from onnx import ModelProto

from onnxfold.analysis.analyze import analyze
from onnxfold.errors import PlanError, RequestError
from onnxfold.evaluation.candidates import Evaluator
from onnxfold.evaluation.metrics import relative_l2
from onnxfold.model.model import Model, load
from onnxfold.options.choices import Fusion
from onnxfold.passes.weight_sharing.fuse import Fused, FuseSettings, fuse_layers, repaired
from onnxfold.passes.weight_sharing.layers import layers
from onnxfold.passes.weight_sharing.residual_blocks import Block, blocks, bypasses, influence, whole_blocks, writers
from onnxfold.passes.weight_sharing.search import blocks_asked, least_missed

EXACT = 1e-6  # float32; a block of zeros adds exactly nothing


def without(loaded: Model, *gone: Block) -> Fused:
    instead, aims = bypasses(loaded.graph, gone)
    return replace(fuse_layers(loaded, analyze(loaded), [], FuseSettings(Fusion.MEAN), bypass=instead), aims=aims)


def samples(count: int = 64, seed: int = 1) -> list[dict[str, NDArray[np.float32]]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal((count, 3, 8, 8), dtype=np.float32)}]


def test_found_with_their_layers() -> None:
    loaded = load(two_blocks())
    first, second = blocks(loaded)
    assert (first.skip, first.total, first.root) == ("r", "s1", "h")
    assert (second.skip, second.total, second.root) == ("r1", "s2", "s1")
    names = [{o for i in block.nodes for o in loaded.graph.nodes[i].outputs} for block in (first, second)]
    assert names == [{"a1", "n1", "k1", "c1"}, {"a2", "n2", "k2", "c2"}]
    (kind,) = whole_blocks([first, second], layers(loaded)[0])
    assert [[layer.weight for layer in unit] for unit in kind] == [["u1", "v1"], ["u2", "v2"]]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a = Conv(x, p) b = Conv(x, q) y = Add(a, b)", "a projection is no identity"),
        ("a = Conv(x, p) b = Relu(a) s = Add(b, a) t = Mul(b, s) y = Conv(t, q)", "the branch is read elsewhere"),
        ("a = Conv(x, p) b = Relu(a) y = Add(b, a)", "the sum is an output"),
        ("a = Conv(x, p) b = GlobalAveragePool(a) y0 = Add(c, b) y = Conv(y0, q)", "a constant is no skip"),
        ("a = GlobalAveragePool(x) b = Conv(x, p) s = Add(a, b) y = Conv(s, q)", "shapes broadcast"),
    ],
)
def test_not_found_where_there_is_none(text: str, why: str) -> None:
    shapes = {"p": (3, 3, 1, 1), "q": (3, 3, 1, 1), "c": (1, 3, 1, 1)}
    used = {name: shape for name, shape in shapes.items() if f" {name})" in text or f"({name}," in text}
    assert blocks(load(model(f"(float[N,3,4,4] x) => (float y) {{ {text} }}", used))) == [], why


def test_a_block_with_another_inside_is_left() -> None:
    text = """(float[N,4] x) => (float y) { a = Relu(x) b = MatMul(a, p) c = Relu(b) d = MatMul(c, q) s = Add(d, b)
              e = MatMul(s, r) t = Add(e, a) y = MatMul(t, u) }"""
    found = blocks(load(model(text, {name: (4, 4) for name in "pqru"})))
    assert [(block.skip, block.total) for block in found] == [("b", "s")]


def test_a_block_that_adds_nothing_goes_without_a_change() -> None:
    held = weights(two_blocks())
    proto = with_values(two_blocks(), v2=0 * held["v2"])
    loaded = load(proto)
    found = blocks(loaded)
    far = influence(loaded, found, samples())
    assert far[found[1].name] <= EXACT < 0.05 < far[found[0].name]
    made = without(loaded, found[1]).proto
    errors = [relative_l2(a, b) for a, b in zip(run(loaded, proto), run(loaded, made), strict=True)]
    assert max(errors) <= EXACT
    left = {o for n in made.graph.node for o in n.output}
    assert not left & {"a2", "n2", "k2", "c2", "s2", "r2"}, "and the Relu that would do nothing either"
    assert not set(weights(made)) & {"u2", "v2", "scale2", "beta2", "mean2", "var2"}
    onnx.checker.check_model(made, full_check=True)


def test_declared_shapes_of_what_is_gone_go_too() -> None:
    proto = onnx.shape_inference.infer_shapes(two_blocks())
    assert "c2" in {v.name for v in proto.graph.value_info}
    loaded = load(proto)
    made = without(loaded, *blocks(loaded)).proto
    names = {o for n in made.graph.node for o in n.output}
    assert {v.name for v in made.graph.value_info} <= names


def test_several_in_a_row() -> None:
    loaded = load(two_blocks())
    instead, aims = bypasses(loaded.graph, blocks(loaded))
    assert aims == {"h": "s2"}
    made = without(loaded, *blocks(loaded)).proto
    assert [n.op_type for n in made.graph.node] == ["Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"]
    assert set(instead) == {"s1", "r1", "s2", "r2"}


def small(proto: ModelProto) -> ModelProto:
    """The second block adds little."""
    return with_values(proto, v2=0.2 * weights(proto)["v2"])


def test_what_is_left_makes_up_for_it() -> None:
    """Refitted consumers, or with an aim the last writer too: both nearer to the original on inputs not seen."""
    loaded = load(small(two_blocks()))
    made = without(loaded, blocks(loaded)[1])
    instead = frozenset(bypasses(loaded.graph, blocks(loaded)[1:])[0].values())
    consumers = repaired(Fused(made.base, made.proto, made.changed), samples(), instead)
    writer = repaired(made, samples(), instead | writers(loaded, made.aims))
    errors = [error(loaded, version.proto) for version in (made, consumers, writer)]
    assert errors[1] < 0.7 * errors[0] and errors[2] < 0.7 * errors[0]
    assert {one.output for one in writer.refitted} >= {"c1", "y"} and "c1" not in {o.output for o in consumers.refitted}


def error(loaded: Model, proto: ModelProto) -> float:

    return Evaluator(loaded, lambda _: samples(seed=2)).error(proto)


def test_the_least_missed_go_first() -> None:
    found = [Block(f"b{i}", "s", f"t{i}", (i,), "s") for i in range(9)]
    far = {block.name: i / 10 for i, block in enumerate(found)}
    worth = {"b0": 5.0, "b1": 1.0, "b2": 9.0, "b7": 0.1}  # b7 does least, but is not among the nearest to the identity

    def total(gone: object) -> float:
        assert isinstance(gone, list)
        return sum(worth.get(block.name, 3.0) for block in gone)

    assert [block.name for block in least_missed(found, 1, far, total)] == ["b1"]
    assert [block.name for block in least_missed(found, 3, far, total)] == ["b1", "b3", "b7"]


@pytest.mark.parametrize(("text", "count"), [("3", 3), ("25%", 2), ("1%", 1), ("100%", 9)])
def test_how_many(text: str, count: int) -> None:
    assert blocks_asked(text, 9) == count


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "x", "101%", "0%", "nan", "inf"])
def test_how_many_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="`drop_blocks` must be"):
        blocks_asked(text, 9)


def test_more_than_there_are() -> None:
    with pytest.raises(PlanError, match="9 residual blocks"):
        blocks_asked("10", 9)
