"""The pass that meets a target of bytes or latency by whichever chain loses least."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...analysis.costs import Size
from ...errors import NothingToFoldError, PlanError, QuantizationError, RequestError
from ...evaluation.quality import ANY
from ...options.budget import Aim, Budget
from ...options.choices import Quantization, Step
from ...options.options import FoldOptions
from ...options.parts import DistillOptions
from ...progress import Phase
from ...units import in_percent
from ..base import BasePass, Pass, Pipeline, Run, State
from ..distillation.distill import Distill
from ..fold import FoldChannels, FoldRecord
from ..normalization import TakeInNormalization
from ..provenance import Provenance, bytes_noted
from ..quantization.apply import CheckQuantizable, JudgeQuantization, Quantize
from ..sizes import size_of, size_written
from ..verify import Stage, Verify
from .chain import Chain, kinds
from .front import Point, least_loss
from .row import ChoiceRow, row_of

_TRIES = 3  # folds for one kind of quantization: what it saves depends a little on the widths
_TOLD = 3  # reasons why chains could not be made
_CLOSER = 0.95  # of the fold's share, where the chain missed the target
_FASTER = 0.95  # of bytes or latency: what is better by less is not worth a line
_LOSES_AS_LITTLE = 1.1  # times the loss


@dataclass(frozen=True)
class ChainChosen:
    """Which chain met the target with the least loss, in `words`, and what else was measured (`rows`)."""

    words: str
    rows: tuple[ChoiceRow, ...]


@dataclass(frozen=True, eq=False)
class _Made:
    """A chain that was made: its row, and the state that it left."""

    row: ChoiceRow
    state: State


class MeetTarget(BasePass):
    """Meets a target of size or latency by the chain with the least loss. Leaves what that chain leaves, and a
    `ChainChosen`."""

    name = "choose"
    requires = frozenset(("planner",))
    provides = frozenset(("candidate", "file", "verdict"))
    phases = (Phase.MODELS,)

    def __init__(self, options: FoldOptions) -> None:
        self._options = options
        self._size = options.budget.aim is Aim.SIZE

    def check(self, state: State, run: Run) -> None:
        """Refuse a model that cannot run here, and one that is quantized already."""
        if state.known.streamed:
            raise RequestError(f"{state.name} is over 2 GiB, too large to run here: leave out `allow`")

    def __call__(self, state: State, run: Run) -> State:
        """Raises PlanError where no chain meets the target."""
        before = size_of(state.source, state.known.prices)
        assert state.planner is not None
        state.planner.evaluator(state.samples)  # from here on all chains share what it knows
        made, refused = list[_Made](), list[str]()
        for one in self._chains(state, run):
            if isinstance(one, _Made):
                made.append(one)
            else:
                refused.append(one)
        points = [one.row.point(before) for one in made]
        met = [i for i, point in enumerate(points) if self._share(point) <= self._options.budget.value]
        at = least_loss(points, met)
        if at is None:
            raise PlanError(self._missed(made, points, refused))
        return self._finished(made, points, refused, at, run)

    def _finished(
        self, made: Sequence[_Made], points: Sequence[Point], refused: Sequence[str], at: int, run: Run
    ) -> State:
        state, kind = made[at].state, made[at].row.chain.quantize
        if kind is not None:
            judge = JudgeQuantization(self._options.budget)
            state = Pipeline(judge, given=("verdict",)).run(state, run)
        words = self._words(made, points, at) + "".join(f"; not made: {why}" for why in refused[:_TOLD])
        chosen = ChainChosen(words, tuple(one.row for one in made))
        return state.adding(replace(state.done(FoldRecord), left=""), chosen)

    def _chains(self, state: State, run: Run) -> Iterator[_Made | str]:
        """All chains that might do, made; or why one cannot be."""
        target, fold = self._options.budget.value, Step.FOLD in self._options.allow
        found = list[_Made]()
        if fold:
            yield from self._kept(self._tried(Chain(), self._options.budget, state, run), found)
        for kind in kinds(self._options.allow):
            alone = self._tried(Chain(quantize=kind), Budget.ratio(0.0), state, run)
            yield from self._kept(alone, found)
            share = self._share_of(alone, state) if isinstance(alone, _Made) else math.nan
            for _ in range(_TRIES if fold and share > target else 0):
                asked = target / share
                chain = self._tried(Chain(quantize=kind), Budget(self._options.budget.aim, asked), state, run)
                yield from self._kept(chain, found)
                if isinstance(chain, str) or self._share_of(chain, state) <= target:
                    break
                share = max(share, asked and self._share_of(chain, state) / asked) / _CLOSER
        if Step.REFINE in self._options.allow:
            yield from self._trained([one for one in found if self._share_of(one, state) <= target], state, run)

    def _kept(self, one: _Made | str, found: list[_Made]) -> Iterator[_Made | str]:
        found += [one] if isinstance(one, _Made) else []
        yield one

    def _trained(self, met: Sequence[_Made], state: State, run: Run) -> Iterator[_Made | str]:
        """The fold that loses least, trained."""
        folded = [one for one in met if one.state.done(FoldRecord).merges]
        for one in sorted(folded, key=lambda each: each.row.error or 0.0)[:1]:
            value = self._options.budget.value if one.row.chain.quantize is None else one.row.chain.share
            budget = Budget(self._options.budget.aim, value or self._options.budget.value)
            yield self._tried(replace(one.row.chain, refine=True), budget, state, run)

    def _tried(self, chain: Chain, budget: Budget, state: State, run: Run) -> _Made | str:
        """A chain, folded by a budget; or why it cannot be made."""
        if budget.aim is self._options.budget.aim:
            chain = replace(chain, share=budget.value)
        try:
            passes = Pipeline(*self._passes(chain, budget), given=("analysis", "planner", "samples"))
            done = passes.run(_naming(chain, budget, state), run)
        except (NothingToFoldError, PlanError, QuantizationError) as error:
            return f"{_called(chain)}: {error}"
        row = row_of(chain, done, size_written(done, state.known.prices, done.done(FoldRecord).lengths))
        return _Made(row, done) if row.usable else f"{_called(chain)}: {'; '.join(row.problems) or 'not measured'}"

    def _passes(self, chain: Chain, budget: Budget) -> Iterator[Pass]:
        o, kind = self._options, chain.quantize
        if kind is not None:
            yield CheckQuantizable(o.calibration.sampled, kind)
        yield FoldChannels(o.planning, o.calibration, budget, o.output, kind)
        if chain.refine:
            yield Distill(DistillOptions(), o.calibration.effort, o.runtime.seed)
        yield TakeInNormalization(o.output.keep_bn)
        if kind is not None:
            yield Quantize(o.output, kind)
        yield Stage(o.output)
        yield Verify(
            o.runtime.latency or not self._size, limit=ANY, unmeasured=o.output.allow_unmeasured, operators=True
        )

    def _share(self, point: Point) -> float:
        return point.size if self._size else point.latency

    def _share_of(self, one: _Made, state: State) -> float:
        before = Size(state.source.size, 1, 1)
        return self._share(one.row.point(before))

    def _words(self, made: Sequence[_Made], points: Sequence[Point], at: int) -> str:
        """What was chosen, and one line on what is better otherwise."""

        def other(i: int) -> float:
            return points[i].latency if self._size else points[i].size

        many = f"best of {len(made)} chains of steps" if len(made) > 1 else "the only chain of steps that was made"
        text = f"{many}: {_called(made[at].row.chain)}"
        better = [
            i for i in range(len(made))
            if i != at and other(i) <= _FASTER * other(at) and points[i].loss <= _LOSES_AS_LITTLE * points[at].loss
            and self._share(points[i]) <= self._options.budget.value
        ]  # fmt: skip
        for i in sorted(better, key=other)[:1]:
            what = "the latency" if self._size else "the bytes"
            text += (
                f"; {_called(made[i].row.chain)} takes {in_percent(other(i))} of {what} (this one "
                f"{in_percent(other(at))}) and loses {in_percent(points[i].error)}"
            )
        return text

    def _missed(self, made: Sequence[_Made], points: Sequence[Point], refused: Sequence[str]) -> str:
        asked = f"`{self._options.budget.aim.parameter}={self._options.budget.value:g}`"
        best = min(range(len(made)), key=lambda i: self._share(points[i]), default=None)
        if best is None:
            return f"{asked} cannot be met by any chain of `allow`: {'; '.join(refused)}"
        others = f" (not made: {'; '.join(refused)})" if refused else ""
        return (
            f"{asked} cannot be met by any chain of `allow`: the lowest that was made is "
            f"{self._share(points[best]):.2f}, by {_called(made[best].row.chain)}{others}"
        )


def _naming(chain: Chain, budget: Budget, state: State) -> State:
    """A state of which the results say which chain made them."""
    known = state.found(Provenance)
    if known is None or state.planner is None:
        return state
    steps: dict[str, Any] = {"refine": True} if chain.refine else {}
    steps |= {} if chain.quantize is None else {"quantize": chain.quantize.value}
    noted = state.adding(known.naming({"steps": _called(chain), **budget.recorded(None), **steps}))
    return noted.adding(planner=state.planner.beside(bytes_noted(noted)))


def _called(chain: Chain) -> str:
    """A chain whose fold is to a share of the target, not of the MACs."""
    parts = ["fold"] if chain.share is not None else []
    parts += ["refine"] if chain.refine else []
    parts += [chain.quantize.label] if isinstance(chain.quantize, Quantization) else []
    return ", ".join(parts)
