"""How much may go: the budget of a fold, and the limits of weight sharing."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import Enum

from ..errors import RequestError


@dataclass(frozen=True)
class Limits:
    """What fusion may and must do: the `share` of the layers (0..1) that lose their own weights, or the share of the
    bytes of the file that may remain (`size`), and the largest `error` of the outputs. None: not asked for."""

    share: float | None
    size: float | None
    error: float | None

    def __post_init__(self) -> None:
        if self.share is not None and self.size is not None:
            raise RequestError("give one of --share, --target-size, not both")
        if self.share is not None and not 0 < self.share <= 1:
            raise RequestError(f"--share must be above 0 and at most 100, not {100 * self.share:g}")
        if self.size is not None and not 0 < self.size < 1:
            raise RequestError(f"--target-size must be between 0 and 1, not {self.size:g}")
        if self.error is not None and not self.error > 0:
            raise RequestError(f"--max-error must be above 0, not {self.error:g}")


class Aim(Enum):
    """What a budget limits."""

    RATIO = "ratio"
    """The share of channels removed in every group."""

    PARAMS = "target-params"
    """The share of the parameters that may remain."""

    MACS = "target-macs"
    """The share of the multiply-accumulates that may remain."""

    SIZE = "target-size"
    """The share of the bytes of the file, external data included, that may remain."""

    LATENCY = "target-latency"
    """The share of the median latency that may remain, on the first provider, measured."""

    QUALITY = "max-error"
    """The relative L2 error of the outputs that may be made, on the samples or probe inputs (the default)."""

    AGREEMENT = "min-agreement"
    """The share of the samples whose largest output must stay the same one."""


_REMAINING = (Aim.PARAMS, Aim.MACS, Aim.SIZE, Aim.LATENCY)


@dataclass(frozen=True)
class Budget:
    """One aim with its `value` (a share, 0..1), and the multiple that widths are rounded to. Checked when made.

    `special`: for the aim `RATIO`, ratios of groups that a pattern fits (their name, or a node that makes them).
    `quantized`: the result is going to be stored in INT8.
    """

    aim: Aim
    value: float
    round_to: int = 8
    special: tuple[tuple[re.Pattern[str], float], ...] = ()
    quantized: bool = False

    @property
    def blockwise(self) -> float:
        """How much (0..1) of what narrower groups seem to save is what kernels save, a block of channels at a time.

        Nothing where widths are free (`round_to` 1). INT8 makes it nearly all: its convolutions take longer with 8
        channels than with 16, depthwise ones with 40 twice as long as with 48 (`python benchmarks/int8_widths.py`).
        """
        if self.round_to == 1:
            return 0.0
        return 0.9 if self.quantized or self.aim is Aim.LATENCY else 0.5

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and 0 <= self.value <= 1):
            raise RequestError(f"--{self.aim.value} must be between 0 and 1, not {self.value}")
        if self.aim is Aim.RATIO and self.value >= 1:
            raise RequestError("--ratio must be below 1: at 1 no channel would be left")
        if self.aim in _REMAINING and self.value <= 0:
            raise RequestError(f"--{self.aim.value} must be above 0: nothing would be left")
        if self.special and self.aim is not Aim.RATIO:
            raise RequestError(f"--group-ratio goes with --ratio only, not with --{self.aim.value}")
        for pattern, ratio in self.special:
            if not (math.isfinite(ratio) and 0 <= ratio < 1):
                raise RequestError(f"--group-ratio '{pattern.pattern}' must be at least 0 and below 1, not {ratio}")
        if self.round_to < 1:
            raise RequestError(f"--round-to must be at least 1, not {self.round_to}")
