"""The copy of a model that gradients are taken of."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxfold.model.model import load
from onnxfold.runtime.autodiff import prepare
from onnxfold.runtime.autodiff.prepare import OPSET, static_copy


def two_layers() -> onnx.ModelProto:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 13]> g (float[N,3,6,6] x) => (float[N,8,6,6] y) '
        "{ h = Conv<pads = [1, 1, 1, 1]>(x, v, b)  y = Conv(h, w) }"
    )
    random = np.random.default_rng(0)
    for name, shape in (("v", (64, 3, 3, 3)), ("b", (64,)), ("w", (8, 64, 1, 1))):
        array = random.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return proto


def test_weights_that_stand_aside_come_back_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first weight here is large; onnx sees none of its numbers."""
    proto, sizes, convert = two_layers(), list[int](), onnx.version_converter.convert_version

    def seen(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
        sizes.append(model.ByteSize())
        return convert(model, version)

    monkeypatch.setattr(onnx.version_converter, "convert_version", seen)
    copy = static_copy(load(proto), {"x": (2, 3, 6, 6)})
    assert [t.name for t in copy.graph.initializer] == ["v", "b", "w"] and [v.name for v in copy.graph.input] == ["x"]
    for before, after in zip(proto.graph.initializer, copy.graph.initializer, strict=True):
        assert (numpy_helper.to_array(before) == numpy_helper.to_array(after)).all()
    assert prepare.shapes_of(copy.graph)["y"] == (2, 8, 6, 6) and copy.opset_import[0].version == OPSET
    assert sizes and max(sizes) < 4 * 64 * 27 < proto.ByteSize()
