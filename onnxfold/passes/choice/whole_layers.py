"""Chains that change whole layers: they share weights, or residual blocks go."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...analysis.costs import costs
from ...model.model import Source, load
from ...options.budget import NO_LIMITS, Limits
from ...options.choices import Fusion, Quantization, Step
from ...options.options import ChoiceOptions, FuseOptions
from ...options.parts import OutputOptions, QuantizeOptions, SharingOptions
from ..base import Pass, Pipeline, Run, State
from ..sizes import size_of
from .chain import DROPPED, SHARED, Chain
from .explore import Other
from .made import FOLDED, measuring
from .row import ChoiceRow, row_of


def whole_layers(
    model: Source, options: ChoiceOptions, run: Run, passes: Callable[[FuseOptions], Sequence[Pass]]
) -> list[Other]:
    """The chains that `options` allow, and what measures each; `passes` change the layers of a model. That is done once
    for all chains that begin with it, and again only where inputs are made for ranges of activations."""
    shapes, known = options.runtime.input_shapes, dict[tuple[Step | None, bool], State]()

    def changed(chain: Chain) -> State:
        making = chain.quantize is not None and chain.quantize.sampled and options.calibration.data is None
        key = chain.fuse, making
        if key not in known:
            asked = _asked(chain.fuse, making, options)
            known[key] = Pipeline(*passes(asked)).run(State.load(model, shapes), run)
        return known[key]

    def measured(chain: Chain) -> ChoiceRow:
        state = changed(chain)
        with run.inner() as inner:
            last = measuring(chain.quantize, options.runtime.latency)
            done = Pipeline(*last, given=FOLDED).run(state, inner)
            assert done.staged is not None
            made = load(done.staged.path, shapes)
            return row_of(chain, done, size_of(made, costs(made, done.shapes)))

    steps = [step for step in (Step.SHARE, Step.DROP) if step in options.allow]
    return [(Chain(fuse=step), measured) for step in steps]


def _asked(fuse: Step | None, making: bool, options: ChoiceOptions) -> FuseOptions:
    """What the passes are asked for; `making`: inputs for INT8, too."""
    shares = fuse is Step.SHARE
    how = SharingOptions(
        how=Fusion.MEAN if shares else None, limits=Limits(share=SHARED) if shares else NO_LIMITS,
        drop_blocks=None if shares else DROPPED,
    )  # fmt: skip
    return FuseOptions(
        sharing=how, calibration=options.calibration, runtime=options.runtime, measure=options.measure,
        quantize=QuantizeOptions(kind=Quantization.INT8) if making else None,
        output=OutputOptions(provenance=False),  # rows are compared by their bytes, and others have none
    )  # fmt: skip
