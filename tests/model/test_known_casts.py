"""CastLike of constants: read as the Cast that it is, and written as it was."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from helpers import Case, folds, model, oracles_hold, refused_for
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tiny import fold

from onnxfold.analysis.analyze import analyze
from onnxfold.model.entry import entered
from onnxfold.model.known_casts import known_casts, with_casts_like
from onnxfold.model.model import load

ROWS = "(float[N,6] x) => (float y) "
LAYERS = " h = MatMul(x, a) r = Relu(h) y = MatMul(r, c) }"
WEIGHTS = {"w": (6, 16), "v": (16, 5)}


def half(proto: ModelProto, *names: str) -> ModelProto:
    """These weights in float16."""
    for tensor in [t for t in proto.graph.initializer if t.name in names]:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    return proto


def like(case: Case) -> ModelProto:
    return half(case.model(), "w", "v", "g", "b")


CASES = [
    Case("like the input", ROWS + "{ a = CastLike(w, x) c = CastLike(v, x)" + LAYERS, WEIGHTS, (16,)),
    Case("like another weight", ROWS + "{ a = CastLike(w, f) c = CastLike(v, f)" + LAYERS,
         {**WEIGHTS, "f": (1,)}, (16,)),
    Case("like what is computed", ROWS + "{ k = Neg(x) a = CastLike(w, k) c = CastLike(v, x)" + LAYERS, WEIGHTS, (16,)),
    Case("twice", ROWS + "{ k = CastLike(w, x) a = CastLike(k, x) c = CastLike(v, x)" + LAYERS, WEIGHTS, (16,)),
    Case("turned", ROWS + "{ k = CastLike(w, x) a = Transpose(k) c = CastLike(v, x)" + LAYERS,
         {**WEIGHTS, "w": (16, 6)}, (16,)),
    Case("scale and bias", ROWS + "{ a = CastLike(w, x) c = CastLike(v, x) g1 = CastLike(g, x) b1 = CastLike(b, x)"
         "h = MatMul(x, a) k = Mul(h, g1) l = Add(k, b1) r = Relu(l) y = MatMul(r, c) }",
         {**WEIGHTS, "g": (16,), "b": (16,)}, (16,)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cast_like_is_cast(case: Case) -> None:
    proto = like(case)
    loaded = load(proto)
    assert "CastLike" not in {n.op for n in loaded.graph.nodes}
    refused_for(analyze(loaded), [])
    oracles_hold(half(case.model(), "g"), groups=case.groups)  # weights that float16 does not round, to see exactness
    folds(proto)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_written_as_it_was(case: Case) -> None:
    proto = like(case)
    result = fold(proto, ratio=0.5, latency=False)
    assert list(result.model.graph.node) == list(proto.graph.node)
    held = {t.name: t for t in result.model.graph.initializer}
    assert held["w"].data_type == TensorProto.FLOAT16 and 8 in held["w"].dims
    onnx.checker.check_model(result.model, full_check=True)


def test_numbers_behind_one() -> None:
    """A factor that takes the type of what it multiplies, as exporters by functions write it."""
    text = ROWS + "{ h = MatMul(x, w) k = CastLike(two, h) l = Mul(h, k) r = Relu(l) y = MatMul(r, v) }"
    proto = model(text, WEIGHTS, {"two": np.float16(2.0)})
    oracles_hold(proto, groups=(16,))
    assert "k" in load(proto).constants


def test_one_of_data_stays() -> None:
    proto = model(ROWS + "{ k = CastLike(x, w) h = MatMul(k, w) r = Relu(h) y = MatMul(r, v) }", WEIGHTS)
    assert entered(proto)[0] is proto
    oracles_hold(proto, groups=(16,))


def test_put_back_only_where_it_means_the_same() -> None:
    """Where the example is made later, has another type, or is gone, the Cast stays."""
    text = ROWS + "{ k = Neg(x) a = CastLike(w, k) h = MatMul(x, a) r = Relu(h) y = MatMul(r, v) }"
    seen, found = known_casts(half(model(text, WEIGHTS), "w"))
    assert [n.op_type for n in with_casts_like(seen, found).graph.node][1] == "CastLike"

    def later(proto: ModelProto) -> None:
        nodes = list(proto.graph.node)
        del proto.graph.node[:]
        proto.graph.node.extend([nodes[1], nodes[0], *nodes[2:]])

    def another(proto: ModelProto) -> None:
        proto.graph.node[0].CopyFrom(helper.make_node("Cast", ["x"], ["k"], to=TensorProto.FLOAT16))

    def gone(proto: ModelProto) -> None:
        del proto.graph.node[0]

    for change in (later, another, gone):
        version = ModelProto()
        version.CopyFrom(seen)
        change(version)
        assert "CastLike" not in {n.op_type for n in with_casts_like(version, found).graph.node}, change.__name__
