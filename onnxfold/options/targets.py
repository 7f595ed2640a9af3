"""Budgets by name: Macs(0.7) is Budget.macs(0.7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from .budget import Aim, Budget


class _Target(Budget):
    """A budget of one aim. Raises RequestError for a value that is none."""

    AIM: ClassVar[Aim]

    def __init__(self, value: float) -> None:
        super().__init__(self.AIM, value)


class Ratio(Budget):
    """Remove this share of the channels of every group (0 to below 1); other shares of the groups that a regular
    expression fits."""

    def __init__(self, value: float, group_ratios: Mapping[str, float] | None = None) -> None:
        super().__init__(Aim.RATIO, value, group_ratios or {})


class Params(_Target):
    """Keep this share of the parameters (above 0, at most 1)."""

    AIM = Aim.PARAMS


class Macs(_Target):
    """Keep this share of the multiply-accumulates (above 0, at most 1)."""

    AIM = Aim.MACS


class Size(_Target):
    """Keep this share of the bytes of the file (above 0, at most 1)."""

    AIM = Aim.SIZE


class Latency(_Target):
    """Keep this share of the latency, measured on this machine (above 0, at most 1)."""

    AIM = Aim.LATENCY


class MaxError(_Target):
    """As small as it gets with at most this relative L2 error of the outputs (0 to 1)."""

    AIM = Aim.QUALITY


class MinAgreement(_Target):
    """As small as it gets while this share of the samples keep their top class (0 to 1)."""

    AIM = Aim.AGREEMENT


class MaxDrop(_Target):
    """As small as it gets while the user's own measure falls by this much at most, in its units; needs `metric`."""

    AIM = Aim.DROP
