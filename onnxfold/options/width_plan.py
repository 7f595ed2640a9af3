"""Widths that are given, not found: how many channels every group keeps, and of which model that is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral
from typing import Any

from ..errors import RequestError
from ..units import brief, did_you_mean

_KEYS = ("keep", "groups", "budget", "model", "source_sha256")


@dataclass(frozen=True)
class PlannedGroup:
    """A channel group as the model of a plan has it: its `channels`, in how many equal `blocks` they must stay, how
    many a budget left (`planned`; None: no budget was asked), and the `layers` that make them."""

    channels: int
    blocks: int = 1
    planned: int | None = None
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        numbers = (self.channels, self.blocks, self.channels if self.planned is None else self.planned)
        if not all(map(_is_count, numbers)) or self.channels % self.blocks:
            raise ValueError("'channels', 'blocks' and 'planned' must be whole numbers, 'channels' of equal blocks")
        if not isinstance(self.layers, list | tuple) or not all(isinstance(one, str) for one in self.layers):
            raise ValueError("'layers' must be a list of names")
        object.__setattr__(self, "layers", tuple(self.layers))

    @property
    def allowed(self) -> str:
        """The widths that it may have, in words."""
        if self.channels <= 2 * self.blocks:
            return f"it must keep all {self.channels}"
        if self.blocks == 1:
            return f"give a number from 2 to {self.channels}"
        return (
            f"give a multiple of {self.blocks} from {2 * self.blocks} to {self.channels} (its channels form "
            f"{self.blocks} equal blocks)"
        )

    def allows(self, keep: int) -> bool:
        """Whether it may keep so many channels: all, or equally many, at least two, of every block."""
        return keep == self.channels or (2 * self.blocks <= keep < self.channels and keep % self.blocks == 0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "channels": self.channels, "blocks": self.blocks, "planned": self.planned, "layers": list(self.layers)
        }  # fmt: skip


@dataclass(frozen=True)
class WidthPlan:
    """The channels that groups `keep`, by the name of the group or of a layer that makes it. Checked when made.

    Where `groups` says what the model has, every name becomes that of a group, every width is checked, and groups that
    `keep` leaves out stay whole. Without it that is done once a model is there.

    Attributes:
        budget: what the widths were found for, as `Budget.to_dict` says it; None where nobody looked for them.
        model, source_sha256: the name of the model's file, and its SHA-256 (of a model in memory: of its bytes).
        file: where the plan was read from, for messages.

    Raises:
        RequestError: a name that there is not, or that stands for several groups; a width that the group cannot have.
    """

    keep: Mapping[str, int]
    groups: Mapping[str, PlannedGroup] = field(default_factory=dict)
    budget: Mapping[str, Any] | None = None
    model: str = ""
    source_sha256: str | None = None
    file: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        for name, keep in self.keep.items():
            if not _is_count(keep):
                raise RequestError(f"{self.named} must keep a whole number of channels of '{name}', not {brief(keep)}")
        object.__setattr__(self, "groups", dict(self.groups))
        kept = settled(self.keep, self.groups, self.named) if self.groups else self.keep
        object.__setattr__(self, "keep", {name: int(keep) for name, keep in kept.items()})

    @property
    def named(self) -> str:
        """What messages call it."""
        return f"the plan '{self.file}'" if self.file else "`plan`"

    @property
    def edited(self) -> dict[str, int]:
        """The widths that are not those that a budget left (without one: that all channels stay), by group."""
        left = {name: group.channels if group.planned is None else group.planned for name, group in self.groups.items()}
        return {name: keep for name, keep in self.keep.items() if keep != left.get(name)}

    @property
    def shrinks(self) -> dict[str, int]:
        """The widths of the groups that lose channels, as far as `groups` is known."""
        return {n: k for n, k in self.keep.items() if n not in self.groups or k < self.groups[n].channels}

    def made_for(self, source: str | None) -> bool:
        """Whether a budget found exactly these widths for the model with this SHA-256."""
        known = self.budget is not None and self.source_sha256 is not None and bool(self.groups)
        return known and self.source_sha256 == source and not self.edited

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `from_dict` takes them."""
        return {
            "model": self.model, "source_sha256": self.source_sha256,
            "budget": None if self.budget is None else dict(self.budget), "keep": dict(self.keep),
            "groups": {name: group.to_dict() for name, group in self.groups.items()},
        }  # fmt: skip

    @classmethod
    def from_dict(cls, given: Mapping[str, Any], file: str = "") -> WidthPlan:
        """The inverse of `to_dict`; all but `keep` may be left out. Raises RequestError."""
        named = f"the plan '{file}'" if file else "`plan`"
        _check_keys(given, named)
        groups = {name: _group(name, one, named) for name, one in (given.get("groups") or {}).items()}
        budget, model, source = given.get("budget"), given.get("model") or "", given.get("source_sha256")
        return cls(given["keep"], groups, None if budget is None else dict(budget), model, source, file)


