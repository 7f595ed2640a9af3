"""A budget as planning sees it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..options.budget import Aim, Budget
from ..options.devices import Blocks
from ..options.parts import SelectionOptions
from ..options.width_plan import WidthPlan


@dataclass(frozen=True)
class Goal:
    """What is to be met: `aim` and `value` of a budget, and the multiple that widths are rounded to.

    `special`: for the aim `RATIO`, ratios of groups that a pattern fits (their name, or a node that produces them).
    `quantized`: the result is going to be stored in fewer bits. `blocks`: what kernels compute at once, where widths
    follow it. `widths`: for the aim `PLAN`, what groups keep; `origin`: what a budget once found these for. `plans`: at
    most so many are tried for each way to plan (None: as many as are worth it).
    """

    aim: Aim
    value: float
    round_to: int = 8
    special: tuple[tuple[re.Pattern[str], float], ...] = ()
    quantized: bool = False
    blocks: Blocks | None = None
    widths: WidthPlan | None = None
    origin: Aim | None = None
    plans: int | None = None

    @classmethod
    def of(cls, budget: Budget, selection: SelectionOptions) -> Goal:
        """The goal of a budget, with widths as `selection` has them."""
        special = tuple((re.compile(pattern), ratio) for pattern, ratio in budget.group_ratios.items())
        return cls(
            budget.aim, budget.value, selection.grain, special, blocks=selection.blocks, widths=budget.widths,
            origin=budget.origin,
        )  # fmt: skip

    @property
    def rounded(self) -> str:
        """What widths are rounded to, as a user gives it."""
        return f"`round_to={self.round_to}`" if self.blocks is None else "`round_to='auto'`"

    @property
    def idle(self) -> bool:
        """Whether nothing is to be removed: something else is to be done with the model."""
        return self.aim is Aim.RATIO and not self.value and not self.special

    @property
    def asked(self) -> str:
        """The budget as a user gives it."""
        if self.widths is not None:
            return self.widths.named
        return f"`{self.aim.parameter}={self.value:g}`"

    @property
    def blockwise(self) -> float:
        """How much (0..1) of what narrower groups seem to save is what kernels save, a block of channels at a time.

        Nothing where widths are free (`round_to` 1). INT8 makes it nearly all: its convolutions take longer with 8
        channels than with 16, depthwise ones with 40 twice as long as with 48 (`python benchmarks/int8_widths.py`). So
        do widths that follow kernels: what saves no block of them comes last.
        """
        if self.round_to == 1:
            return 0.0
        return 0.9 if self.quantized or self.aim is Aim.LATENCY or self.blocks is not None else 0.5
