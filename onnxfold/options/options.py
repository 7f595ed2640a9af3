"""The options of a run, put together of parts.

Functions take the same parameters as keywords; `FoldOptions.of` sorts those into their parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..compat import Self
from ..errors import RequestError
from .base import Options, kinds_of
from .budget import DEFAULT_BUDGET, Aim, Budget, Limits
from .choices import DEFAULT_DISTANCE, SHARES, Distance, Fusion, Quantization, Step
from .keywords import CompareKeywords
from .parameters import PARAMETERS, checked, mapping, unknown
from .parts import (
    CalibrationOptions,
    DistillOptions,
    MeasureOptions,
    OutputOptions,
    PlanningOptions,
    QuantizeOptions,
    RecoveryOptions,
    RuntimeOptions,
    ScaleOptions,
    SelectionOptions,
    SharingOptions,
    no_sharing,
)


def _sorted(cls: type[Options], given: Mapping[str, Any], where: str, others: Iterable[str] = ()) -> dict[str, Any]:
    """Keywords sorted into the parts of `cls` that have such fields. `others`: what else may be given, for errors."""
    parts = {name: kind for name, kind in kinds_of(cls).items() if kind is not None and issubclass(kind, Options)}
    places = {
        kind.LIKE.get(own, own): (name, own)
        for name, kind in parts.items()
        for own in kinds_of(kind)
        if name not in ("distill", "quantize", "folding")
    }
    found: dict[str, dict[str, Any]] = {}
    rest = dict(given)
    refine, steps = checked("refine", rest.pop("refine", False)), checked("steps", rest.pop("steps", None))
    if steps is not None and not refine:
        raise RequestError("`steps` only works with `refine`: pass both, or neither")
    quantize = checked("quantize", rest.pop("quantize", False))
    for name, value in rest.items():
        if name not in places:
            raise unknown(name, [*places, "refine", "steps", "quantize", *others], where)
        part, own = places[name]
        found.setdefault(part, {})[own] = checked(name, value) if name in PARAMETERS else value
    made: dict[str, Any] = {name: parts[name](**values) for name, values in found.items()}
    if refine:
        made["distill"] = DistillOptions(steps=steps)
    if quantize is not None:
        made["quantize"] = QuantizeOptions(kind=quantize)
    return made


_NOT_RECORDED: Mapping[str, tuple[str, ...]] = {
    "calibration": ("data", "save_synthetic"), "measure": ("metric", "timeout"),
    "runtime": ("providers", "threads", "latency", "latency_command", "latency_timeout"),
    "output": ("path", "external_data", "resume", "allow_unmeasured", "provenance", "save_plan"), "scale": (),
}  # fmt: skip
"""What does not change a result, or says where files lie, by part; all of a part without names here."""


def _recorded(options: Options, names: Iterable[str]) -> dict[str, Any]:
    """What is worth knowing of `options` later: the fields of its parts that are not the usual ones."""
    found: dict[str, Any] = {}
    for name in names:
        part, left_out = getattr(options, name), _NOT_RECORDED.get(name)
        if isinstance(part, Options) and left_out != () and (changed := part.changed(left_out or ())):
            found[name] = changed
    return found


def _steps(options: FoldOptions | FuseOptions) -> dict[str, Any]:
    """What follows, where anything does: training with these options, and how numbers are stored."""
    trained = {} if options.distill is None else {"distill": options.distill.changed()}
    return trained if options.quantize is None else {**trained, "quantize": options.quantize.kind.value}


FOLD_ALONE = (Step.FOLD,)
_WHOLE_LAYERS = (Step.SHARE, Step.DROP)


@dataclass(frozen=True, kw_only=True, repr=False)
class ChannelOptions(Options):
    """What `fold` and `sweep` share: channels are chosen, on some inputs, repaired and measured."""

    selection: SelectionOptions = SelectionOptions()
    calibration: CalibrationOptions = CalibrationOptions()
    recovery: RecoveryOptions = RecoveryOptions()
    runtime: RuntimeOptions = RuntimeOptions()
    measure: MeasureOptions = MeasureOptions()

    @property
    def planning(self) -> PlanningOptions:
        """What decides how channels are chosen and repaired."""
        return PlanningOptions(
            selection=self.selection, recovery=self.recovery.level, effort=self.calibration.effort,
            runtime=self.runtime,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, repr=False)
class FoldOptions(ChannelOptions):
    """All that `onnxfold.fold` may be asked for. Checked when made, also what does not go together.

    With `Budget.max_drop` as `budget`, `measure.max_drop` is the same; with another, it is a limit to that.
    """

    budget: Budget = DEFAULT_BUDGET
    distill: DistillOptions | None = None
    quantize: QuantizeOptions | None = None
    output: OutputOptions = OutputOptions()
    scale: ScaleOptions = ScaleOptions()
    allow: tuple[Step, ...] = FOLD_ALONE

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_allowed()
        if self.budget.aim is Aim.DROP and self.measure.max_drop != self.budget.value:
            if self.measure.max_drop is not None:
                raise RequestError("`max_drop` has one value in `budget` and another in `measure`")
            object.__setattr__(self, "measure", replace(self.measure, max_drop=self.budget.value))

    def recorded(self, source: str | None = None) -> dict[str, Any]:
        """What the metadata of a result say of its options: what changes the result, as plain values.

        `source`: the SHA-256 of the model. Of a plan that a budget made for this model, the budget is what counts.
        """
        found = _recorded(self, ("selection", "calibration", "recovery", "runtime", "measure", "output"))
        given = {"own_data": True} if self.calibration.data is not None else {}
        allowed = {"allow": [step.value for step in self.allow]} if self.chooses else {}
        return {"budget": self.budget.recorded(source), **found, **given, **allowed, **_steps(self)}

    @property
    def planned(self) -> bool:
        """Whether widths are given."""
        return self.budget.widths is not None

    @property
    def chooses(self) -> bool:
        """Whether several chains of steps are tried."""
        return self.allow != FOLD_ALONE

    @property
    def stores_alone(self) -> bool:
        """Whether there is something to do with a model that has no channel to fold: fewer bits."""
        only = self.quantize is not None and self.budget == Budget.ratio(0.0)
        return only or (self.chooses and any(kind.value in self.allow for kind in Quantization))

    def _check_allowed(self) -> None:
        if self.allow == tuple(Step):
            object.__setattr__(self, "allow", tuple(step for step in Step if step not in _WHOLE_LAYERS))
        if not self.chooses:
            return
        if self.budget.aim not in (Aim.SIZE, Aim.LATENCY):
            raise RequestError("`allow` chooses how a target is met: pass `target_size` or `target_latency` with it")
        if self.quantize is not None or self.distill is not None:
            raise RequestError("`allow` tries `quantize` and `refine` itself: list them there, or leave it out")
        if self.output.save_plan is not None:
            raise RequestError("`save_plan` needs a fold, and `allow` may choose none: pass one of them")
        if whole := [step.value for step in self.allow if step in _WHOLE_LAYERS]:
            raise RequestError(f"`allow` cannot meet a target with '{whole[0]}': leave it out, or fuse layers")

    @classmethod
    def of(cls, **given: Any) -> FoldOptions:
        """From the keywords of `onnxfold.fold`. Raises RequestError for one that there is not, or a wrong value."""
        names = [aim.parameter for aim in Aim if aim is not Aim.DROP]
        asked, ratios = {name: given.pop(name, None) for name in names}, given.pop("group_ratios", None)
        if not ratios and all(value is None for value in asked.values()):
            asked[Aim.DROP.parameter] = given.get(Aim.DROP.parameter)
        budget = Budget.of(ratios, **asked)
        allow = checked("allow", given.pop("allow", FOLD_ALONE))
        return cls(budget=budget, allow=allow, **_sorted(cls, given, "fold", [*names, "allow"]))


@dataclass(frozen=True, kw_only=True, repr=False)
class FuseOptions(Options):
    """All that `onnxfold.fuse` may be asked for. `folding`: channels are folded before, with these options."""

    sharing: SharingOptions = SharingOptions()
    folding: FoldOptions | None = None
    calibration: CalibrationOptions = CalibrationOptions()
    recovery: RecoveryOptions = RecoveryOptions()
    distill: DistillOptions | None = None
    quantize: QuantizeOptions | None = None
    runtime: RuntimeOptions = RuntimeOptions()
    output: OutputOptions = OutputOptions()
    measure: MeasureOptions = MeasureOptions()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output.save_plan is not None:
            raise RequestError("fuse has no `save_plan`: fold the channels first, and save the plan of that")

    def recorded(self, source: str | None = None) -> dict[str, Any]:
        """As that of `FoldOptions`."""
        found = _recorded(self, ("sharing", "calibration", "recovery", "runtime", "measure"))
        given = {"own_data": True} if self.calibration.data is not None else {}
        folded = {"folding": self.folding.recorded(source)} if self.folding is not None else {}
        return {"sharing": {}, **found, **given, **folded, **_steps(self)}

    @property
    def planned(self) -> bool:
        """Whether widths are given."""
        return self.folding is not None and self.folding.planned

    @classmethod
    def of(cls, **given: Any) -> FuseOptions:
        """From the keywords of `onnxfold.fuse`. Raises RequestError for one that there is not, or a wrong value."""
        rest = dict(given)
        limits = {name: rest.pop(name, None) for name in Limits.NAMES}
        folding = rest.pop("folding", None)
        folding = None if folding is None else mapping("folding", folding)
        made: dict[str, Any] = _sorted(cls, rest, "fuse", [*limits, "folding"])
        if checked("how", rest.get("how", Fusion.MEAN)) is None and Limits(**limits).given:
            raise no_sharing(Limits(**limits))
        sharing = replace(made.pop("sharing", SharingOptions()), limits=Limits(**limits))
        return cls(sharing=sharing, folding=None if not folding else FoldOptions.of(**folding), **made)


@dataclass(frozen=True, kw_only=True, repr=False)
class SweepOptions(ChannelOptions):
    """All that `onnxfold.sweep` may be asked for: shares of the MACs (`at`), and the rest as `FoldOptions` has it."""

    at: tuple[float, ...] = SHARES

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.measure.max_drop is not None:
            raise RequestError("sweep takes no `max_drop`: it reports `metric` at every budget")

    @classmethod
    def of(cls, **given: Any) -> Self:
        """From the keywords of `onnxfold.sweep`. Raises RequestError for one that there is not, or a wrong value."""
        rest = dict(given)
        at = checked("at", rest.pop("at", SHARES))
        for name in ("refine", "steps", "quantize", "synthetic", "max_drop"):
            if name in rest:
                raise unknown(name, [], "sweep")
        return cls(at=at, **_sorted(cls, rest, "sweep", ["at"]))


@dataclass(frozen=True, kw_only=True, repr=False)
class ChoiceOptions(SweepOptions):
    """All that `onnxfold.choose` may be asked for: the steps to try (`allow`), the rest as `SweepOptions` has it."""

    allow: tuple[Step, ...] = tuple(Step)

    @classmethod
    def of(cls, **given: Any) -> Self:
        """From the keywords of `onnxfold.choose`. Raises RequestError for one that there is not, or a wrong value."""
        rest = dict(given)
        allow = checked("allow", rest.pop("allow", "all"))
        return replace(super().of(**rest), allow=allow)

    @property
    def trains(self) -> bool:
        """Whether samples serve for more than folding."""
        return Step.REFINE in self.allow or Step.INT8 in self.allow

    @property
    def folds_alone(self) -> bool:
        """Whether there is nothing to do with a model that has no channel to fold."""
        return set(self.allow) <= {Step.FOLD, Step.REFINE}


@dataclass(frozen=True, kw_only=True, repr=False)
class RankOptions(Options):
    """All that `onnxfold.rank_layers` may be asked for."""

    distance: Distance = DEFAULT_DISTANCE
    whole: bool = False
    align: bool = True
    calibration: CalibrationOptions = CalibrationOptions()
    runtime: RuntimeOptions = RuntimeOptions()

    @classmethod
    def of(cls, **given: Any) -> RankOptions:
        """From the keywords of `onnxfold.rank_layers`. Raises RequestError for one that there is not, or a wrong
        value."""
        rest = dict(given)
        own = {name: rest.pop(name) for name in ("distance", "whole", "align") if name in rest}
        return cls(**own, **_sorted(cls, rest, "rank_layers", ["distance", "whole", "align"]))


@dataclass(frozen=True, kw_only=True, repr=False)
class CompareOptions(Options):
    """All that `onnxfold.compare` may be asked for, but for arrays given as they are."""

    calibration: CalibrationOptions = CalibrationOptions()
    runtime: RuntimeOptions = RuntimeOptions()
    measure: MeasureOptions = MeasureOptions()

    @classmethod
    def of(cls, **given: Any) -> CompareOptions:
        """From the keywords of `onnxfold.compare`. Raises RequestError for one that there is not, or a wrong value."""
        for name in given:
            if name not in CompareKeywords.__annotations__:
                raise unknown(name, CompareKeywords.__annotations__, "compare")
        return cls(**_sorted(cls, given, "compare"))


Asked = TypeVar("Asked", FoldOptions, FuseOptions, SweepOptions, ChoiceOptions, RankOptions, CompareOptions)


def given_or_made(kind: type[Asked], options: Asked | None, keywords: Mapping[str, Any]) -> Asked:
    """The options given, or made of keywords. Raises RequestError for both, or options of another kind."""
    if options is None:
        return kind.of(**keywords)
    if not isinstance(options, kind):
        raise RequestError(f"`options` must be {kind.__name__}, not {type(options).__name__}")
    if keywords:
        raise RequestError(f"pass `options` or keywords (`{next(iter(keywords))}`), not both")
    return options
