"""The options of a run as frozen dataclasses, checked when they are made, to and from plain dicts.

Functions take the same parameters as keywords; `FoldOptions.of` sorts those into their parts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any, ClassVar, Self, cast, get_args, get_type_hints

from ..errors import RequestError
from .budget import DEFAULT_BUDGET, DEFAULT_LIMITS, NO_LIMITS, Aim, Budget, Limits
from .choices import DEFAULT_DISTANCE, METRIC_TIMEOUT, SHARES, Clusterer, Distance, Effort, Fusion, Method, Recovery
from .keywords import CompareKeywords
from .parameters import PARAMETERS, checked, mapping, shown, unknown
from .preprocess import Preprocess


class Options:
    """What all parts have in common: their fields are checked, and they go to and from dicts.

    `LIKE`: the parameter that a field is checked like, where that is called otherwise.
    """

    LIKE: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self) -> None:
        for name, kind in _kinds(type(self)).items():
            value, parameter = getattr(self, name), self.LIKE.get(name, name)
            if kind is not None:
                if not isinstance(value, kind) and not (value is None and getattr(type(self), name) is None):
                    raise RequestError(f"`{name}` must be {kind.__name__}, not {shown(value)}")
            elif parameter in PARAMETERS:
                object.__setattr__(self, name, checked(parameter, value, name))

    def to_dict(self) -> dict[str, Any]:
        """Plain values: names of choices, texts, numbers, lists and dicts, as YAML and JSON hold them.

        Raises RequestError for calibration data that is not a path, and for a metric that is not 'FILE.py:FUNCTION'.
        """
        return {name: _plain(name, getattr(self, name)) for name in _kinds(type(self))}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; what is not given has its default. Raises RequestError."""
        kinds = _kinds(cls)
        made: dict[str, Any] = {}
        for name, value in mapping(cls.__name__, given).items():
            if name not in kinds:
                raise unknown(str(name), kinds, cls.__name__)
            kind = kinds[name]
            made[name] = kind.from_dict(value) if kind is not None and isinstance(value, Mapping) else value
        return cls(**made)


def _kinds(cls: type[Options]) -> Mapping[str, type[Any] | None]:
    """The fields of a class of options by name: the class of one that is a part with fields of its own, else None."""
    hints = get_type_hints(cls)
    found: dict[str, type[Any] | None] = {}
    for one in fields(cast(Any, cls)):
        members = get_args(hints[one.name]) or (hints[one.name],)
        parts = [kind for kind in members if isinstance(kind, type) and issubclass(kind, Options | Budget | Limits)]
        found[one.name] = parts[0] if parts else None
    return found


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Options | Budget | Limits):
        return value.to_dict()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Preprocess):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(name, one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(name, one) for one in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "__fspath__"):
        return str(value)
    instead = "'FILE.py:FUNCTION'" if name == "metric" else "a path"
    raise RequestError(f"`{name}` holds a {type(value).__name__}, which cannot be written down: give {instead}")


def _sorted(cls: type[Options], given: Mapping[str, Any], where: str, others: Iterable[str] = ()) -> dict[str, Any]:
    """Keywords sorted into the parts of `cls` that have such fields. `others`: what else may be given, for errors."""
    parts = {name: kind for name, kind in _kinds(cls).items() if kind is not None and issubclass(kind, Options)}
    places = {
        kind.LIKE.get(own, own): (name, own)
        for name, kind in parts.items()
        for own in _kinds(kind)
        if name not in ("distill", "quantize", "folding")
    }
    found: dict[str, dict[str, Any]] = {}
    rest = dict(given)
    refine, steps = checked("refine", rest.pop("refine", False)), checked("steps", rest.pop("steps", None))
    if steps is not None and not refine:
        raise RequestError("`steps` is for `refine`: give both, or neither")
    quantize = checked("quantize", rest.pop("quantize", False))
    for name, value in rest.items():
        if name not in places:
            raise unknown(name, [*places, "refine", "steps", "quantize", *others], where)
        part, own = places[name]
        found.setdefault(part, {})[own] = checked(name, value) if name in PARAMETERS else value
    made: dict[str, Any] = {name: parts[name](**values) for name, values in found.items()}
    if refine:
        made["distill"] = DistillOptions(steps=steps)
    if quantize:
        made["quantize"] = QuantizeOptions()
    return made


Patterns = tuple[tuple[re.Pattern[str], ...], tuple[re.Pattern[str], ...]]


