"""From the state that passes leave to a plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...analysis.costs import Costs
from ...model.metadata import source_hash
from ...options.budget import Budget
from ...options.width_plan import PlannedGroup, WidthPlan
from ...passes.base import State
from ...passes.fold import FoldRecord
from ...planning.given_plan import given_widths, planned_groups
from ...planning.group_layout import GroupLayout
from .plan import Price, Remaining


def widths_found(state: State, budget: Budget) -> WidthPlan:
    """The widths that a fold left, and what they were found for; of a plan that was applied, that one."""
    if budget.widths is not None:
        return widths_given(state, budget.widths)
    groups = {
        one.group.name: PlannedGroup(one.group.size, one.group.blocks, one.after, one.group.producers)
        for one in state.done(FoldRecord).groups
    }
    keep = {name: group.planned or group.channels for name, group in groups.items()}
    return WidthPlan(keep, groups, budget.to_dict(), Path(state.name).name, source_hash(state.source))


def widths_given(state: State, widths: WidthPlan) -> WidthPlan:
    """Given widths, with the groups of the model where they do not say what that has. Raises RequestError for widths
    that it cannot have."""
    if widths.groups:
        return widths
    groups = planned_groups(state.known.analysis.groups)
    keep = given_widths(widths, state.known.analysis.groups).keep
    return WidthPlan(keep, groups, None, Path(state.name).name, source_hash(state.source), widths.file)


def price_of(state: State) -> Price:
    """What remains of a model under widths."""
    subject = state.known
    layout = GroupLayout.of(subject.model, subject.analysis)

    def price(keep: Mapping[str, int]) -> Remaining:
        return _remaining(subject.prices, layout.lengths(keep))

    return price


def _remaining(prices: Costs, lengths: Mapping[tuple[str, int], int]) -> Remaining:
    macs, parameters = prices.macs({}), max(1, prices.params({}))
    return Remaining(prices.params(lengths) / parameters, prices.macs(lengths) / macs if macs else None)
