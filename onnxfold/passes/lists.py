"""What `fold` and `fuse` do, as lists of passes."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import RequestError
from ..options.budget import Budget, Limits
from ..options.choices import Effort, Method, Recovery, Step
from ..options.options import FoldOptions, FuseOptions
from ..options.parts import OutputOptions, PlanningOptions, ScaleOptions, SelectionOptions
from ..planning.time_estimate import Work
from .base import Pass
from .calibrate import AnnounceTime, CollectSamples
from .choice.target import MeetTarget
from .distillation.distill import Distill
from .fold import FoldChannels, PreparePlanning
from .measure import measuring
from .normalization import TakeInNormalization
from .prepare import Analyze
from .provenance import noting
from .quantization.apply import CheckQuantizable, JudgeQuantization, Quantize
from .reached import KeepUnreached
from .verify import Stage, Verify, limit_of
from .weight_sharing.share import DropBlocks, FindLayers, ShareWeights

Announce = Callable[[str], None] | None
_CHAINS = Work.of_folds(4)  # where several chains of steps may meet a target, about


def folding(o: FoldOptions, announce: Announce) -> list[Pass]:
    """The passes that fold channels, of a model that is analyzed."""
    kind = None if o.quantize is None else o.quantize.kind
    return [
        AnnounceTime(o.planning, o.calibration, o.budget, announce, o.distill, work=_CHAINS if o.chooses else None),
        CollectSamples(o.planning, o.calibration, o.budget, trains(o), o.distill is not None, o.scale.max_memory),
        KeepUnreached(o.planning),
        PreparePlanning(o.planning, o.output, o.scale),
        MeetTarget(o) if o.chooses else FoldChannels(o.planning, o.calibration, o.budget, o.output, kind),
    ]


def fusing(o: FuseOptions) -> list[Pass]:
    """The passes that change whole layers."""
    sharing, level = o.sharing, o.recovery.level
    planning = PlanningOptions(
        selection=SelectionOptions(method=Method.FOLD), recovery=Recovery.AUTO if sharing.distance.sampled else level,
        effort=o.calibration.effort, runtime=o.runtime,
    )  # fmt: skip
    return [
        FindLayers(sharing, level, o.folding is not None),
        *measuring(o.measure),
        *([] if o.folding is None else _folded_first(o.folding)),
        *noting(o),
        *quantizable(o),
        CollectSamples(planning, o.calibration, training=trains(o)),
        DropBlocks(sharing, level, o.runtime),
        ShareWeights(sharing, level, o.quantize is not None),
    ]


def _folded_first(o: FoldOptions) -> list[Pass]:
    """Channels folded before layers share weights."""
    if o.chooses:
        raise RequestError("`folding` says how channels are folded: leave out its `allow`")
    if o.quantize is not None or o.output != OutputOptions() or o.scale != ScaleOptions() or o.measure.metric:
        raise RequestError(
            "`folding` says how channels are folded: pass `quantize`, `metric` and output options to fuse itself"
        )
    return [Analyze(o.selection), *folding(o, None), *_distilling(o)]


def _distilling(o: FoldOptions | FuseOptions) -> list[Pass]:
    return [] if o.distill is None else [Distill(o.distill, o.calibration.effort, o.runtime.seed)]


def finishing(o: FoldOptions | FuseOptions, asked: Budget | Limits, max_memory: int | None = None) -> list[Pass]:
    """The passes that train and quantize what was `asked` for, where that is wanted, write it and measure it."""
    return [
        *_distilling(o),
        *([TakeInNormalization(o.output.keep_bn)] if isinstance(o, FoldOptions) else []),
        *([Quantize(o.output, o.quantize.kind)] if o.quantize is not None else []),
        Stage(o.output),
        Verify(
            o.runtime.latency,
            max_memory,
            limit_of(asked),
            o.output.allow_unmeasured,
            operators=True,
            quick=o.calibration.effort is Effort.FAST,
        ),
        *([JudgeQuantization(asked)] if o.quantize is not None else []),
    ]


def quantizable(o: FoldOptions | FuseOptions) -> list[Pass]:
    """The pass that refuses a model that cannot be quantized, where it is to be."""
    return [] if o.quantize is None else [CheckQuantizable(o.calibration.sampled, o.quantize.kind)]


def trains(o: FoldOptions | FuseOptions) -> bool:
    """Whether samples serve for more than folding and fusing."""
    if isinstance(o, FoldOptions) and {Step.REFINE, Step.INT8} & set(o.allow):
        return True
    return o.distill is not None or (o.quantize is not None and o.quantize.kind.sampled)
