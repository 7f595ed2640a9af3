"""A small reader of text: a convolution over lines, and scores of characters along them."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, numpy_helper, parser


def reader(shape: str = "N,3,32,128", characters: int = 12, fixed: bool = False) -> ModelProto:
    """Images of this `shape` in, [N, width, characters] out; `fixed`: the batch is one inside, whatever the input
    says."""
    batch = 1 if fixed else 0
    width, channels = int(shape.split(",")[3]) - 2, int(shape.split(",")[1])
    proto = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[{shape}] x) => (float[N,{width},{characters}] y) {{
        c = Conv (x, w) r = Relu (c) m = ReduceMean <axes = [2], keepdims = 0> (r) t = Transpose <perm = [0, 2, 1]> (m)
        lengths = Constant <value_ints = [{batch}, {width}, {characters}]> () y = Reshape (t, lengths) }}"""
    )
    weight = np.random.default_rng(0).standard_normal((characters, channels, 3, 3)).astype(np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return proto
