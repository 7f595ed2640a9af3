"""A mixture of experts in which every expert sees every token and the router weighs them: no data-dependent shapes.

What is left of Mixtral's block where an exporter cannot follow the choice of tokens; names as there (w1: gate, w2:
down, w3: up).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import numpy_helper

from .layers import Layer

if TYPE_CHECKING:
    from .style import Style


def mixture(s: Style, x: str, of: Layer) -> str:
    """The experts' outputs, weighted and added up."""
    at = f"{of.at}/block_sparse_moe"
    shares, total = _routed(s, x, at), ""
    for i in range(s.config.experts):
        path = f"{at}/experts.{i}"
        y = s.activated(s.linear(x, s.parts.up(f"{path}/w1")), f"{path}/act_fn")
        y = s.op("Mul", y, s.linear(x, s.parts.up(f"{path}/w3")), at=path)
        y = s.linear(y, s.parts.down(f"{path}/w2"))
        y = s.op("Mul", y, s.op("Gather", shares, s.number([i], at), at=at, axis=-1), at=at)
        total = s.op("Add", total, y, at=at) if total else y
    return total


def _routed(s: Style, x: str, at: str) -> str:
    """[batch, length, experts]: softmax over the best experts of every token, 0 for the others."""
    c = s.config
    scores = s.linear(x, s.parts.linear(f"{at}/gate", c.hidden, c.experts))
    best, which = s.ops("TopK", scores, s.number([c.experts_per_token], at), at=at, outputs=2, axis=-1)
    best = s.op("Softmax", best, at=at, axis=-1)
    zero = numpy_helper.from_array(np.zeros(1, s.builder.dtype))
    nothing = s.op("ConstantOfShape", s.op("Shape", scores, at=at), at=at, value=zero)
    return s.op("ScatterElements", nothing, which, best, at=at, axis=-1)
