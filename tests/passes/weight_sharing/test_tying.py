"""Which layers can share a weight, and files in which they do: smaller, valid, and run by onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from alike import chain, permuted_copy, two_blocks, weight_of, weights, with_values
from helpers import as_constant_nodes, as_inputs, model, run
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from onnxfold.analysis.analyze import analyze
from onnxfold.evaluation.metrics import relative_l2
from onnxfold.model.model import load
from onnxfold.model.save import staged
from onnxfold.options.choices import Fusion
from onnxfold.passes.weight_sharing.distances import Class, Partition, alone
from onnxfold.passes.weight_sharing.fuse import Fused, FuseSettings, fuse_layers
from onnxfold.passes.weight_sharing.layers import layers
from onnxfold.passes.weight_sharing.tying import fused

EXACT = 1e-6  # float32: a mean of two equal numbers, and sums in another order


def shared(proto: ModelProto, *names: str, how: Fusion = Fusion.MEAN, path: Path | None = None) -> Fused:
    """The model with one weight for the layers of the weights `names`."""
    loaded = load(path or proto)
    found = {layer.weight: layer for layer in layers(loaded)[0]}
    return fuse_layers(loaded, analyze(loaded), [[found[name] for name in names]], FuseSettings(how))


# which layers -------------------------------------------------------------------------------------------------------


def test_layers_of_one_kind_are_together() -> None:
    kinds = alone(layers(load(two_blocks()))[0])
    assert [[unit[0].weight for unit in kind] for kind in kinds] == [["u1", "u2"], ["v1", "v2"]]


@pytest.mark.parametrize(
    ("text", "shapes", "reason"),
    [
        ("a = MatMul(x, w) t = Transpose(v) y = MatMul(a, t)", {"w": (6, 6), "v": (6, 6)}, "computed by Transpose"),
        ("a = MatMul(x, w) c = MatMul(a, v) y = Mul(c, v)", {"w": (6, 6), "v": (6, 6)}, "also read by Mul"),
        ("a = MatMul(x, w) y = Gemm<alpha=0.5>(a, v)", {"w": (6, 6), "v": (6, 6)}, "Gemm in an unsupported form"),
        ("a = MatMul(x, w) c = MatMul(a, v) y = Add(v, c)", {"w": (6, 6), "v": (6, 6)}, "also read by Add"),
    ],
    ids=["computed", "read elsewhere", "alpha", "added"],
)
def test_refused_with_one_reason(text: str, shapes: dict[str, tuple[int, ...]], reason: str) -> None:
    found, left = layers(load(model(f"(float[6,6] x) => (float y) {{ {text} }}", shapes)))
    assert [layer.weight for layer in found] == ["w"]
    assert len(left) == 1 and reason in left[0].why


def test_weights_stored_as_integers_are_refused() -> None:
    values = {"q": np.ones((6, 6), np.int8), "s": np.float32(0.1)}
    text = "(float[N,6] x) => (float y) { w = DequantizeLinear(q, s) a = MatMul(x, w) y = MatMul(a, v) }"
    found, left = layers(load(model(text, {"v": (6, 6)}, values)))
    assert [layer.weight for layer in found] == ["v"] and "stored as integers" in left[0].why


def test_a_weight_that_is_shared_already_is_one_layer() -> None:
    text = "(float[N,6] x) => (float y) { a = MatMul(x, w) b = Relu(a) c = MatMul(b, w) d = Relu(c) y = MatMul(d, v) }"
    proto = model(text, {"w": (6, 6), "v": (6, 6)})
    found, _ = layers(load(proto))
    assert [(layer.weight, layer.nodes) for layer in found] == [("w", (0, 2)), ("v", (4,))]
    after = shared(proto, "w", "v").proto
    assert {n.input[1] for n in after.graph.node if n.op_type == "MatMul"} == {"w"}


# how ----------------------------------------------------------------------------------------------------------------


def test_mean_mix_and_freeze() -> None:
    rng = np.random.default_rng(0)
    three = [rng.standard_normal((30, 40)) for _ in range(3)]
    three[2] = (three[0] + three[1]) / 2 + 0.01 * three[2]  # the nearest to both
    assert np.allclose(fused(three, Fusion.MEAN), sum(three) / 3)
    mixed = fused(three, Fusion.MIX)
    of = [float((mixed == one).mean()) for one in three]
    assert sum(of) == pytest.approx(1) and min(of) > 0.25
    assert (fused(three, Fusion.MIX) == mixed).all() and (fused(three, Fusion.MIX, seed=1) != mixed).any()
    assert (fused(three, Fusion.FREEZE) == three[2]).all()


def test_complete_linkage() -> None:
    """On a line at 0, 1, 2.1, 3.3: after {0, 1} the ends of a chain count, so {2.1, 3.3} comes before {0, 1, 2.1}."""
    at = np.array([0.0, 1.0, 2.1, 3.3])
    found = layers(load(chain(4)))[0]
    partition = Partition([Class(tuple((layer,) for layer in found), np.abs(at[:, None] - at))])
    seen = []
    while (pair := partition.next()) is not None:
        partition = partition.joined(*pair)
        seen.append([[unit[0].weight for unit in one] for one in partition.sets])
    assert seen == [[["w0", "w1"]], [["w0", "w1"], ["w2", "w3"]], [["w0", "w1", "w2", "w3"]]]
    assert partition.layers == 3


def test_what_must_not_join_does_not() -> None:
    found = layers(load(chain(3)))[0]
    apart = np.array([[0, 1.0, 3], [1, 0, 2], [3, 2, 0]])
    partition = Partition([Class(tuple((layer,) for layer in found), apart)]).parted(0, 0, 1)
    assert partition.next() == (0, 1, 2)
    partition = partition.joined(0, 1, 2)
    assert partition.next() is None, "with one of a set is with all of it"


# the file -----------------------------------------------------------------------------------------------------------


def test_equal_layers_share_without_a_change() -> None:
    proto = permuted_copy()
    made = shared(proto, "u1", "u2")
    loaded = load(proto)
    errors = [relative_l2(a, b) for a, b in zip(run(loaded, proto), run(loaded, made.proto), strict=True)]
    assert max(errors) <= EXACT
    assert weight_of(made.proto, "a1") == weight_of(made.proto, "a2") == "u1"
    assert "u2" not in weights(made.proto), "stored once"


def test_unlike_layers_show() -> None:
    """The control: sharing weights that are not alike changes outputs."""
    proto = two_blocks()
    loaded = load(proto)
    errors = [
        relative_l2(a, b) for a, b in zip(run(loaded, proto), run(loaded, shared(proto, "u1", "u2").proto), strict=True)
    ]
    assert max(errors) > 0.01


def test_all_else_stays() -> None:
    """Byte for byte, but for the weights that are shared and the input that names them."""
    proto = two_blocks()
    held = weights(proto)
    proto = with_values(proto, u2=held["u1"])
    proto.doc_string, proto.producer_name = "kept", "somebody"
    proto.metadata_props.add(key="k", value="v")
    after = shared(proto, "u1", "u2").proto
    expected = ModelProto()
    expected.CopyFrom(proto)
    expected.graph.initializer.remove(next(t for t in expected.graph.initializer if t.name == "u2"))
    next(n for n in expected.graph.node if "a2" in n.output).input[1] = "u1"
    assert after.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)


def version_3(proto: ModelProto) -> ModelProto:
    proto.ir_version = 3
    return as_inputs(proto, [t.name for t in proto.graph.initializer])


@pytest.mark.parametrize(
    "form",
    [
        lambda p: p,
        lambda p: as_constant_nodes(p, ["w1"]),
        lambda p: as_constant_nodes(p, ["w0", "w1", "w2"]),
        version_3,
    ],
    ids=["initializers", "one in a Constant node", "all in Constant nodes", "also inputs"],
)
def test_wherever_weights_are_stored(form: Callable[[ModelProto], ModelProto]) -> None:
    proto = form(chain(4))
    before = len(proto.SerializeToString())
    after = shared(proto, "w0", "w1", "w2").proto
    onnx.checker.check_model(after, full_check=True)
    assert before - len(after.SerializeToString()) >= 2 * 64 * 64 * 4
    session = ort.InferenceSession(after.SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.run(None, {"x0": np.ones((1, 64), np.float32)})[0].shape == (1, 64)
    assert not any("w1" in names for n in after.graph.node for names in (n.input, n.output))
    assert [v.name for v in after.graph.input].count("w1") == 0


@pytest.mark.parametrize("external", [False, True], ids=["inline", "external"])
def test_files_fall(tmp_path: Path, external: bool) -> None:
    """By the bytes of the weights, wherever they are, and onnxruntime loads them."""
    source, target = tmp_path / "in" / "m.onnx", tmp_path / "out" / "m.onnx"
    for folder in (source.parent, target.parent):
        folder.mkdir()
    onnx.save(chain(4), source, save_as_external_data=external, location="m.data", size_threshold=0)
    made = shared(chain(4), "w0", "w1", "w2", path=source)
    with staged(made.proto, load(source), target) as written:
        written.commit()
    sizes = [sum(file.stat().st_size for file in path.parent.iterdir()) for path in (source, target)]
    assert len(list(target.parent.iterdir())) == 1 + external
    assert sizes[0] - sizes[1] >= 2 * 64 * 64 * 4 - 512  # bytes; references and alignment may differ
    session = ort.InferenceSession(target, providers=["CPUExecutionProvider"])
    expected = ort.InferenceSession(made.proto.SerializeToString()).run(None, feeds()) if not external else None
    found = session.run(None, feeds())
    assert expected is None or np.array_equal(expected[0], found[0])


def feeds() -> dict[str, NDArray[np.float32]]:
    return {"x0": np.random.default_rng(0).standard_normal((2, 64), dtype=np.float32)}


def test_half_precision_stays() -> None:
    proto = chain(3)
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    loaded = load(proto)
    after = fuse_layers(loaded, analyze(loaded), [layers(loaded)[0][:2]], FuseSettings(Fusion.MEAN, align=False)).proto
    expected = (weights(proto)["w0"].astype(np.float64) + weights(proto)["w1"]) / 2
    assert weights(after)["w0"].dtype == np.float16
    assert np.array_equal(weights(after)["w0"], expected.astype(np.float16))


def test_transposed_weights_are_another_kind() -> None:
    text = "(float[N,6] x) => (float y) { a = Gemm<transB=1>(x, w) c = Gemm(a, v) y = Gemm(c, u) }"
    kinds = alone(layers(load(model(text, {"w": (6, 6), "v": (6, 6), "u": (6, 6)})))[0])
    assert [[unit[0].weight for unit in kind] for kind in kinds] == [["v", "u"]]