def group_named(name: str, groups: Mapping[str, PlannedGroup], where: str) -> str:
    """The group that a name stands for: its own, or that of a layer that makes it. Raises RequestError, which says
    `where` the name stands."""
    if name in groups:
        return name
    found = [group for group, known in groups.items() if name in known.layers]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(f"'{group}'" for group in found[:5]) + (" and more" if len(found) > 5 else "")
        raise RequestError(f"{where} names '{name}', a layer that makes several groups: name one of {listed}")
    known_names = [*groups, *(layer for known in groups.values() for layer in known.layers)]
    meant = did_you_mean(str(name), known_names) or ": `inspect` lists all groups"
    raise RequestError(f"{where} names '{name}', which is no channel group and no layer that makes one{meant}")


def check_width(group: str, keep: int, groups: Mapping[str, PlannedGroup], where: str) -> None:
    """Raise RequestError for a width that a group cannot have, and say which ones it can."""
    if not _is_count(keep):
        raise RequestError(f"{where} must keep a whole number of channels of '{group}', not {brief(keep)}")
    known = groups.get(group)
    if known is not None and not known.allows(keep):
        raise RequestError(
            f"{where} cannot keep {brief(keep, 20)} of the {known.channels} channels of '{group}': {known.allowed}"
        )


def settled(keep: Mapping[str, int], groups: Mapping[str, PlannedGroup], where: str) -> dict[str, int]:
    """The width of every group, in the order of `groups`: as `keep` has it, whole where that says nothing. Raises
    RequestError for wrong names and widths."""
    asked = dict[str, tuple[str, int]]()
    for name, width in keep.items():
        group = group_named(name, groups, where)
        if group in asked:
            raise RequestError(
                f"{where} names the group '{group}' twice, as '{asked[group][0]}' and as '{name}': leave one of them"
            )
        check_width(group, width, groups, where)
        asked[group] = (name, width)
    return {name: asked[name][1] if name in asked else known.channels for name, known in groups.items()}


def given_plan(value: Any) -> WidthPlan:
    """A plan of what a user gives: one, something that is `frozen` to one, its dict, or widths by group. Raises
    ValueError for anything else, RequestError for wrong contents."""
    frozen = getattr(value, "frozen", None)
    found = frozen() if callable(frozen) else value
    if isinstance(found, WidthPlan):
        return found
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise ValueError
    return WidthPlan.from_dict(found) if isinstance(found.get("keep"), Mapping) else WidthPlan(found)


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and 1 <= int(value) < 2**63


def _check_keys(given: Mapping[str, Any], named: str) -> None:
    """What a plan must and may have, and of which types."""
    for key in given:
        if key not in _KEYS:
            raise RequestError(f"{named} has no '{key}'{did_you_mean(str(key), _KEYS) or ': remove it'}")
    if "keep" not in given:
        raise RequestError(f"{named} lacks 'keep': give the channels that groups keep, like {{'conv1': 48}}")
    kinds: Sequence[tuple[str, type[Any], str]] = (
        ("keep", Mapping, "an object with widths by group"), ("groups", Mapping, "an object with groups by name"),
        ("budget", Mapping, "an object like {'target_macs': 0.7}"), ("model", str, "a text"),
        ("source_sha256", str, "a text"),
    )  # fmt: skip
    for key, kind, may_be in kinds:
        if given.get(key) is not None and not isinstance(given[key], kind):
            raise RequestError(f"{named}: '{key}' must be {may_be}, not {brief(given[key])}")
    if given["keep"] is None:
        raise RequestError(f"{named}: 'keep' must be an object with widths by group, not null")


def _group(name: str, given: object, named: str) -> PlannedGroup:
    known = [one.name for one in fields(PlannedGroup)]
    if not isinstance(given, Mapping) or "channels" not in given or not set(given) <= set(known):
        raise RequestError(f"{named}: group '{name}' must have 'channels', and may have {', '.join(known[1:])}")
    try:
        return PlannedGroup(**given)
    except (ValueError, TypeError) as error:
        raise RequestError(f"{named}: group '{name}': {error}") from None
