"""The pass that takes BatchNormalization into the convolutions that a fold has changed."""

from __future__ import annotations

from dataclasses import replace

from ..transform.normalization import without_normalization
from .base import BasePass, Run, State
from .fold import FoldRecord


class TakeInNormalization(BasePass):
    """Takes the BatchNormalization behind convolutions of groups that shrank into their weights, where nothing else
    wants either. Runtimes that do not do that themselves would pay for it in every run."""

    name = "fold"
    requires = frozenset(("candidate",))

    def __init__(self, keep: bool = False) -> None:
        """`keep`: do nothing, for those who train the result."""
        self._keep = keep

    def __call__(self, state: State, run: Run) -> State:
        record, current = state.found(FoldRecord), state.current
        if self._keep or record is None or current.pending or not current.shrunk:
            return state
        groups = [group for group in state.known.analysis.groups if group.name in record.merges]
        changed = {place.tensor for group in groups for place in group.parameters}
        return state.adding(current=replace(current, proto=without_normalization(current.proto, changed)))
