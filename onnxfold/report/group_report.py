"""What became of one channel group."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GroupReport:
    """One group: width before and after, the weights that produce and consume it, the relative merge error in 0..1.

    `error` is the squared distance that the merge makes between balanced feature rows, over that of merging everything
    into one channel; `note` says why a group stays as it is. `curve`: widths, and the relative error of the
    outputs that each was expected to make; empty where the budget needed none.
    """

    name: str
    before: int
    after: int
    blocks: int
    clusters: int
    error: float
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    note: str
    curve: tuple[tuple[int, float], ...] = ()
