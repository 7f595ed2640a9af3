"""Sparse weights: kept as they are, counted by the numbers that are stored, and named as the reason."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from helpers import fold_by, model, oracles_hold
from onnx import ModelProto, SparseTensorProto, helper, numpy_helper
from tiny import fold

from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.costs import costs, count_parameters
from onnxfold.model.model import load
from onnxfold.model.sparse import SPARSE_INITIALIZER, SPARSE_VALUE

TEXT = """(float[N,6] x) => (float y) {
    h = Gemm<transB = 1>(x, w) r = Relu(h) o = MatMul(r, u) p = Relu(o) y = MatMul(p, v) }"""
TURNED = TEXT.replace("h = Gemm<transB = 1>(x, w)", "t = Transpose(w) h = MatMul(x, t)")
WEIGHTS = {"w": (16, 6), "u": (16, 12), "v": (12, 5)}


def sparse(name: str, flat: bool) -> SparseTensorProto:
    """A matrix of 16 rows of which every third number is stored."""
    places = np.arange(0, 96, 3, dtype=np.int64)
    values = np.random.default_rng(0).standard_normal(len(places)).astype(np.float32)
    indices = places if flat else np.stack(np.unravel_index(places, (16, 6)), axis=1).astype(np.int64)
    return helper.make_sparse_tensor(
        numpy_helper.from_array(values, name), numpy_helper.from_array(indices, f"{name}_indices"), [16, 6]
    )


def as_initializer(proto: ModelProto) -> None:
    proto.graph.sparse_initializer.append(sparse("w", flat=True))


def as_coordinates(proto: ModelProto) -> None:
    proto.graph.sparse_initializer.append(sparse("w", flat=False))


def as_constant(proto: ModelProto) -> None:
    node = helper.make_node("Constant", [], ["w"], "held", sparse_value=sparse("", flat=False))
    proto.graph.node.insert(0, node)


FORMS = [(as_initializer, SPARSE_INITIALIZER), (as_coordinates, SPARSE_INITIALIZER), (as_constant, SPARSE_VALUE)]


def net(text: str, put: Callable[[ModelProto], None]) -> ModelProto:
    proto = model(text, WEIGHTS)
    proto.graph.initializer.remove(next(t for t in proto.graph.initializer if t.name == "w"))
    put(proto)
    return proto


@pytest.mark.parametrize("text", [TEXT, TURNED], ids=["plain", "turned"])
@pytest.mark.parametrize("put, reason", FORMS)
def test_sparse_weights_are_kept(text: str, put: Callable[[ModelProto], None], reason: str) -> None:
    proto = net(text, put)
    found = oracles_hold(proto, groups=(12,))
    result = fold(proto, ratio=0.5, latency=False)
    assert result.report.check is not None and result.report.check.passed
    assert result.model.graph.sparse_initializer == proto.graph.sparse_initializer
    (refusal,) = [r for r in found.refusals if r.kind == reason]
    assert refusal.channels == 16 and refusal.parameters == 32
    assert not any("mixes" in r.kind for r in found.refusals)


@pytest.mark.parametrize("put, reason", FORMS)
def test_only_what_is_stored_is_counted(put: Callable[[ModelProto], None], reason: str) -> None:
    proto = net(TEXT, put)
    whole = 32 + 16 * 12 + 12 * 5
    assert analyze(load(proto)).parameters == whole == count_parameters(proto) == costs(load(proto)).params({})
    result = fold_by({analyze(load(proto)).groups[0].name: np.arange(12) // 2}, proto)
    assert count_parameters(result) == 32 + 16 * 6 + 6 * 5 == costs(load(result)).params({}), reason


@pytest.mark.parametrize("put, reason", FORMS)
def test_the_numbers_that_are_not_stored_are_zero(put: Callable[[ModelProto], None], reason: str) -> None:
    array = load(net(TEXT, put)).constants.array("w")
    assert array.shape == (16, 6) and np.array_equal(np.flatnonzero(array), np.arange(0, 96, 3)), reason


def test_what_is_computed_of_one_says_so() -> None:
    text = TEXT.replace("h = Gemm<transB = 1>(x, w)", "t = Transpose(w) k = Abs(t) h = MatMul(x, k)")
    found = analyze(load(net(text, as_initializer)))
    assert [r.kind for r in found.refusals if r.channels] == [SPARSE_INITIALIZER, "a graph output"], found.refusals
