"""The parts that options of a run are made of: frozen dataclasses, checked when they are made, to and from plain
dicts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import RequestError
from .accept import AUTO
from .base import Options
from .budget import DEFAULT_LIMITS, NO_LIMITS, Limits
from .choices import (
    DEFAULT_DISTANCE,
    LATENCY_TIMEOUT,
    METRIC_TIMEOUT,
    Clusterer,
    Distance,
    Effort,
    Fusion,
    Method,
    Quantization,
    Recovery,
)
from .devices import BLOCKS, Blocks, Device
from .preprocess import Preprocess, PreprocessFile

Patterns = tuple[tuple[re.Pattern[str], ...], tuple[re.Pattern[str], ...]]


@dataclass(frozen=True, kw_only=True, repr=False)
class PatternOptions(Options):
    """Names that two lists of regular expressions choose."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def patterns(self) -> Patterns:
        """`include` and `exclude`, compiled."""
        return tuple(map(re.compile, self.include)), tuple(map(re.compile, self.exclude))


@dataclass(frozen=True, kw_only=True, repr=False)
class SelectionOptions(PatternOptions):
    """Which channels go: how they are chosen (`method`, `clusterer`), in which groups (`include` and `exclude`, regular
    expressions on names of groups and of the nodes that produce them), to multiples of `round_to` ("auto": of what the
    kernels of `device` compute at once); `fold_heads`: also the heads of key-value caches; `fold_residual`: also
    residual streams under norms over all channels."""

    method: Method = Method.AUTO
    clusterer: Clusterer = Clusterer.NATIVE
    round_to: int | str = 8
    fold_heads: bool = False
    fold_residual: bool = False
    device: Device | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.device is not None and self.round_to not in (AUTO, 8):
            raise RequestError("`device` and `round_to` both set what widths are rounded to: pass only one of them")

    @property
    def blocks(self) -> Blocks | None:
        """What kernels compute at once, where widths follow it; None where they are multiples of a number."""
        return BLOCKS[self.device or Device.PORTABLE] if self.round_to == AUTO or self.device is not None else None

    @property
    def grain(self) -> int:
        """What all widths are a multiple of."""
        return int(self.round_to) if self.blocks is None else self.blocks.grain


@dataclass(frozen=True, kw_only=True, repr=False)
class CalibrationOptions(Options):
    """The inputs that decisions are measured on: the user's own `data`, of which `samples` are used at most, as images
    by `preprocess`; or synthetic ones, as many as the `effort` allows, kept in `save_synthetic`."""

    LIKE: ClassVar[Mapping[str, str]] = {"data": "calibration", "save_synthetic": "synthetic"}

    data: Any = None
    samples: int = 128
    preprocess: Preprocess | PreprocessFile | None = None
    effort: Effort = Effort.BALANCED
    save_synthetic: str | None = None

    @property
    def sampled(self) -> bool:
        """Whether there will be inputs, the user's own or synthetic ones."""
        return self.data is not None or self.effort is not Effort.FAST


@dataclass(frozen=True, kw_only=True, repr=False)
class RecoveryOptions(Options):
    """How merges are repaired."""

    LIKE: ClassVar[Mapping[str, str]] = {"level": "recovery"}

    level: Recovery = Recovery.AUTO


@dataclass(frozen=True, kw_only=True, repr=False)
class DistillOptions(Options):
    """Training of the result on what the original says, for so many `steps`; None: what effort and size allow."""

    steps: int | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class QuantizeOptions(Options):
    """The last step: numbers of fewer bits (`kind`), by what onnxruntime brings for that."""

    LIKE: ClassVar[Mapping[str, str]] = {"kind": "quantize"}

    kind: Quantization = Quantization.INT8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind is None:
            raise RequestError("`kind` must say how numbers are stored: leave out the whole part to store floats")


@dataclass(frozen=True, kw_only=True, repr=False)
class RuntimeOptions(Options):
    """How models are run: on which `providers`, with which `input_shapes` where dimensions are open; the `seed` of all
    that is random, `threads` for clustering (0: all), whether `latency` is measured, by which
    command on another device (`latency_command`), which may take `latency_timeout` seconds for one model."""

    providers: tuple[str, ...] | None = None
    input_shapes: Mapping[str, tuple[int, ...]] | None = None
    seed: int = 0
    threads: int = 0
    latency: bool = True
    latency_command: str | None = None
    latency_timeout: float = LATENCY_TIMEOUT

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.input_shapes:
            object.__setattr__(self, "input_shapes", None)
        if self.latency_command is None and self.latency_timeout != LATENCY_TIMEOUT:
            raise RequestError("`latency_timeout` only works with `latency_command`: pass both, or neither")
        if self.latency_command is not None and not self.latency:
            raise RequestError("`latency_command` measures latency, but `latency=False` turns that off: pass only one")


@dataclass(frozen=True, kw_only=True, repr=False)
class OutputOptions(Options):
    """Where the result goes (`path`; None: nowhere), whether weights of over 1 KiB are stored beside it
    (`external_data`), whether an interrupted run is continued (`resume`), whether a result is written that no provider
    could measure (`allow_unmeasured`), whether its metadata say where it comes from (`provenance`), whether
    BatchNormalization behind convolutions that a fold changes stays (`keep_bn`), and where the widths are written to
    (`save_plan`)."""

    LIKE: ClassVar[Mapping[str, str]] = {"path": "output"}

    path: str | None = None
    external_data: bool = False
    resume: bool = False
    allow_unmeasured: bool = False
    provenance: bool = True
    keep_bn: bool = False
    save_plan: str | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class ScaleOptions(Options):
    """Large models: `max_memory` in bytes, groups merged at a time (`jobs`), the address of a Dask `scheduler`."""

    max_memory: int | None = None
    jobs: int = 1
    scheduler: str = ""


@dataclass(frozen=True, kw_only=True, repr=False)
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
            raise RequestError("`max_drop` limits how far your own metric may fall: pass `metric` too")
        if self.metric is None and self.timeout != METRIC_TIMEOUT:
            raise RequestError("`metric_timeout` only works with `metric`: pass both, or neither")


@dataclass(frozen=True, kw_only=True, repr=False)
class PlanningOptions(Options):
    """What decides how channels are chosen and repaired."""

    selection: SelectionOptions = SelectionOptions()
    recovery: Recovery = Recovery.AUTO
    effort: Effort = Effort.BALANCED
    runtime: RuntimeOptions = RuntimeOptions()


@dataclass(frozen=True, kw_only=True, repr=False)
class SharingOptions(PatternOptions):
    """Layers that share weights: `how` (None: none do), the nearest by `distance` first, within `limits`; residual
    blocks dropped before (`drop_blocks`); `whole` blocks compared, not single layers; `align`: channels permuted
    first."""

    how: Fusion | None = Fusion.MEAN
    distance: Distance = DEFAULT_DISTANCE
    limits: Limits = DEFAULT_LIMITS
    drop_blocks: str | None = None
    whole: bool = False
    align: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.how is None and self.limits not in (NO_LIMITS, DEFAULT_LIMITS):
            raise no_sharing(self.limits)
        if self.how is not None and self.limits == NO_LIMITS:
            object.__setattr__(self, "limits", DEFAULT_LIMITS)
        if self.how is None:
            object.__setattr__(self, "limits", NO_LIMITS)


def no_sharing(limits: Limits) -> RequestError:
    """What is wrong with limits where no layers share weights."""
    name = limits.given[0]
    return RequestError(
        f"`{name}` limits how weights are shared; how many blocks go is said by `drop_blocks`: leave `{name}` out, or "
        "share weights too (`how`)"
    )
