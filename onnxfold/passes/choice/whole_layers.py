"""Chains that change whole layers: they share weights, or residual blocks go."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...analysis.costs import costs
from ...model.model import Source, load
from ...options.budget import NO_LIMITS, Limits
from ...options.choices import Fusion, Step
from ...options.options import ChoiceOptions, FuseOptions
from ...options.parts import OutputOptions, QuantizeOptions, SharingOptions
from ..base import Pass, Pipeline, Run, State
from ..sizes import size_of
from .chain import DROPPED, SHARED, Chain
from .explore import Other
from .row import ChoiceRow, row_of


def whole_layers(
    model: Source, options: ChoiceOptions, run: Run, passes: Callable[[FuseOptions], Sequence[Pass]]
) -> list[Other]:
    """The chains that `options` allow, and what measures each; `passes` make and verify one."""

    def measured(chain: Chain) -> ChoiceRow:
        shapes = options.runtime.input_shapes
        with run.inner() as inner:
            done = Pipeline(*passes(_asked(chain, options))).run(State.load(model, shapes), inner)
            assert done.staged is not None
            made = load(done.staged.path, shapes)
            return row_of(chain, done, size_of(made, costs(made, done.shapes)))

    steps = [step for step in (Step.SHARE, Step.DROP) if step in options.allow]
    return [(Chain(fuse=step), measured) for step in steps]


def _asked(chain: Chain, options: ChoiceOptions) -> FuseOptions:
    shares = chain.fuse is Step.SHARE
    how = SharingOptions(
        how=Fusion.MEAN if shares else None, limits=Limits(share=SHARED) if shares else NO_LIMITS,
        drop_blocks=None if shares else DROPPED,
    )  # fmt: skip
    return FuseOptions(
        sharing=how, calibration=options.calibration, runtime=options.runtime, measure=options.measure,
        output=OutputOptions(provenance=False),  # rows are compared by their bytes, and others have none
        quantize=None if chain.quantize is None else QuantizeOptions(kind=chain.quantize),
    )  # fmt: skip
