"""The pass that makes and measures chains, the cheap ones first, and leaves out what cannot be the best.

Fewer bits alone take seconds and come first. Every fold is made once in floats and once for kernels of fewer bits, the
widest first, and only where something that follows from it may be worth having: savings are expected to multiply, and
errors to add up like lengths at right angles (`Point.then`); of a fold that is not made yet, the best is assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ...calibration.samples import Samples
from ...errors import NothingToFoldError, PlanError, QuantizationError, RequestError
from ...evaluation.quality import ANY
from ...options.budget import Budget
from ...options.choices import Step
from ...options.options import ChoiceOptions
from ...options.parts import DistillOptions, OutputOptions
from ...planning.time_estimate import Estimate
from ...progress import Phase, Title, silent
from ..base import BasePass, Pass, Pipeline, Run, State
from ..distillation.distill import Distill
from ..fold import FoldChannels, FoldRecord
from ..normalization import TakeInNormalization
from ..quantization.apply import CheckQuantizable, Quantize
from ..sizes import size_of, size_written
from ..verify import Stage, Verify
from .chain import Chain, kinds
from .front import ORIGINAL, Point, front
from .row import ChoiceRow, row_of
from .work import titles

Refused = (NothingToFoldError, PlanError, QuantizationError)
Measure = Callable[[Chain], ChoiceRow]
Other = tuple[Chain, Measure]
_FLOATS = 0.4  # of the time of a fold that is made in fewer bits too
_FOLDED = ("analysis", "planner", "samples", "candidate")


@dataclass(frozen=True)
class ChoiceRecord:
    """All chains, measured or not, and the state after the last fold (None: none was made)."""

    rows: tuple[ChoiceRow, ...]
    last: State | None


class ExploreChains(BasePass):
    """Makes and measures chains of the steps that are allowed. Leaves a `ChoiceRecord`."""

    name = "sweep"
    requires = frozenset(("planner",))
    phases = (Phase.MODELS,)

    def __init__(self, options: ChoiceOptions, others: Sequence[Other] = ()) -> None:
        """`others`: chains that do not begin with a fold, and what measures each (and the same in fewer bits)."""
        self._options, self._others = options, others

    def check(self, state: State, run: Run) -> None:
        """Refuse a model that cannot run here."""
        if state.known.streamed:
            raise RequestError(f"{state.name} is over 2 GiB, too large to run here: pick one chain of steps and fold")

    def __call__(self, state: State, run: Run) -> State:
        while True:
            found = _Exploration(state, run, self._options).all(self._others)
            if isinstance(found, ChoiceRecord):
                return state.adding(found)
            assert state.planner is not None  # the samples proved useless in one fold: all without them, then
            state = state.adding(samples=found, planner=state.planner.without(found))


class _Exploration:
    """One round through all chains, with what was measured so far."""

    def __init__(self, state: State, run: Run, options: ChoiceOptions) -> None:
        self._state, self._run, self._options = state, run, options
        self._kinds, self._rows = kinds(options.allow), list[ChoiceRow]()
        self._folded = dict[tuple[float | None, bool], State]()
        self._folds = dict[tuple[float | None, bool, bool], State]()
        self._before = size_of(state.source, state.known.prices)

    def all(self, others: Sequence[Other]) -> ChoiceRecord | Samples:
        """All rows; or the samples as a fold left them, where it had to do without."""
        progress, hoped = self._run.progress, ORIGINAL
        shares = list(self._options.at if Step.FOLD in self._options.allow else ())
        quantizing, folding, sharing, training = titles(self._options, self._state.found(Estimate))
        for kind in progress(quantizing, list(self._kinds)):
            self._measure(Chain(quantize=kind))
        for number, share in enumerate(progress(folding, shares)):
            hoped = self._with_kinds(Chain(share), hoped.narrowed(share / (1.0, *self._options.at)[number]))
            if (useless := self._useless) is not None:
                return useless
        for chain, measure in progress(sharing, list(others)):
            self._with_kinds(chain, ORIGINAL, measure)
        for row in progress(training, self._worth_training() if Step.REFINE in self._options.allow else []):
            self._measure(replace(row.chain, refine=True))
        last = next(reversed(self._folds.values()), None)
        return ChoiceRecord(tuple(self._rows), last)

    @property
    def _useless(self) -> Samples | None:
        """The samples, where a fold had to do without them though they were trusted."""
        given = self._state.samples
        found = [fold.samples for fold in self._folds.values() if fold.samples is not None]
        return next((one for one in found if given is not None and given.trusted and not one.trusted), None)

    def _with_kinds(self, plain: Chain, hoped: Point, measure: Measure | None = None) -> Point:
        """A chain in floats, and in fewer bits. Returns the best that it can be, given what was `hoped` for before it
        is made."""
        progress = self._run.progress if self._kinds else silent
        for chain in progress(Title.taking(_FLOATS, "in floats"), [plain]):
            self._measure(chain, hoped, measure)
        row = self._rows[-1]
        if not row.skipped and not row.usable:
            return hoped  # it cannot be made, so neither can the others
        found = row.point(self._before) if row.usable else hoped
        for kind in progress(Title.taking(1.0, "in fewer bits"), list(self._kinds)):
            alone = self._row(Chain(quantize=kind))
            if alone.usable:  # else it says there why
                self._measure(replace(plain, quantize=kind), found.then(alone.point(self._before)), measure)
        return found

    def _worth_training(self) -> list[ChoiceRow]:
        """The folds that are worth having so far."""
        usable = [row for row in self._rows if row.usable]
        worth = front([ORIGINAL, *(row.point(self._before) for row in usable)])
        return [row for row in (usable[at - 1] for at in worth if at) if row.chain.share is not None]

    def _row(self, chain: Chain) -> ChoiceRow:
        return next(row for row in self._rows if row.chain == chain)

    def _measure(self, chain: Chain, hoped: Point | None = None, measure: Measure | None = None) -> None:
        """A row for a chain: left out, where something that was measured beats what may be `hoped` for."""
        for row in self._rows:
            if hoped is not None and row.usable and hoped.beaten_by(row.point(self._before)):
                why = f"expected to be worse than {row.chain.label} in every way"
                self._rows.append(ChoiceRow(chain, skipped=why))
                return
        try:
            self._rows.append((measure or self._made)(chain))
        except Refused as error:
            self._rows.append(ChoiceRow(chain, note=str(error)))

    def _made(self, chain: Chain) -> ChoiceRow:
        """A chain made and measured. Raises what its steps raise."""
        options, kind = self._options, chain.quantize
        if kind is not None:
            CheckQuantizable(options.calibration.sampled, kind).check(self._state, self._run)
        folded = self._fold(chain)
        with self._run.inner() as inner:
            last = (Stage(OutputOptions()), Verify(options.runtime.latency, limit=ANY))
            bits = () if kind is None else (Quantize(OutputOptions(), kind),)
            done = Pipeline(*bits, *last, given=_FOLDED).run(folded, inner)
            return row_of(chain, done, size_written(done, self._state.known.prices, done.done(FoldRecord).lengths))

    def _fold(self, chain: Chain) -> State:
        """The state after the fold of a chain (and training), which several share."""
        key = chain.share, chain.quantize is not None, chain.refine
        if key not in self._folds:
            options, passes = self._options, list[Pass]()
            if chain.refine:
                passes.append(Distill(DistillOptions(), options.calibration.effort, options.runtime.seed))
            passes.append(TakeInNormalization())
            self._folds[key] = Pipeline(*passes, given=_FOLDED).run(self._channels(chain), self._run)
        return self._folds[key]

    def _channels(self, chain: Chain) -> State:
        """The state after the fold alone, which is trained or not."""
        key = chain.share, chain.quantize is not None
        if key not in self._folded:
            options = self._options
            budget = Budget.ratio(0.0) if chain.share is None else Budget.macs(chain.share)
            fold = FoldChannels(options.planning, options.calibration, budget, quantized=chain.quantize)
            self._folded[key] = Pipeline(fold, given=("analysis", "planner")).run(self._state, self._run)
        return self._folded[key]
