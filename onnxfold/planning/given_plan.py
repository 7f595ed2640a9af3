"""Widths that a user gives, against the groups that a model has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..analysis.groups import ChannelGroup
from ..errors import RequestError
from ..options.width_plan import PlannedGroup, WidthPlan, settled
from .allocation import Plan


def planned_groups(groups: Iterable[ChannelGroup]) -> dict[str, PlannedGroup]:
    """The groups of a model as plans know them, by name."""
    return {group.name: PlannedGroup(group.size, group.blocks, None, group.producers) for group in groups}


def given_widths(widths: WidthPlan, groups: Sequence[ChannelGroup]) -> Plan:
    """The groups that shrink, in the order of `groups`. Raises RequestError for a plan of another model, a name that
    there is not, and a width that a group cannot have."""
    known = planned_groups(groups)
    for name, group in widths.groups.items():
        _check_same(name, group, known.get(name), widths.named)
    keep = settled(widths.keep, known, widths.named)
    return Plan({name: k for name, k in keep.items() if k < known[name].channels})


def check_kept(widths: WidthPlan, groups: Sequence[ChannelGroup], notes: Mapping[str, str]) -> None:
    """Raise RequestError as `given_widths` does, and for a group that shrinks though `notes` say why it must stay."""
    for name in given_widths(widths, groups).keep:
        if name in notes:
            raise RequestError(
                f"{widths.named} shrinks '{name}', which stays as it is ({notes[name]}): let it keep all its channels, "
                "or look at `include` and `exclude`"
            )


def plan_notes(widths: WidthPlan, groups: Sequence[ChannelGroup], source: str | None) -> list[str]:
    """What the user should know of a plan for a model with this SHA-256."""
    if not widths.groups:
        return []
    notes, more = [], len({group.name for group in groups} - set(widths.groups))
    if widths.source_sha256 is not None and source != widths.source_sha256:
        notes.append("the plan was made for another file with the same groups: other widths may suit this one better")
    if more:
        notes.append(f"{more} groups that the plan does not know stay whole")
    return notes


def _check_same(name: str, planned: PlannedGroup, there: PlannedGroup | None, plan: str) -> None:
    """Raise RequestError where a group of a plan is not as the model has it."""
    advice = "plan this model anew, or give the same `fold_heads`, `fold_residual` and `input_shapes` as then"
    if there is None:
        raise RequestError(f"{plan} is for another model: this one has no group '{name}'; {advice}")
    for what, wanted, found in (
        ("channels", planned.channels, there.channels), ("equal blocks", planned.blocks, there.blocks)
    ):  # fmt: skip
        if wanted != found:
            raise RequestError(
                f"{plan} is for another model: its group '{name}' has {wanted} {what}, here it has {found}; {advice}"
            )
