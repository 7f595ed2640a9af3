"""The pass that makes and measures chains, the cheap ones first, and leaves out what cannot be the best.

Fewer bits alone take seconds and come first. Every fold is made once in floats and once for kernels of fewer bits, the
widest first, and only where something that follows from it may be worth having: savings are expected to multiply, and
errors to add up like lengths at right angles (`Point.then`); of a fold that is not made yet, the best is assumed.

A fold is planned in a few tries, the first of those that `FoldChannels` makes alone, and trained as briefly as with the
least effort: it is there to be compared. What is advised is made again in full, as its command makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ...calibration.samples import Samples
from ...errors import NothingToFoldError, PlanError, QuantizationError, RequestError
from ...options.budget import Budget
from ...options.choices import Effort, Step
from ...options.options import ChoiceOptions
from ...options.parts import DistillOptions
from ...planning.plan_choice import FEW
from ...planning.time_estimate import Estimate
from ...progress import Phase, Title, silent
from ..base import BasePass, Pipeline, Run, State
from ..distillation.distill import Distill
from ..distillation.result import RefinementReport
from ..fold import FoldChannels, FoldRecord
from ..normalization import TakeInNormalization
from ..prepare import nothing_to_fold
from ..quantization.apply import CheckQuantizable
from ..sizes import size_of, size_written
from .chain import Chain, kinds
from .front import ORIGINAL, Aspect, Point, best, rivals
from .made import FOLDED, measuring
from .row import ChoiceRow, row_of
from .work import titles


class NotTrainedError(Exception):
    """Training kept the weights as they were, and why."""


Refused = (NothingToFoldError, PlanError, QuantizationError, NotTrainedError)
Measure = Callable[[Chain], ChoiceRow]
Other = tuple[Chain, Measure]
_FLOATS = 0.4  # of the time of a fold that is made in fewer bits too


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
        self._folds = dict[tuple[float | None, bool, bool], State]()
        self._after_training, self._full = dict[tuple[int, bool], State](), set[Chain]()
        self._before = size_of(state.source, state.known.prices)

    def all(self, others: Sequence[Other]) -> ChoiceRecord | Samples:
        """All rows; or the samples as a fold left them, where it had to do without."""
        progress, hoped = self._run.progress, ORIGINAL
        shares = list(self._options.at if Step.FOLD in self._options.allow else ())
        found = self._state.found(Estimate)
        quantizing, folding, sharing, training, settling = titles(self._options, found)
        for kind in progress(quantizing, list(self._kinds)):
            self._measure(Chain(quantize=kind))
        if shares and not self._state.known.chosen:
            self._rows.append(ChoiceRow(Chain(shares[0]), note=self._unfoldable))
            shares = []
        for number, share in enumerate(progress(folding, shares)):
            hoped = self._with_kinds(Chain(share), hoped.narrowed(share / (1.0, *self._options.at)[number]))
            if (useless := self._useless) is not None:
                return useless
        for chain, measure in progress(sharing, list(others)):
            self._with_kinds(chain, ORIGINAL, measure)
        for aspect in progress(training, list(Aspect) if Step.REFINE in self._options.allow else []):
            self._train(aspect)
        for _ in progress(settling, [None]):
            self._settle()
        last = next(reversed(self._folds.values()), None)
        return ChoiceRecord(tuple(self._rows), last)

    @property
    def _unfoldable(self) -> str:
        """Why nothing can be folded."""
        known = self._state.known
        return nothing_to_fold(known.model, known.analysis, self._options.selection.patterns)

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

    def _train(self, aspect: Aspect) -> None:
        """Train folds that may become what is advised for an aspect, the likeliest first, until one does not."""
        while (chain := self._rival(aspect)) is not None:
            self._measure(replace(chain, refine=True))
            rows, points = self._usable
            if (at := best(points, aspect)) is None or rows[at].chain != replace(chain, refine=True):
                return

    def _settle(self) -> None:
        """Make what is advised in full, until that is so of all that is."""
        while (chain := next((one for one in self._advised if one not in self._full), None)) is not None:
            self._full.add(chain)
            at = next(i for i, row in enumerate(self._rows) if row.chain == chain)
            self._rows[at] = self._tried(chain, self._made)

    @property
    def _advised(self) -> list[Chain]:
        """The chains that begin with a fold among those that are best for something."""
        rows, points = self._usable
        found = [rows[at].chain for aspect in Aspect for at in [best(points, aspect)] if at is not None]
        return [chain for chain in found if chain.share is not None]

    def _rival(self, aspect: Aspect) -> Chain | None:
        """The fold that is trained next."""
        rows, points = self._usable
        known = {row.chain for row in self._rows}
        folds = [i for i, row in enumerate(rows) if row.chain.share is not None and not row.chain.refine]
        open_ = [rows[i].chain for i in rivals(points, folds, aspect)]
        return next((one for one in open_ if replace(one, refine=True) not in known), None)

    @property
    def _usable(self) -> tuple[list[ChoiceRow], list[Point]]:
        """The models that passed their checks, the original first, and where they lie."""
        rows = [row for row in self._rows if row.usable]
        return [ChoiceRow(Chain()), *rows], [ORIGINAL, *(row.point(self._before) for row in rows)]

    def _row(self, chain: Chain) -> ChoiceRow:
        return next(row for row in self._rows if row.chain == chain)

    def _measure(self, chain: Chain, hoped: Point | None = None, measure: Measure | None = None) -> None:
        """A row for a chain: left out, where something that was measured beats what may be `hoped` for."""
        for row in self._rows:
            if hoped is not None and row.usable and hoped.beaten_by(row.point(self._before)):
                why = f"expected to be worse than {row.chain.label} in every way"
                self._rows.append(ChoiceRow(chain, skipped=why))
                return
        self._rows.append(self._tried(chain, measure or self._made))

    def _tried(self, chain: Chain, measure: Measure) -> ChoiceRow:
        """The row of a chain, whether it can be made or not."""
        try:
            return measure(chain)
        except Refused as error:
            return ChoiceRow(chain, note=str(error))

    def _made(self, chain: Chain) -> ChoiceRow:
        """A chain made and measured. Raises what its steps raise."""
        options, kind = self._options, chain.quantize
        if kind is not None:
            CheckQuantizable(options.calibration.sampled, kind).check(self._state, self._run)
        folded = self._fold(chain)
        passes = TakeInNormalization(), *measuring(kind, options.runtime.latency)
        with self._run.inner() as inner:
            done = Pipeline(*passes, given=FOLDED).run(folded, inner)
            return row_of(chain, done, size_written(done, self._state.known.prices, done.done(FoldRecord).lengths))

    def _fold(self, chain: Chain) -> State:
        """The state after the fold of a chain (and training), which several share."""
        full, o = chain in self._full, self._options
        key = chain.share, chain.quantize is not None, full
        if key not in self._folds:
            budget = Budget.ratio(0.0) if chain.share is None else Budget.macs(chain.share)
            plans = None if full else FEW
            fold = FoldChannels(o.planning, o.calibration, budget, quantized=chain.quantize, plans=plans)
            self._folds[key] = Pipeline(fold, given=("analysis", "planner")).run(self._state, self._run)
        return self._trained(self._folds[key], full) if chain.refine else self._folds[key]

    def _trained(self, folded: State, full: bool) -> State:
        """After training; a fold that is the same in floats and for fewer bits is trained once. Raises
        NotTrainedError where training gains nothing."""
        version, o = (id(folded.current.proto), full), self._options
        if version not in self._after_training:
            train = Distill(DistillOptions(), o.calibration.effort if full else Effort.FAST, o.runtime.seed)
            self._after_training[version] = Pipeline(train, given=FOLDED).run(folded, self._run)
        report = self._after_training[version].found(RefinementReport)
        if report is not None and not report.kept:
            raise NotTrainedError(str(report))
        return self._after_training[version]
