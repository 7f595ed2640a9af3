"""How much may go: the budget of a fold, and the limits of weight sharing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from ..errors import RequestError
from .parameters import checked, mapping, shown, unknown
from .width_plan import WidthPlan

DEFAULT_MAX_ERROR = 0.1  # of the outputs, on inputs that judge, that the default budget allows


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
    """The error of the outputs that may be made, on the inputs that judge (the default)."""

    AGREEMENT = "min-agreement"
    """The share of the samples whose largest output must stay the same one."""

    DROP = "max-drop"
    """By how much the user's own measure may fall, in its units."""

    PLAN = "plan"
    """Nothing: the widths themselves are given."""

    @property
    def parameter(self) -> str:
        """Its name as Python spells it."""
        return self.value.replace("-", "_")

    @property
    def is_target(self) -> bool:
        """Whether it limits what may remain by what widths alone tell (of bytes, nearly)."""
        return self in (Aim.PARAMS, Aim.MACS, Aim.SIZE)

    @property
    def limits_loss(self) -> bool:
        """Whether it limits what the outputs may lose."""
        return self in (Aim.QUALITY, Aim.AGREEMENT)

    @property
    def runs_model(self) -> bool:
        """Whether versions of the model must run to meet it."""
        return self.limits_loss or self in (Aim.DROP, Aim.LATENCY)


@dataclass(frozen=True, eq=False, repr=False)
class Budget:
    """One aim with its `value`, a share from 0 to 1 (of `DROP`: any number of at least 0). Checked when made.

    `group_ratios`: with the aim `RATIO`, ratios of groups that a regular expression fits (their name, or a node that
    produces them), the first one that does. `widths`: with the aim `PLAN`, and only there, what groups keep; the value
    says nothing then.
    """

    aim: Aim
    value: float
    group_ratios: Mapping[str, float] = field(default_factory=dict)
    widths: WidthPlan | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.aim, Aim):
            raise RequestError(f"`aim` must be an Aim, not {shown(self.aim)}: take Budget.macs(0.7) and the like")
        if (self.aim is Aim.PLAN) != (self.widths is not None):
            raise RequestError("`plan` is a budget with widths and nothing else: take Budget.plan(...)")
        if self.value is None:
            raise RequestError(f"`{self.aim.parameter}` must be a number")
        if self.widths is None:
            object.__setattr__(self, "value", checked(self.aim.parameter, self.value))
        else:
            self._check_origin(self.widths)
        object.__setattr__(self, "group_ratios", checked("group_ratios", self.group_ratios) or {})
        if self.group_ratios and self.aim is not Aim.RATIO:
            raise RequestError(f"`group_ratios` goes with `ratio` only, not with `{self.aim.parameter}`")

    def _check_origin(self, widths: WidthPlan) -> None:
        try:
            found = None if widths.budget is None else Budget.from_dict(widths.budget)
        except RequestError as error:
            raise RequestError(f"{widths.named}: 'budget': {error}") from None
        if found is not None and found.aim is Aim.PLAN:
            raise RequestError(f"{widths.named}: 'budget' must be what the widths were found for, not a plan")

    @property
    def origin(self) -> Aim | None:
        """What the widths of a plan were found for; None where nobody looked for them, or this is no plan."""
        given = None if self.widths is None else self.widths.budget
        return None if given is None else Budget.from_dict(given).aim

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Budget):
            return NotImplemented
        return self._asked == other._asked

    def __hash__(self) -> int:
        return hash((self.aim, self.value))

    @property
    def _asked(self) -> tuple[object, ...]:
        return self.aim, self.value, self.group_ratios, self.widths

    def __repr__(self) -> str:
        """As Python makes it anew: Macs(0.7)."""
        if self.widths is not None:
            return f"Budget.plan({self.widths.to_dict()!r})"
        ratios = f", {dict(self.group_ratios)!r}" if self.group_ratios else ""
        return f"{_TYPES[self.aim]}({self.value!r}{ratios})"

    @classmethod
    def ratio(cls, value: float, group_ratios: Mapping[str, float] | None = None) -> Budget:
        """Remove this share of the channels of every group; other shares of some groups."""
        return Budget(Aim.RATIO, value, group_ratios or {})

    @classmethod
    def params(cls, value: float) -> Budget:
        """Keep this share of the parameters."""
        return Budget(Aim.PARAMS, value)

    @classmethod
    def macs(cls, value: float) -> Budget:
        """Keep this share of the multiply-accumulates."""
        return Budget(Aim.MACS, value)

    @classmethod
    def size(cls, value: float) -> Budget:
        """Keep this share of the bytes of the file."""
        return Budget(Aim.SIZE, value)

    @classmethod
    def latency(cls, value: float) -> Budget:
        """Keep this share of the latency, measured on this machine."""
        return Budget(Aim.LATENCY, value)

    @classmethod
    def max_error(cls, value: float) -> Budget:
        """As small as it gets with at most this error of the outputs."""
        return Budget(Aim.QUALITY, value)

    @classmethod
    def min_agreement(cls, value: float) -> Budget:
        """As small as it gets while this share of the samples keep their top class."""
        return Budget(Aim.AGREEMENT, value)

    @classmethod
    def max_drop(cls, value: float) -> Budget:
        """As small as it gets while the user's own measure falls by this much at most."""
        return Budget(Aim.DROP, value)

    @classmethod
    def plan(cls, widths: Any) -> Budget:
        """Keep these channels: a `Plan`, or widths by group (``{"conv1": 48}``)."""
        return Budget(Aim.PLAN, 0.0, widths=checked("plan", widths))

    @classmethod
    def of(cls, group_ratios: Mapping[str, float] | None = None, **given: Any) -> Budget:
        """The one budget that is given by name, or the default. Raises RequestError for several."""
        aims = {aim.parameter: aim for aim in Aim}
        for name in given:
            if name not in aims:
                raise unknown(name, aims, "a budget")
        asked = {name: value for name, value in given.items() if value is not None}
        if len(asked) > 1:
            raise RequestError(f"give one of {', '.join(f'`{name}`' for name in asked)}, not several")
        for name, value in asked.items():
            if aims[name] is Aim.PLAN:
                return Budget(Aim.PLAN, 0.0, group_ratios or {}, checked(name, value))
            return Budget(aims[name], value, group_ratios or {})
        if checked("group_ratios", group_ratios):
            return Budget(Aim.RATIO, 0.0, group_ratios or {})
        return Budget(Aim.QUALITY, DEFAULT_MAX_ERROR)

    def to_dict(self) -> dict[str, Any]:
        """Its parameter by name, as `from_dict` takes it."""
        if self.widths is not None:
            return {self.aim.parameter: self.widths.to_dict()}
        special = {"group_ratios": dict(self.group_ratios)} if self.group_ratios else {}
        return {self.aim.parameter: self.value, **special}

    def recorded(self, source: str | None) -> dict[str, Any]:
        """What a result says of it: of a plan, the budget that found these widths for the model with this SHA-256, or
        the widths of all groups that it shrinks."""
        if self.widths is None:
            return self.to_dict()
        made = self.widths.budget if self.widths.made_for(source) else None
        return {self.aim.parameter: self.widths.shrinks} if made is None else dict(made)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Budget:
        """The inverse of `to_dict`. Raises RequestError."""
        return Budget.of(**mapping("budget", given))


