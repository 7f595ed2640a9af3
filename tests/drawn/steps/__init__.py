"""The steps: functions that take a tensor or two from the pool and put one or more back, one file per family.

The table is put together here; the name of a function is the name of its step.
"""

from __future__ import annotations

from collections.abc import Callable

from ..builder import Builder, Numbers
from . import blocks, conv, exported, join, layout, linear, norm, pointwise, pool, reduce, reshape

FAMILIES = (conv, linear, norm, pointwise, pool, reduce, join, layout, reshape, blocks, exported)
STEPS: dict[str, Callable[[Builder, Numbers], None]] = {
    step.__name__: step for family in FAMILIES for step in family.STEPS
}
MAKERS = (conv.conv, linear.matmul, linear.gemm, conv.grouped_conv, conv.depthwise_conv)
NAMES = (
    *STEPS, *(step.__name__ for step in 3 * MAKERS), *(step.__name__ for step in layout.STEPS + reshape.STEPS),
    "relu", "batch_norm", "residual", "concat", "expand", "shuffle", "gather",
)  # fmt: skip
"""What is drawn from: steps that make channels, and those that move them, come more often."""
