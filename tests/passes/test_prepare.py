"""Who is to blame where the analysis fails: the model, or a rule."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxfold.errors import ModelError, RuleError
from onnxfold.model.model import Model, load
from onnxfold.passes import prepare

TEXT = """<ir_version: 8, opset_import: ["": 17]> g (float[N,3,8,8] x) => (float[N,6,A,B] y)
    {{ h = Conv(x, w) r = Relu(h) {second} }}"""
SECOND = {"Conv": "y = Conv(r, v, b)", "ConvTranspose": "y = ConvTranspose<group = 2>(r, v, b)"}
WEIGHT = {"Conv": (6, 8, 3, 3), "ConvTranspose": (8, 3, 3, 3)}


def net(operator: str, *bias: int) -> Model:
    proto = onnx.parser.parse_model(TEXT.format(second=SECOND[operator]))
    for name, shape in (("w", (8, 3, 3, 3)), ("v", WEIGHT[operator]), ("b", bias)):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    return load(proto)


@pytest.mark.parametrize("operator", SECOND)
@pytest.mark.parametrize("bias", [(0,), (5,), (6, 1)], ids=str)
def test_a_bias_that_does_not_fit_is_the_models_fault(
    operator: str, bias: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing runs: onnxruntime takes a column for a bias, and before 1.24 an empty one for none, where it crashes
    if that is transposed."""
    monkeypatch.setattr(prepare, "_refusal", lambda model: pytest.fail("it runs"))
    shape = ", ".join(map(str, bias))
    with pytest.raises(ModelError, match=rf"has shape \[{shape}\], not \[6\]: export the model again"):
        prepare.analyzed(net(operator, *bias))


@pytest.mark.parametrize("operator", SECOND)
def test_a_rule_that_fails_on_a_sound_model_is_ours(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(model: Model, **_: bool) -> None:
        raise RuleError("ties 0 to 4 positions")

    monkeypatch.setattr(prepare, "analyze", failing)
    with pytest.raises(RuleError, match="ties 0 to 4"):
        prepare.analyzed(net(operator, 6))
