"""The steps: functions that take a tensor or two from the pool and put one or more back, one file per family.

The table is put together here; the name of a function is the name of its step.
"""

from __future__ import annotations

from collections.abc import Callable

from ..builder import Builder, Numbers
from . import blocks, conv, join, layout, linear, norm, pointwise, pool, reduce, reshape

FAMILIES = (conv, linear, norm, pointwise, pool, reduce, join, layout, reshape, blocks)
STEPS: dict[str, Callable[[Builder, Numbers], None]] = {
    step.__name__: step for family in FAMILIES for step in family.STEPS
}
OFTEN = ("conv", "conv", "matmul", "matmul", "gemm", "grouped_conv", "depthwise_conv", "relu", "batch_norm", "residual", "concat")
NAMES = (*STEPS, *OFTEN)
"""What is drawn from: steps that make channels come more often."""
