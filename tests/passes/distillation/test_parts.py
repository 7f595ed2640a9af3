"""What is trained, where versions are compared, and BatchNormalization as an affine map."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from helpers import as_constant_nodes, model
from onnx import ModelProto, helper

from onnxfold.passes.distillation.batches import BatchSampler
from onnxfold.passes.distillation.block_targets import Counterparts, Map, Target, blocks
from onnxfold.passes.distillation.bn_affine import spell_out
from onnxfold.passes.distillation.variables import as_inputs, variables
from onnxfold.runtime.batching import Batching
from onnxfold.runtime.session import InputSpec, Session

RESIDUAL = """(float[2,3,8,8] x) => (float[2,4] y) {
    a = Conv <pads: ints = [1, 1, 1, 1]> (x, w0, b0)
    r0 = Relu (a)
    c = Conv <pads: ints = [1, 1, 1, 1]> (r0, w1)
    n = BatchNormalization (c, scale1, shift1, mean1, var1)
    r1 = Relu (n)
    d = Conv <pads: ints = [1, 1, 1, 1]> (r1, w2)
    s = Add (d, r0)
    m = BatchNormalization (s, scale2, shift1, mean1, var2)
    r2 = Relu (m)
    p = GlobalAveragePool (r2)
    f = Flatten (p)
    g = MatMul (f, v)
    y = Add (g, vb)
}"""
SAME = Counterparts()
SHAPES: dict[str, Any] = {
    "w0": (6, 3, 3, 3), "b0": (6,), "w1": (6, 6, 3, 3), "scale1": (6,), "shift1": (6,), "mean1": (6,), "var1": (6,),
    "w2": (6, 6, 3, 3), "scale2": (6,), "var2": (6,), "v": (6, 4), "vb": (4,),
}  # fmt: skip


def residual() -> ModelProto:
    return onnx.shape_inference.infer_shapes(model(RESIDUAL, SHAPES))


# variables ----------------------------------------------------------------------------------------------------------


def test_weights_biases_scales_and_shifts_are_trained_statistics_are_not() -> None:
    assert set(variables(residual().graph)) == set(SHAPES) - {"mean1", "var1", "var2"}


def test_weights_in_constant_nodes_are_trained() -> None:
    proto = as_constant_nodes(residual(), ["w1", "scale1"])
    before = variables(residual().graph)
    found = variables(proto.graph)
    assert set(found) == set(before) and np.array_equal(found["w1"], before["w1"])


def test_a_shared_weight_is_one_variable_however_it_is_shaped() -> None:
    text = """(float[2,6] x) => (float[2,6] y) {
        t = Transpose (w)
        i = Identity (w)
        a = MatMul (x, w)
        b = MatMul (a, t)
        c = MatMul (b, i)
        y = Gather <axis: int = 1> (c, rows)
    }"""
    proto = model(text, {"w": (6, 6)}, {"rows": [0, 1, 2, 3, 4, 5]})
    assert list(variables(proto.graph)) == ["w"]


def test_what_is_added_is_trained_only_as_a_bias() -> None:
    text = """(float[2,5,6] x) => (float[2,5,6] y) {
        a = Add (x, mask)
        b = Add (a, places)
        c = MatMul (b, w)
        y = Add (c, bias)
    }"""
    proto = model(text, {"mask": (1, 5, 6), "places": (6,), "w": (6, 6), "bias": (6,)})
    assert set(variables(proto.graph)) == {"w", "bias"}


def test_a_table_of_words_is_not_trained() -> None:
    text = "(int64[2,5] x) => (float[2,5,4] y) { e = Gather (table, x)\n y = MatMul (e, w) }"
    assert set(variables(model(text, {"table": (9, 6), "w": (6, 4)}).graph)) == {"w"}


def test_variables_become_inputs() -> None:
    proto = as_constant_nodes(residual(), ["w1"])
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    expected = Session(proto.SerializeToString()).run({"x": x})[0]
    found = variables(proto.graph)
    as_inputs(proto, found)
    session = Session(proto.SerializeToString())
    assert {i.name for i in session.inputs} == {"x", *found}
    np.testing.assert_allclose(session.run({"x": x, **found})[0], expected, rtol=1e-5)  # other kernels, reordered sums


# the outputs of blocks ----------------------------------------------------------------------------------------------


def names(targets: list[Target]) -> list[str]:
    return [target.name for target in targets]


def test_blocks_of_a_residual_network_are_its_streams() -> None:
    graph = residual().graph
    assert names(blocks(graph, graph, SAME, {"y"})) == ["r0", "f"]  # r2 and what follows up to the next linear node: f


def test_every_layer_of_a_chain_is_a_block() -> None:
    text = """(float[2,6] x) => (float[2,3] y) {
        a = Gemm (x, w0)
        b = Relu (a)
        c = Gemm (b, w1)
        d = Relu (c)
        y = Gemm (d, w2)
    }"""
    shapes: dict[str, Any] = {"w0": (6, 8), "w1": (8, 7), "w2": (7, 3)}
    graph = onnx.shape_inference.infer_shapes(model(text, shapes)).graph
    assert names(blocks(graph, graph, SAME, {"y"})) == ["b", "d"]
    narrow = onnx.shape_inference.infer_shapes(model(text, {"w0": (6, 8), "w1": (8, 5), "w2": (5, 3)})).graph
    assert names(blocks(graph, narrow, SAME, {"y"})) == ["b"]
    how = Map(1, np.eye(7, dtype=np.float32)[:5])
    assert blocks(graph, narrow, Counterparts({"d": how}), {"y"}) == [Target("b", "b"), Target("d", "d", how)]
    assert names(blocks(graph, narrow, Counterparts({"d": Map(1, np.eye(7, dtype=np.float32)[:4])}), {"y"})) == ["b"]


def test_branches_are_no_blocks_but_where_they_join_is_one() -> None:
    text = """(float[2,6] x) => (float[2,6] y, float[2,6] z) {
        a = MatMul (x, w0)
        b = MatMul (x, w1)
        s = Add (a, b)
        y = MatMul (s, w2)
        z = MatMul (b, w2)
    }"""
    graph = onnx.shape_inference.infer_shapes(model(text, {"w0": (6, 6), "w1": (6, 6), "w2": (6, 6)})).graph
    assert names(blocks(graph, graph, SAME, {"y", "z"})) == ["s"]


def test_nothing_before_the_first_weight_is_a_block() -> None:
    text = "(float[2,6] x) => (float[2,6] y) { a = Relu (x)\n b = MatMul (a, w)\n c = Relu (b)\n y = MatMul (c, w) }"
    graph = onnx.shape_inference.infer_shapes(model(text, {"w": (6, 6)})).graph
    assert names(blocks(graph, graph, SAME, {"y"})) == ["c"]


# BatchNormalization -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["none", "epsilon", "identity behind the convolution"])
def test_spelled_out_normalization_computes_the_same(change: str) -> None:
    proto = residual()
    if change == "epsilon":
        for node in proto.graph.node:
            if node.op_type == "BatchNormalization":
                node.attribute.append(helper.make_attribute("epsilon", 0.3))
    elif change != "none":  # what a normalization takes may be made between it and the convolution before it
        index = next(i for i, node in enumerate(proto.graph.node) if node.op_type == "BatchNormalization")
        proto.graph.node[index].input[2] = "copy"
        proto.graph.node.insert(index, helper.make_node("Identity", ["shift1"], ["copy"]))
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    expected = Session(proto.SerializeToString()).run({"x": x})[0]
    spell_out(proto.graph)
    ops = [node.op_type for node in proto.graph.node]
    assert "BatchNormalization" not in ops and ops.count("Add") == 3  # one goes into its convolution, the other stays
    found = Session(proto.SerializeToString()).run({"x": x})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)  # float32, reordered products


# batches ------------------------------------------------------------------------------------------------------------


def specs(*shape: int | str) -> list[InputSpec]:
    return [InputSpec("x", np.float32, shape)]


def test_every_sample_comes_once_before_any_comes_again() -> None:
    feeds = [{"x": np.arange(i, i + 4, dtype=np.float32).reshape(4, 1)} for i in (0, 4)]
    sampler = BatchSampler.of(feeds, specs("N", 1), 3)
    assert sampler.shapes == {"x": (3, 1)}
    batches = sampler.draw(np.random.default_rng(0))
    drawn = np.concatenate([next(batches)["x"].ravel() for _ in range(8)])
    assert all(sorted(drawn[i : i + 8]) == list(range(8)) for i in (0, 8, 16))


def test_inputs_of_one_number_a_sample() -> None:
    """Like the time step of a diffusion model."""
    feed = {"x": np.ones((4, 3), np.float32), "t": np.arange(4, dtype=np.float32)}
    inputs = [InputSpec("x", np.float32, ("N", 3)), InputSpec("t", np.float32, ("N",))]
    sampler = BatchSampler.of([feed], inputs, 2)
    drawn = next(sampler.draw(np.random.default_rng(0)))
    assert sampler.shapes == {"x": (2, 3), "t": (2,)} == {name: x.shape for name, x in drawn.items()}


def test_a_fixed_batch_is_drawn_as_it_is() -> None:
    feeds = [{"x": np.full((2, 3), i, np.float32)} for i in range(3)]
    assert Batching.of(specs(2, 3)).size == 2
    sampler = BatchSampler.of(feeds, specs(2, 3), 64)
    batches = sampler.draw(np.random.default_rng(0))
    assert sorted(float(next(batches)["x"][0, 0]) for _ in range(3)) == [0, 1, 2]


def test_texts_are_spliced() -> None:
    """Word w of text t is 100 t + w: pieces of all texts, in their order, between the own first and last word. No text
    is longer than the usual one."""
    lengths, words = np.array([12, 20, 5, 2]), np.arange(20)
    mask = (words < lengths[:, None]).astype(np.int64)
    feed = {"ids": (100 * np.arange(4)[:, None] + words) * mask, "mask": mask, "places": np.tile(words, (4, 1))}
    inputs = [InputSpec(name, np.int64, ("N", "T")) for name in feed]
    sampler = BatchSampler.of([feed], inputs, 4, mask="mask")
    drawn = next(sampler.draw(np.random.default_rng(0)))
    order = drawn["ids"][:, 0] // 100
    assert sorted(order) == [0, 1, 2, 3]
    assert sampler.words == 16 and sampler.shapes == dict.fromkeys(feed, (4, 16))  # half of 5 + 12, rounded up
    np.testing.assert_array_equal(drawn["mask"], mask[order, :16])
    np.testing.assert_array_equal(drawn["places"], feed["places"][:, :16])
    for text, ids in zip(order, drawn["ids"], strict=True):
        count = min(16, lengths[text])
        assert ids[count - 1] == 100 * text + lengths[text] - 1 and not ids[count:].any()
        inner = ids[1 : count - 1]
        assert all(0 < one % 100 < lengths[one // 100] - 1 for one in inner)
        joints = int((np.diff(inner) != 1).sum())
        assert joints <= len(inner) // 2
    together = drawn["ids"][order == 1][0, 1:15] // 100
    assert len(set(together)) > 1


def test_images_are_moved_and_nothing_else_is() -> None:
    image = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
    table = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    for x, same in ((image, False), (table, True)):
        drawn = next(BatchSampler.of([{"x": x}], specs("N", *x.shape[1:]), 4).draw(np.random.default_rng(0)))["x"]
        if same:
            assert sorted(drawn.tolist()) == sorted(x.tolist())
        else:
            assert sorted(np.sort(drawn, axis=None)) == sorted(np.sort(x, axis=None)) and not np.array_equal(drawn, x)
            each = [np.sort(one, axis=None) for one in x]
            assert all(any(np.array_equal(np.sort(one, axis=None), other) for other in each) for one in drawn)
