"""The sweep: one prepared state folded to several budgets; what does not depend on the budget is done once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..analysis.costs import Size
from ..calibration.samples import Samples
from ..errors import NothingToFoldError, PlanError, RequestError
from ..evaluation.own_measure import Measured
from ..evaluation.quality import ANY, Mark
from ..evaluation.verdict import Check, ProviderCheck, Status
from ..options.budget import Budget
from ..options.parts import CalibrationOptions, OutputOptions, PlanningOptions
from ..planning.knee import knee
from ..planning.plan_choice import FEW
from ..progress import Phase
from ..runtime.session import short
from .base import BasePass, Pipeline, Run, State
from .fold import FoldChannels, FoldRecord
from .normalization import TakeInNormalization
from .sizes import size_of, size_written
from .verify import Stage, Verify


@dataclass(frozen=True)
class Timing:
    """Median latencies in ms on one provider, both models run in turn; None where nothing was timed."""

    provider: str
    status: Status
    message: str
    latency_before_ms: float | None
    latency_after_ms: float | None
    timed_on: str = ""

    @classmethod
    def of(cls, done: ProviderCheck) -> Timing:
        """The latencies of a comparison."""
        return cls(
            done.provider, done.status, done.message, done.latency_before_ms, done.latency_after_ms,
            done.timed_on,
        )  # fmt: skip

    @property
    def where(self) -> str:
        """Where they were measured, for people."""
        return self.timed_on or short(self.provider)

    @property
    def share(self) -> float | None:
        """Latency after over latency before."""
        if not self.latency_before_ms or self.latency_after_ms is None:
            return None
        return self.latency_after_ms / self.latency_before_ms


@dataclass(frozen=True)
class SweepRow:
    """One budget. `size`, `error` and `agreement` are None where it could not be met (`note` says why).

    `target` is the share of the MACs that may remain; `error` the relative L2 error of the outputs (before a final
    softmax), `agreement` the share of samples that keep their top class (None for outputs without classes);
    `problems` is what makes the folded model unfit; `measure` what the user's own measure says, if there is one; `mark`
    what may be concluded (None where there is no model).
    """

    target: float
    size: Size | None
    error: float | None
    agreement: float | None
    timings: tuple[Timing, ...]
    problems: tuple[str, ...]
    note: str
    measure: Measured | None = None
    mark: Mark | None = None

    @property
    def usable(self) -> bool:
        """Whether there is a model, and it passed its checks."""
        return self.size is not None and not self.problems


def recommended(rows: Sequence[SweepRow], before: Size) -> float | None:
    """The target of the row at the knee of errors over MACs removed; None where there is none."""
    usable = [(row, row.size, row.error) for row in rows if row.usable and row.size and row.error is not None]
    at = knee([0.0, *(1 - size.macs / max(1, before.macs) for _, size, _ in usable)], [0.0, *(e for *_, e in usable)])
    return usable[at - 1][0].target if at else None


@dataclass(frozen=True)
class SweepRecord:
    """A row for every budget, and the state after the last one (for how decisions were made)."""

    rows: tuple[SweepRow, ...]
    last: State


class FoldToShares(BasePass):
    """Folds the model to several shares of its MACs and measures each. Leaves a `SweepRecord`."""

    name = "sweep"
    requires = frozenset(("planner",))
    phases = (Phase.MODELS,)

    def __init__(
        self, planning: PlanningOptions, calibration: CalibrationOptions, at: Sequence[float], latency: bool
    ) -> None:
        self._planning, self._calibration, self._at, self._latency = planning, calibration, at, latency

    def check(self, state: State, run: Run) -> None:
        """Refuse a model that cannot run here."""
        if state.known.streamed:
            raise RequestError(f"{state.name} is over 2 GiB, too large to run here: fold it to one target at a time")

    def __call__(self, state: State, run: Run) -> State:
        """Raises PlanError or NothingToFoldError where no budget can be met, or none removes anything."""
        while True:
            found = self._rows(state, run)
            if isinstance(found, SweepRecord):
                return state.adding(found)
            assert state.planner is not None  # the samples proved useless at one budget: all rows without them, then
            state = state.adding(samples=found, planner=state.planner.without(found))

    def _rows(self, state: State, run: Run) -> SweepRecord | Samples:
        """All rows; or the samples as one budget left them, where it had to be decided without."""
        rows, refused, last = list[SweepRow](), list[PlanError | NothingToFoldError](), state
        for share in run.progress("folding to targets", list(self._at)):
            try:
                row, last = self._row(state, share, run)
            except (PlanError, NothingToFoldError) as error:
                refused.append(error)
                row = SweepRow(share, None, None, None, (), (), str(error))
            rows.append(row)
            if _trusted(state) and not _trusted(last) and last.samples is not None:
                return last.samples
        if len(refused) == len(rows):
            raise next((error for error in refused if isinstance(error, PlanError)), refused[0])
        if _trusted(state):
            self._settle(rows, state, run)
        return SweepRecord(tuple(rows), last)

    def _settle(self, rows: list[SweepRow], state: State, run: Run) -> None:
        """Make what is recommended with all plans, as a fold to it does, until that is so of what is recommended."""
        before, full = size_of(state.source, state.known.prices), set[float]()
        while (share := recommended(rows, before)) is not None and share not in full:
            full.add(share)
            at = next(i for i, row in enumerate(rows) if row.target == share)
            rows[at], _ = self._row(state, share, run, None)

    def _row(self, state: State, share: float, run: Run, plans: int | None = FEW) -> tuple[SweepRow, State]:
        """One budget decided and measured, of so many plans (None: as many as are worth it). Raises PlanError or
        NothingToFoldError where there is nothing to measure."""
        fold = FoldChannels(self._planning, self._calibration, Budget.macs(share), plans=plans)
        with run.inner() as inner:
            passes = Pipeline(
                fold,
                TakeInNormalization(),
                Stage(OutputOptions()),
                Verify(self._latency, limit=ANY),
                given=("analysis", "planner"),
            )
            done = passes.run(state, inner)
            verdict, size = done.done(Check), size_written(done, state.known.prices, done.done(FoldRecord).lengths)
        quality = verdict.quality
        row = SweepRow(
            share, size, None if quality is None else quality.error, None if quality is None else quality.agreement,
            tuple(Timing.of(done) for done in verdict.providers), verdict.problems, "; ".join(verdict.notes),
            verdict.measure, verdict.mark,
        )  # fmt: skip
        return row, done


def _trusted(state: State) -> bool:
    return state.samples is not None and state.samples.trusted
