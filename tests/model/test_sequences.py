"""Sequences whose places are known: a Split or a Concat to the analysis, and what they were in the file."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from helpers import fold_by, folds, given, model, oracles_hold
from onnx import ModelProto, TensorProto, helper
from tiny import fold

from onnxfold.analysis.analyze import analyze
from onnxfold.model.model import load

GLU = {"w": (6, 16), "b": (16,), "v": (8, 5)}
GATE = "s = Sigmoid(g) a = Mul(s, u) y = MatMul(a, v)"
PARTS = "g = SequenceAt(q, zero) u = SequenceAt(q, last)"
TWO = {"w": (8, 3, 3, 3), "u": (6, 3, 3, 3), "v": (5, 14, 1, 1)}
NETS = {
    "sizes": (GLU, f"q = SplitToSequence<axis=-1>(k, sizes) {PARTS} {GATE}", {"sizes": [8, 8]}, 17, [8]),
    "one-size": (GLU, f"q = SplitToSequence<axis=2>(k, sizes) {PARTS} {GATE}", {"sizes": 8}, 17, [8]),
    "one-size-opset11": (GLU, f"q = SplitToSequence<axis=2>(k, sizes) {PARTS} {GATE}", {"sizes": 8}, 11, [8]),
    "joined": (TWO, "q = SequenceConstruct(h, f) c = ConcatFromSequence<axis=1>(q) r = Relu(c) y = Conv(r, v)", {}, 17,
               [8, 6]),
    "handed-through": (TWO, """q = SequenceConstruct(h, f) g = SequenceAt(q, zero) e = SequenceAt(q, last)
        c = Concat<axis=1>(g, e) y = Conv(c, v)""", {}, 17, [8, 6]),
}  # fmt: skip


def net(name: str) -> ModelProto:
    weights, body, values, opset, _ = NETS[name]
    front = "h = MatMul(x, w) k = Add(h, b)" if weights is GLU else "h = Conv(x, w) f = Conv(x, u)"
    shape = "3,6" if weights is GLU else "3,6,6"
    used = values | ({"zero": 0, "last": -1} if "zero" in body else {})
    return model(f"(float[N,{shape}] x) => (float y) {{ {front} {body} }}", weights, used, opset)


@pytest.mark.parametrize("name", NETS)
def test_channels_are_followed_through_sequences(name: str) -> None:
    proto = net(name)
    oracles_hold(proto, groups=NETS[name][4])
    folds(proto)


@pytest.mark.parametrize("name", NETS)
def test_a_sequence_that_stayed_is_put_back(name: str) -> None:
    proto = net(name)
    loaded = load(proto)
    assert loaded.entry.back(loaded.proto).SerializeToString() == proto.SerializeToString()
    first = analyze(loaded).groups[0]
    back = loaded.entry.back(fold_by({first.name: [0, 0, *range(1, first.size - 1)]}, proto))
    onnx.checker.check_model(back, full_check=True)
    operators = [node.op_type for node in back.graph.node]
    if NETS[name][0] is GLU:
        assert "SplitToSequence" not in operators and operators.count("Split") == 1
    else:
        assert operators == [node.op_type for node in proto.graph.node]


def test_new_sizes_of_the_parts_are_written(tmp_path: Path) -> None:
    onnx.save(net("one-size"), tmp_path / "in.onnx")
    result = fold(tmp_path / "in.onnx", ratio=0.25, round_to=1)
    assert [group.after for group in result.report.groups] == [6]
    assert given(result.model, "Split", 1) == [6, 6]


KEPT = {
    "a-place-of-the-caller": "q = SplitToSequence<axis=-1>(k, sizes) g = SequenceAt(q, i) u = SequenceAt(q, zero)",
    "how-many-there-are": """q = SplitToSequence<axis=-1>(k, sizes) n = SequenceLength(q) m = Sub(n, n)
        g = SequenceAt(q, zero) u = SequenceAt(q, m)""",
    "an-axis-that-goes": "q = SplitToSequence<axis=1, keepdims=0>(k) g = SequenceAt(q, zero) u = SequenceAt(q, zero)",
}


@pytest.mark.parametrize("name", KEPT)
def test_other_sequences_are_left(name: str) -> None:
    body = f"h = MatMul(x, w) k = Add(h, b) {KEPT[name]} z = Add(g, u) y = Tanh(z)"
    proto = model(
        f"(float[2,3,6] x, int64 i) => (float y) {{ {body} }}", {"w": (6, 16), "b": (16,)}, {"sizes": [8, 8], "zero": 0}
    )
    assert load(proto).proto is proto


def test_declared_lengths_of_a_sequence_keep_it() -> None:
    proto = net("sizes")
    element = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", 3, 8])
    proto.graph.value_info.append(helper.make_value_info("q", helper.make_sequence_type_proto(element)))
    assert load(proto).proto is proto
