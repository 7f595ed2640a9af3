"""Weights that the model stores in another form than it uses them in, half precision above all, keep that form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from helpers import constant, folds, halved, model, oracles_hold, refused_for
from onnx import ModelProto, TensorProto, numpy_helper
from tiny import fold, net

from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.costs import costs, count_parameters, weight_bytes
from onnxfold.cli import main as cli
from onnxfold.model.model import load
from onnxfold.passes.verify import grown
from onnxfold.runtime.session import Session
from onnxfold.testing import permute

HALF: Mapping[str, type] = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
NET = "(float[N,3,6,6] x) => (float y) {{ {steps} h = Conv(x, {w}, {b}) a = Relu(h) y = Conv(a, v) }}"
FLAT = "(float[N,3] x) => (float y) {{ {steps} h = MatMul(x, {w}) c = Add(h, {b}) a = Relu(c) y = MatMul(a, v) }}"
V = {"v": (5, 8, 1, 1)}


def stored(kind: str, *shape: int, seed: int = 1) -> Any:
    return (np.random.default_rng(seed).standard_normal(shape) / 4).astype(HALF[kind])


def half(kind: str) -> dict[str, Any]:
    return {"w": stored(kind, 8, 3, 3, 3), "b": stored(kind, 8)}


def build(text: str, weights: Mapping[str, Sequence[int]], values: Mapping[str, Any], **how: Any) -> ModelProto:
    """A model whose `values` are stored in their own types."""
    proto = model(text, weights, values, **how)
    for tensor in proto.graph.initializer:
        if isinstance(value := values.get(tensor.name), np.ndarray):
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return proto


def kinds(proto: ModelProto) -> dict[str, int]:
    return {t.name: t.data_type for t in proto.graph.initializer}


CAST = NET.format(steps="k = Cast<to=1>(w) c = Cast<to=1>(b)", w="k", b="c")


@pytest.mark.parametrize("kind", HALF)
def test_half_precision_behind_cast(kind: str, batch: str | int) -> None:
    """Stored as before, half as wide, and cast as before."""
    proto = build(CAST, V, half(kind), batch=batch)
    oracles_hold(proto, groups=[8])
    folds(proto)
    after = halved(proto)
    assert kinds(after) == kinds(proto)
    assert list(after.graph.node) == list(proto.graph.node)
    np.testing.assert_array_equal(constant(after, "w"), constant(proto, "w")[:4])
    assert weight_bytes(after) == weight_bytes(proto) // 2
    assert costs(load(proto)).stored({}) == weight_bytes(proto)


# steps over one stored tensor: the text, what is stored, and the shapes of that when half the channels are left
STEPS: Mapping[str, tuple[str, Callable[[], dict[str, Any]], Sequence[int]]] = {
    "transpose": (
        NET.format(steps="t = Transpose<perm=[1,0,2,3]>(w) k = Cast<to=1>(t)", w="k", b="b"),
        lambda: {"w": stored("float16", 3, 8, 3, 3)}, (3, 4, 3, 3),
    ),
    "reshape": (
        NET.format(steps="t = Reshape(w, s) k = Cast<to=1>(t)", w="k", b="b"),
        lambda: {"w": stored("float16", 8, 27), "s": [8, 3, 3, 3]}, (4, 27),
    ),
    "reshape-flat": (
        NET.format(steps="k = Reshape(w, s)", w="k", b="b"), lambda: {"w": np.float32(stored("float16", 216)),
        "s": [8, 3, 3, 3]}, (108,),
    ),
    "reshape-that-infers": (
        NET.format(steps="k = Reshape(w, s)", w="k", b="b"),
        lambda: {"w": np.float32(stored("float16", 8, 27)), "s": [0, -1, 3, 3]}, (4, 27),
    ),
    "reshape-of-a-shared-list": (
        NET.format(steps="k = Reshape(w, s) m = Reshape(n, s) o = Softmax(m) ", w="k", b="b").replace(
            "(float y)", "(float y, float o)"),
        lambda: {"w": np.float32(stored("float16", 8, 27)), "n": np.float32(stored("float16", 216)),
        "s": [8, 3, 3, 3]}, (4, 27),
    ),
    "unsqueeze-squeeze": (
        NET.format(steps="t = Unsqueeze(w, z) k = Squeeze(t, z)", w="k", b="b"),
        lambda: {"w": np.float32(stored("float16", 8, 3, 3, 3)), "z": [1]}, (4, 3, 3, 3),
    ),
    "factor": (
        NET.format(steps="t = Mul(w, f) k = Cast<to=1>(t)", w="k", b="b"),
        lambda: {"w": stored("float16", 8, 3, 3, 3), "f": np.full((1, 1, 1, 1), 0.5, np.float16)}, (4, 3, 3, 3),
    ),
    "divisor": (
        NET.format(steps="t = Cast<to=1>(w) k = Div(t, f)", w="k", b="b"),
        lambda: {"w": stored("float16", 8, 3, 3, 3), "f": np.float32(4)}, (4, 3, 3, 3),
    ),
    "matmul": (
        FLAT.format(steps="t = Transpose(w) k = Cast<to=1>(t)", w="k", b="b"),
        lambda: {"w": stored("float16", 8, 3), "v": np.float32(stored("float16", 8, 5))}, (4, 3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_steps_stay(name: str) -> None:
    """The stored tensor is written, in its own type; all steps behind it stay."""
    text, values, shape = STEPS[name]
    given = values()
    proto = build(text, {"b": (8,)} | ({} if "v" in given else V), given)
    oracles_hold(proto, groups=[8])
    folds(proto)
    after = halved(proto)
    assert [n.op_type for n in after.graph.node] == [n.op_type for n in proto.graph.node]
    assert constant(after, "w").shape == tuple(shape) and kinds(after)["w"] == kinds(proto)["w"]
    assert "n" not in given or np.array_equal(constant(after, "n"), constant(proto, "n"))
    assert weight_bytes(after) < weight_bytes(proto)


FACTORS = np.float32(np.arange(1, 9)).reshape(8, 1, 1, 1)
UNDONE = {
    "a factor for every channel": ("t = Cast<to=1>(w) k = Mul(t, g)", {"g": FACTORS}),
    "weight norm": (
        "t = Cast<to=1>(w) l = ReduceL2<axes=[1,2,3]>(t) d = Div(t, l) k = Mul(d, g)",
        {"g": FACTORS},
    ),
    "an offset": ("t = Cast<to=1>(w) k = Add(t, g)", {"g": np.float32(0.1)}),
}  # fmt: skip


@pytest.mark.parametrize("name", UNDONE)
def test_what_cannot_be_undone_keeps_its_type(name: str) -> None:
    """Its value is stored instead of what it was computed from, in half precision too."""
    steps, more = UNDONE[name]
    proto = build(NET.format(steps=steps, w="k", b="b"), {"b": (8,), **V}, {"w": stored("float16", 8, 3, 3, 3), **more})
    result = permute(load(proto))
    assert result.error <= 2**-10 < result.control  # rounded once more
    folds(proto)
    after = halved(proto)
    assert [n.op_type for n in after.graph.node] == ["Cast", "Conv", "Relu", "Conv"]
    half_kind = [t for t in after.graph.initializer if t.data_type == TensorProto.FLOAT16]
    assert [list(t.dims) for t in half_kind] == [[4, 3, 3, 3]] and "w" not in kinds(after)
    assert weight_bytes(after) < weight_bytes(proto)


def test_values_that_half_precision_cannot_hold_are_stored_in_full() -> None:
    steps, values = "t = Cast<to=1>(w) k = Mul(t, g)", {"g": np.full((8, 1, 1, 1), 1e6, np.float32)}
    proto = build(
        NET.format(steps=steps, w="k", b="b"), {"b": (8,), **V}, {"w": stored("float16", 8, 3, 3, 3), **values}
    )
    oracles_hold(proto, groups=[8])
    assert kinds(halved(proto))["k"] == TensorProto.FLOAT


def test_integers_that_the_graph_makes_floats_are_kept() -> None:
    """INT8 weights behind Cast and Mul: as floats they would take four times the room."""
    values = {"w": np.random.default_rng(0).integers(-127, 128, (8, 3, 3, 3)).astype(np.int8), "g": np.float32(0.01)}
    proto = build(NET.format(steps="t = Cast<to=1>(w) k = Mul(t, g)", w="k", b="b"), {"b": (8,), **V}, values)
    found = analyze(load(proto))
    assert not found.groups
    refused_for(found, ["would grow if it were written back"])


NORM = """(float[N,3,6,6] x) => (float y) {
    %s h = Conv(x, k) n = BatchNormalization(h, s, c, m, r) a = Relu(n) y = Conv(a, v) }"""


@pytest.mark.parametrize("options", [{}, {"calibration": True}, {"refine": True}], ids=str)
def test_a_whole_fold_keeps_the_form(options: dict[str, Any]) -> None:
    """Weights that are repaired or trained are written back too."""
    shapes = {"k": (16, 3, 3, 3), "s": (16,), "c": (16,), "m": (16,), "r": (16,), "v": (5, 16, 3, 3)}
    rng = np.random.default_rng(0)
    arrays = {n: (rng.uniform(0.5, 1.5, s) if len(s) == 1 else rng.standard_normal(s) / 5) for n, s in shapes.items()}
    casts = " ".join(f"{n} = Cast<to=1>({n}16)" for n in shapes)
    proto = build(NORM % casts, {}, {f"{n}16": a.astype(np.float16) for n, a in arrays.items()}, batch=4)
    if "calibration" in options:
        options = {"calibration": {"x": rng.standard_normal((64, 3, 6, 6)).astype(np.float32)}}
    result = fold(proto, ratio=0.5, latency=False, round_to=1, **options)
    assert result.report.check is not None and result.report.check.passed, result.report.check
    wide = [list(t.dims) for t in result.model.graph.initializer if t.data_type != TensorProto.FLOAT16]
    assert wide in ([], [[5]]), "only the bias that the repair adds is new"
    assert weight_bytes(result.model) < 0.6 * weight_bytes(proto)
    assert result.report.after is not None and result.report.after.file < result.report.before.file
    x = np.zeros((4, 3, 6, 6), np.float32)
    assert np.isfinite(Session(result.model.SerializeToString()).run({"x": x})[0]).all()


def test_a_result_that_would_be_larger_is_refused() -> None:
    """By parameters, and by the bytes of weights; a file that grows by its names alone is none."""
    small, large = (
        model(NET.format(steps="", w="w", b="b"), {"w": (n, 3, 3, 3), "b": (n,), "v": (5, n, 1, 1)}) for n in (7, 8)
    )
    assert grown(large, small) == "" == grown(large, large)
    assert "more parameters" in grown(small, large)
    narrow = build(CAST, V, half("float16"))
    wide = build(CAST, V, {name: np.float32(a) for name, a in half("float16").items()})
    assert "more bytes" in grown(narrow, wide) and count_parameters(narrow) == count_parameters(wide)
    wordy = ModelProto()
    wordy.CopyFrom(large)
    wordy.graph.doc_string = "a" * 10_000
    assert grown(large, wordy) == ""


def test_nothing_is_written_that_would_be_larger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(net(), source)
    monkeypatch.setattr("onnxfold.passes.verify.weight_bytes", lambda proto: -proto.ByteSize())
    assert cli.main([str(source), str(target), "--ratio", "0.5", "--effort", "fast", "--quiet"]) == 1
    assert not target.exists()


HEADS = """(float[N,9,32] x) => (float y) {{
    q = MatMul(x, wq) k = MatMul(x, wk) u = MatMul(x, wv)
    qr = Reshape(q, apart) qt = Transpose<perm=[0,2,1,3]>(qr) kr = Reshape(k, apart) kt = Transpose<perm=[0,2,3,1]>(kr)
    ur = Reshape(u, apart) ut = Transpose<perm=[0,2,1,3]>(ur) s = MatMul(qt, kt)
    {bias} g = Transpose<perm=[2,0,1]>(r) b = Unsqueeze(g, first)
    p = Add(s, b) a = Softmax(p) o = MatMul(a, ut) ot = Transpose<perm=[0,2,1,3]>(o) or = Reshape(ot, joined)
    y = MatMul(or, wo) }}"""


@pytest.mark.parametrize(
    "bias", ["t = Gather(table, index) r = Reshape(t, square)", "t = Reshape(table, same) r = Gather(t, pairs)"]
)
def test_tables_of_relative_positions_stay_tables(bias: str) -> None:
    """A number for every head and distance, looked up for every pair of places (Swin): heads fold, and the table that
    is stored loses columns."""
    places = np.arange(9)
    pairs = places[:, None] - places + 8
    lists = {"apart": [0, 0, 4, 8], "joined": [0, 0, 32], "square": [9, 9, 4], "same": [17, 4], "first": [0]}
    weights = {"wq": (32, 32), "wk": (32, 32), "wv": (32, 32), "wo": (32, 5), "table": (17, 4)}
    proto = model(HEADS.format(bias=bias), weights, {**lists, "index": pairs.ravel(), "pairs": pairs})
    oracles_hold(proto, groups=[4])
    folds(proto)
    after = halved(proto)
    assert constant(after, "table").shape == (17, 2)
    assert [n.op_type for n in after.graph.node] == [n.op_type for n in proto.graph.node]
