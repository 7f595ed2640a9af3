"""onnxslim and onnxsim before a fold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import ModelProto, numpy_helper
from tiny import MODELS, net, write

import onnxfold
from onnxfold.integrations import simplify
from onnxfold.integrations.simplify import Tool, fold_simplified, simplified

TOOLS: tuple[Tool, ...] = ("onnxslim", "onnxsim")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # theirs


def with_leftovers() -> ModelProto:
    """A network with what exporters leave: an Identity, and a weight that is computed from two constants."""
    proto = net()
    del proto.opset_import[1]
    w1 = next(one for one in proto.graph.initializer if one.name == "w1")
    half = numpy_helper.from_array(numpy_helper.to_array(w1) / 2, "half")
    proto.graph.initializer.remove(w1)
    proto.graph.initializer.append(half)
    proto.graph.node.insert(0, onnx.helper.make_node("Add", ["half", "half"], ["w1"]))
    proto.graph.node.insert(0, onnx.helper.make_node("Identity", ["x"], ["x1"]))
    next(one for one in proto.graph.node if one.op_type == "Conv").input[0] = "x1"
    return proto


@pytest.mark.parametrize("tool", TOOLS)
def test_it_folds_what_the_tool_made(tool: Tool, tmp_path: Path) -> None:
    pytest.importorskip(tool)
    proto = with_leftovers()
    before = proto.SerializeToString()
    source = write(tmp_path / "in.onnx", proto)
    for given in (source, proto):
        output = tmp_path / "out.onnx"
        result = fold_simplified(given, output, tool=tool, ratio=0.5, effort="fast", latency=False)
        made = onnx.load(output)
        assert [one.op_type for one in made.graph.node][:2] == ["Conv", "Relu"] and result.report.check is not None
        assert {one.dims[0] for one in made.graph.initializer if len(one.dims) == 4} == {8}
    assert proto.SerializeToString() == before and source.read_bytes() == before


@pytest.mark.parametrize("tool", TOOLS)
def test_a_trained_network_stays_the_same(tool: Tool) -> None:
    pytest.importorskip(tool)
    made = simplified(MODELS / "digits_resnet_bn.onnx", tool)
    assert "BatchNormalization" not in {one.op_type for one in made.graph.node}


def test_what_changes_the_outputs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxslim")

    def broken(model: Any) -> ModelProto:
        made = ModelProto()
        made.CopyFrom(model)
        bias = next(one for one in made.graph.initializer if one.name == "b3")
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 0.1, "b3"))
        return made

    monkeypatch.setattr(simplify, "_slim", broken)
    with pytest.raises(onnxfold.ValidationError, match="onnxslim changed what the model computes"):
        simplified(net())


def test_a_tool_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simplify, "find_spec", lambda name: None)
    with pytest.raises(onnxfold.RequestError, match=r"onnxsim is not installed: pip install 'onnxfold\[simplify\]'"):
        simplified(net(), "onnxsim")
    with pytest.raises(onnxfold.RequestError, match="`tool` must be 'onnxslim' or 'onnxsim', not 'slim'"):
        simplified(net(), "slim")  # type: ignore[arg-type]