@dataclass(frozen=True, kw_only=True)
class SelectionOptions(Options):
    """Which channels go: how they are chosen (`method`, `clusterer`), in which groups (`include` and `exclude`, regular
    expressions on names of groups and of the nodes that produce them), to multiples of `round_to`; `fold_heads`: also
    the heads of key-value caches."""

    method: Method = Method.AUTO
    clusterer: Clusterer = Clusterer.NATIVE
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    round_to: int = 8
    fold_heads: bool = False

    @property
    def patterns(self) -> Patterns:
        """`include` and `exclude`, compiled."""
        return tuple(map(re.compile, self.include)), tuple(map(re.compile, self.exclude))


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions(Options):
    """The inputs that decisions are measured on: the user's own `data`, of which `samples` are used at most, as images
    by `preprocess`; or synthetic ones, as many as the `effort` allows, kept in `save_synthetic`."""

    LIKE: ClassVar[Mapping[str, str]] = {"data": "calibration", "save_synthetic": "synthetic"}

    data: Any = None
    samples: int = 128
    preprocess: Preprocess | None = None
    effort: Effort = Effort.BALANCED
    save_synthetic: str | None = None


@dataclass(frozen=True, kw_only=True)
class RecoveryOptions(Options):
    """How merges are repaired."""

    LIKE: ClassVar[Mapping[str, str]] = {"level": "recovery"}

    level: Recovery = Recovery.AUTO


@dataclass(frozen=True, kw_only=True)
class DistillOptions(Options):
    """Training of the result on what the original says, for so many `steps`; None: what effort and size allow."""

    steps: int | None = None


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions(Options):
    """INT8 as the last step, by onnxruntime's static quantization."""


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions(Options):
    """How models are run: on which `providers`, with which `input_shapes` where dimensions are open; the `seed` of all
    that is random, `threads` for clustering (0: all), whether `latency` is measured."""

    providers: tuple[str, ...] | None = None
    input_shapes: Mapping[str, tuple[int, ...]] | None = None
    seed: int = 0
    threads: int = 0
    latency: bool = True


@dataclass(frozen=True, kw_only=True)
class OutputOptions(Options):
    """Where the result goes (`path`; None: nowhere), whether weights of over 1 KiB are stored beside it
    (`external_data`), whether an interrupted run is continued (`resume`), and whether a result is
    written that no provider could measure (`allow_unmeasured`)."""

    LIKE: ClassVar[Mapping[str, str]] = {"path": "output"}

    path: str | None = None
    external_data: bool = False
    resume: bool = False
    allow_unmeasured: bool = False


@dataclass(frozen=True, kw_only=True)
class ScaleOptions(Options):
    """Large models: `max_memory` in bytes, groups merged at a time (`jobs`), the address of a Dask `scheduler`."""

    max_memory: int | None = None
    jobs: int = 1
    scheduler: str = ""


@dataclass(frozen=True, kw_only=True)
class MeasureOptions(Options):
    """The user's own measure (`metric`: FILE.py:FUNCTION, or a function, of a path), by how much it may fall in the
    result (`max_drop`; None: it is only told), and the seconds that FILE.py:FUNCTION may take for one model."""

    LIKE: ClassVar[Mapping[str, str]] = {"timeout": "metric_timeout"}

    metric: Callable[[str], object] | str | None = None
    max_drop: float | None = None
    timeout: float = METRIC_TIMEOUT

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.metric is None and self.max_drop is not None:
            raise RequestError("`max_drop` is by how much your own measure may fall: give `metric` too")
        if self.metric is None and self.timeout != METRIC_TIMEOUT:
            raise RequestError("`metric_timeout` is for `metric`: give both, or neither")


@dataclass(frozen=True, kw_only=True)
class PlanningOptions(Options):
    """What decides how channels are chosen and repaired."""

    selection: SelectionOptions = SelectionOptions()
    recovery: Recovery = Recovery.AUTO
    effort: Effort = Effort.BALANCED
    runtime: RuntimeOptions = RuntimeOptions()