_TYPES: Mapping[Aim, str] = {
    Aim.RATIO: "Ratio", Aim.PARAMS: "Params", Aim.MACS: "Macs", Aim.SIZE: "Size", Aim.LATENCY: "Latency",
    Aim.QUALITY: "MaxError", Aim.AGREEMENT: "MinAgreement", Aim.DROP: "MaxDrop",
}  # fmt: skip
"""What the budgets of targets.py are called."""


@dataclass(frozen=True, repr=False)
class Limits:
    """What weight sharing may and must do: the `share` of the layers (0..1) that lose their own weights, or the share
    of the bytes of the file that may remain (`target_size`), and the largest error of the outputs (`max_error`). None:
    not asked for."""

    NAMES: ClassVar = ("share", "target_size", "max_error")

    share: float | None = None
    target_size: float | None = None
    max_error: float | None = None

    def __post_init__(self) -> None:
        for name in self.NAMES:
            object.__setattr__(self, name, checked(name, getattr(self, name)))
        if self.share is not None and self.target_size is not None:
            raise RequestError("give one of `share`, `target_size`, not both")
        if self.max_error == 0:
            raise RequestError("`max_error` must be above 0: no two layers are exactly alike")

    def __repr__(self) -> str:
        return f"Limits({', '.join(f'{name}={getattr(self, name)!r}' for name in self.given)})"

    @property
    def given(self) -> tuple[str, ...]:
        """The names of the limits that are asked for."""
        return tuple(name for name in self.NAMES if getattr(self, name) is not None)

    def to_dict(self) -> dict[str, float | None]:
        """What was asked for, by name."""
        return {name: getattr(self, name) for name in self.NAMES}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Limits:
        """The inverse of `to_dict`. Raises RequestError."""
        for name in mapping("limits", given):
            if name not in cls.NAMES:
                raise unknown(str(name), cls.NAMES, cls.__name__)
        return cls(**given)


DEFAULT_BUDGET, NO_LIMITS, DEFAULT_LIMITS = Budget.of(), Limits(), Limits(max_error=DEFAULT_MAX_ERROR)
