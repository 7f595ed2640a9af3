"""Scales of norms taken into what reads them: the outputs stay, and scales that anything else sees are left alone."""

from __future__ import annotations

import numpy as np
import pytest
from dependent import network, stream
from transformer import Style

from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.rotation import uniform
from onnxfold.evaluation.metrics import relative_l2
from onnxfold.model.model import load
from onnxfold.runtime.session import Session
from onnxfold.transform.plain_norms import plain_norms

SAME = 2e-6  # float32, one more rounding of every weight; measured 6e-7


@pytest.mark.parametrize(
    ("net", "style", "taken", "norms"),
    [
        ("llama2", Style.DYNAMO, 0, 0), ("phi3", Style.FUSED, 5, 5), ("clip", Style.DYNAMO, 5, 5),
        ("gpt2", Style.DECOMPOSED, 4, 5), ("vit-packed", Style.FUSED, 1, 5),
    ],
    ids=str,
)  # fmt: skip
def test_outputs_stay(net: str, style: Style, taken: int, norms: int) -> None:
    """Norms that are written out have no scale of their own; the head of GPT-2 is tied; Attention and BiasGelu have
    weights and biases of their own."""
    proto, given = network(net, style)
    model = load(proto)
    after = plain_norms(model, analyze(model, fold_residual=True))
    assert after.proto != model.proto and after.proto.ByteSize() == model.proto.ByteSize()
    scales = [one.scale for one in stream(after).norms.values() if one.scale]
    assert (sum(uniform(after, name) == 1 for name in scales), len(scales)) == (taken, norms)
    before, found = (Session.of(one).run(given) for one in (model, after))
    assert 0 < max(relative_l2(a, b) for a, b in zip(before, found, strict=True)) < SAME


def test_a_scale_that_is_an_output_too_stays() -> None:
    proto, _ = network("llama2", Style.FUSED)
    scale = next(n.input[1] for n in proto.graph.node if n.op_type == "SimplifiedLayerNormalization")
    (array,) = (t for t in proto.graph.initializer if t.name == scale)
    old = np.frombuffer(array.raw_data, np.float32).copy()
    proto.graph.output.add().CopyFrom(proto.graph.output[0])
    proto.graph.output[-1].name = scale
    proto.graph.output[-1].type.tensor_type.shape.ClearField("dim")
    proto.graph.output[-1].type.tensor_type.shape.dim.add(dim_value=len(old))
    model = load(proto)
    after = plain_norms(model, analyze(model, fold_residual=True))
    assert np.array_equal(after.constants.array(scale), old)
