"""Gradients of small graphs against central differences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper, parser

from onnxfold.runtime.autodiff.emitter import LOSS, Emitter
from onnxfold.runtime.autodiff.reverse import PREFIX, with_gradient
from onnxfold.runtime.session import Session

Array = NDArray[Any]
LINEAR_RTOL = 2e-4  # float32 sums of some hundred terms; a linear function has exact differences
CURVED_RTOL = 5e-3  # central differences of step 1e-2 in float32


def graph(body: str, given: Mapping[str, Array], **constants: Array) -> ModelProto:
    """`given` inputs through `body` (which makes y), then LOSS = sum(y * random), opset 18, shapes inferred."""
    listed = ", ".join(f"float[{','.join(map(str, x.shape))}] {name}" for name, x in given.items())
    text = f'<ir_version: 8, opset_import: ["" : 18]> agraph ({listed}) => (float[N] y) {{ {body} }}'
    proto = parser.parse_model(text)
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items())
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    found = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph.output[0].type.tensor_type.shape
    out = [d.dim_value for d in found.dim]
    emit = Emitter(proto.graph)
    weight = emit.constant(np.random.default_rng(5).standard_normal(out))
    axes = emit.constant(list(range(len(out))), np.int64)
    total = emit.op("ReduceSum", [emit.op("Mul", ["y", weight]), axes], keepdims=0)
    del proto.graph.output[:]
    emit.output(emit.op("Reshape", [total, emit.constant([1], np.int64)], LOSS), [1])
    return onnx.shape_inference.infer_shapes(proto, data_prop=True)


def check(proto: ModelProto, at: Mapping[str, Array], rtol: float, step: float) -> None:
    """The gradient of LOSS with respect to each of the inputs `at`: along itself, and along four random directions."""
    rng = np.random.default_rng(0)
    session = Session(with_gradient(proto, LOSS, list(at)).SerializeToString())

    def run(**moved: Array) -> dict[str, Any]:
        feeds = {name: np.asarray(moved.get(name, x), np.float32) for name, x in at.items()}
        return dict(zip(session.outputs, session.run(feeds), strict=True))

    there = run()
    for name, x in at.items():
        gradient = there[PREFIX + name].reshape(x.shape).astype(np.float64)
        assert np.abs(gradient).max() > 0, name
        along = gradient / np.sqrt(np.mean(np.square(gradient)))
        for way in (along, *(rng.standard_normal(x.shape) for _ in range(4))):
            ahead, behind = (float(run(**{name: x + s * step * way})[LOSS][0]) for s in (1, -1))
            scale = np.linalg.norm(gradient) * np.linalg.norm(way)
            assert abs((ahead - behind) / (2 * step) - np.sum(gradient * way)) <= rtol * scale, name


def normal(*shape: int, seed: int = 1) -> Array:
    """float32 numbers of standard deviation 1."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