@dataclass(frozen=True, kw_only=True)
class FoldOptions(Options):
    """All that `onnxfold.fold` may be asked for. Checked when made, also what does not go together.

    With `Budget.max_drop` as `budget`, `measure.max_drop` is the same; with another, it is a limit to that.
    """

    budget: Budget = DEFAULT_BUDGET
    selection: SelectionOptions = SelectionOptions()
    calibration: CalibrationOptions = CalibrationOptions()
    recovery: RecoveryOptions = RecoveryOptions()
    distill: DistillOptions | None = None
    quantize: QuantizeOptions | None = None
    runtime: RuntimeOptions = RuntimeOptions()
    output: OutputOptions = OutputOptions()
    scale: ScaleOptions = ScaleOptions()
    measure: MeasureOptions = MeasureOptions()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget.aim is Aim.DROP and self.measure.max_drop != self.budget.value:
            if self.measure.max_drop is not None:
                raise RequestError("`max_drop` has one value in `budget` and another in `measure`")
            object.__setattr__(self, "measure", replace(self.measure, max_drop=self.budget.value))

    @property
    def planning(self) -> PlanningOptions:
        """What decides how channels are chosen and repaired."""
        return _planning(self)

    @classmethod
    def of(cls, **given: Any) -> FoldOptions:
        """From the keywords of `onnxfold.fold`. Raises RequestError for one that there is not, or a wrong value."""
        names = [aim.parameter for aim in Aim if aim is not Aim.DROP]
        asked, ratios = {name: given.pop(name, None) for name in names}, given.pop("group_ratios", None)
        if not ratios and all(value is None for value in asked.values()):
            asked[Aim.DROP.parameter] = given.get(Aim.DROP.parameter)
        budget = Budget.of(ratios, **asked)
        return cls(budget=budget, **_sorted(cls, given, "fold", names))


@dataclass(frozen=True, kw_only=True)
class SharingOptions(Options):
    """Layers that share weights: `how` (None: none do), the nearest by `distance` first, within `limits`; residual
    blocks dropped before (`drop_blocks`); `whole` blocks compared, not single layers; `align`: channels permuted
    first."""

    how: Fusion | None = Fusion.MEAN
    distance: Distance = DEFAULT_DISTANCE
    limits: Limits = DEFAULT_LIMITS
    drop_blocks: str | None = None
    whole: bool = False
    align: bool = True
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.how is None and self.limits not in (NO_LIMITS, DEFAULT_LIMITS):
            raise RequestError(f"`{self.limits.given[0]}` limits how weights are shared: give `how` too")
        if self.how is not None and self.limits == NO_LIMITS:
            object.__setattr__(self, "limits", DEFAULT_LIMITS)
        if self.how is None:
            object.__setattr__(self, "limits", NO_LIMITS)

    @property
    def patterns(self) -> Patterns:
        """`include` and `exclude`, compiled."""
        return tuple(map(re.compile, self.include)), tuple(map(re.compile, self.exclude))


@dataclass(frozen=True, kw_only=True)
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

    @classmethod
    def of(cls, **given: Any) -> FuseOptions:
        """From the keywords of `onnxfold.fuse`. Raises RequestError for one that there is not, or a wrong value."""
        rest = dict(given)
        limits = {name: rest.pop(name, None) for name in ("share", "target_size", "max_error")}
        folding = rest.pop("folding", None)
        folding = None if folding is None else mapping("folding", folding)
        made: dict[str, Any] = _sorted(cls, rest, "fuse", [*limits, "folding"])
        if checked("how", rest.get("how", Fusion.MEAN)) is None and Limits(**limits).given:
            raise RequestError(f"`{Limits(**limits).given[0]}` limits how weights are shared: give `how` too")
        sharing = replace(made.pop("sharing", SharingOptions()), limits=Limits(**limits))
        return cls(sharing=sharing, folding=None if not folding else FoldOptions.of(**folding), **made)


@dataclass(frozen=True, kw_only=True)
class SweepOptions(Options):
    """All that `onnxfold.sweep` may be asked for: shares of the MACs (`at`), and the rest as `FoldOptions` has it."""

    at: tuple[float, ...] = SHARES
    selection: SelectionOptions = SelectionOptions()
    calibration: CalibrationOptions = CalibrationOptions()
    recovery: RecoveryOptions = RecoveryOptions()
    runtime: RuntimeOptions = RuntimeOptions()
    measure: MeasureOptions = MeasureOptions()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.measure.max_drop is not None:
            raise RequestError("sweep has no `max_drop`: it shows what every budget does to `metric`")

    @property
    def planning(self) -> PlanningOptions:
        """What decides how channels are chosen and repaired."""
        return _planning(self)

    @classmethod
    def of(cls, **given: Any) -> SweepOptions:
        """From the keywords of `onnxfold.sweep`. Raises RequestError for one that there is not, or a wrong value."""
        rest = dict(given)
        at = checked("at", rest.pop("at", SHARES))
        for name in ("refine", "steps", "quantize", "synthetic", "max_drop"):
            if name in rest:
                raise unknown(name, [], "sweep")
        return cls(at=at, **_sorted(cls, rest, "sweep", ["at"]))


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
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


def _planning(options: FoldOptions | SweepOptions) -> PlanningOptions:
    return PlanningOptions(
        selection=options.selection, recovery=options.recovery.level, effort=options.calibration.effort,
        runtime=options.runtime,
    )  # fmt: skip
