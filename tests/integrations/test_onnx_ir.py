"""The pass for onnx_ir, alone and between others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import RemoveUnusedNodesPass, TopologicalSortPass
from tiny import MODELS, net

import onnxfold
from onnxfold.integrations.onnx_ir import FoldPass

FAST = {"ratio": 0.5, "effort": "fast", "latency": False}


def widths(model: ir.Model) -> list[int]:
    return [int(one.shape[0]) for one in model.graph.initializers.values() if one.shape and len(one.shape) == 4]


def test_it_stands_between_other_passes() -> None:
    model = ir.from_proto(net())
    one = FoldPass(**FAST)  # type: ignore[arg-type]
    result = ir.passes.Sequential(RemoveUnusedNodesPass(), one, TopologicalSortPass())(model)
    assert widths(result.model) == [8, 8] and widths(model) == [16, 16] and result.modified
    assert len(one.reports) == 1 and one.reports[0].check is not None and one.reports[0].check.passed


def test_it_gives_what_fold_gives(tmp_path: Path) -> None:
    source = MODELS / "digits_mlp.onnx"
    result = FoldPass(ratio=0.3, effort="fast", latency=False)(ir.load(source))
    direct = onnxfold.fold(source, ratio=0.3, effort="fast", latency=False)
    expected = {one.name: one for one in ir.from_proto(direct.model).graph.initializers.values()}
    for name, value in result.model.graph.initializers.items():
        assert value.const_value is not None and expected[name].const_value is not None
        assert np.array_equal(value.const_value.numpy(), expected[name].const_value.numpy())
    assert result.model.graph.num_nodes() == len(direct.model.graph.node)


def test_weights_in_a_file_beside_the_model(tmp_path: Path) -> None:
    """They are read before the fold's own files are gone."""
    ir.save(ir.from_proto(net()), tmp_path / "in.onnx", external_data="in.data")
    result = FoldPass(**FAST)(ir.load(tmp_path / "in.onnx"))  # type: ignore[arg-type]
    ir.save(result.model, tmp_path / "out.onnx")
    assert widths(ir.load(tmp_path / "out.onnx")) == [8, 8]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["in.data", "in.onnx", "out.onnx"]


def test_nothing_to_fold_is_not_modified() -> None:
    model = ir.from_proto(net())
    result = FoldPass(ratio=0.5, exclude=".*")(model)
    assert not result.modified and widths(result.model) == [16, 16] and result.model is not model


def test_a_wrong_value_is_refused() -> None:
    with pytest.raises(ir.passes.PassError) as refused:
        ir.passes.Sequential(FoldPass(ratio=1.5))(ir.from_proto(net()))
    assert isinstance(refused.value.__cause__, onnxfold.RequestError)
