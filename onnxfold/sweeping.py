"""The sweep: one model folded to several budgets, with everything that does not depend on the budget done once."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .cluster import Clusterer
from .costs import count_parameters
from .errors import NothingToFoldError, PlanError, RequestError
from .estimate import estimate
from .evidence import gather_evidence
from .features import Method
from .images import Preprocess
from .knee import knee
from .plan import Aim, Budget
from .planner import Planner
from .progress import Progress, silent
from .recover import Recovery
from .report import Size
from .request import Manner
from .samples import Effort
from .session import resolve_providers
from .stages import Source, on_disk, subject
from .store import staged
from .sweepreport import SweepReport, SweepRow, Timing
from .validate import Check, check

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)  # of the MACs, by default


def sweep(
    model: Source,
    *,
    at: Sequence[float] = SHARES,
    method: Method | str = Method.AUTO,
    recovery: Recovery | str = Recovery.AUTO,
    effort: Effort | str = Effort.BALANCED,
    calibration: object = None,
    samples: int = 128,
    preprocess: Preprocess | None = None,
    round_to: int = 8,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    fold_heads: bool = False,
    clusterer: Clusterer | str = Clusterer.NATIVE,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    providers: Sequence[str] | None = None,
    seed: int = 0,
    threads: int = 0,
    latency: bool = True,
    progress: Progress[Any] = silent,
    announce: Callable[[str], None] | None = None,
) -> SweepReport:
    """Fold a model to several shares of its MACs, measure each, and recommend the one at the knee. Writes no model.

    Args:
        at: the shares of the multiply-accumulates that may remain, each above 0 and at most 1, in any order.
        model and all others: as in `fold`. Nothing is fitted on the samples held back: the errors are measured on them.

    Budgets that cannot be met give a row that says so. The knee is that of `knee.knee` on the curve of output errors
    over MACs removed, from the original on.

    Raises:
        RequestError, ModelError: see `onnxfold.errors`.
        PlanError, NothingToFoldError: no budget can be met, or none removes anything.
    """
    begin = time.perf_counter()
    manner = Manner.of(method, recovery, clusterer, effort, seed, threads, include, exclude)
    budgets = [Budget(Aim.MACS, share, round_to) for share in _shares(at)]
    usable, missing = resolve_providers(providers)
    found = subject(model, input_shapes, manner.patterns, fold_heads=fold_heads)
    if found.streamed:
        raise RequestError(f"{found.name} is over 2 GiB, too large to be run here: fold it to one target at a time")
    seconds = {"analyse": time.perf_counter() - begin}
    expected = estimate(found, manner, 0 if calibration is None else samples, True, input_shapes)
    if announce is not None and expected is not None and expected.worth_saying:
        announce(f"{expected}, and the time to fold and measure {len(budgets)} models")
    evidence = gather_evidence(
        found.model, calibration, samples, preprocess, manner.effort, manner.method, manner.recovery, seed,
        input_shapes, progress, usable,
    )  # fmt: skip
    seconds["samples"] = time.perf_counter() - begin - seconds["analyse"]
    with tempfile.TemporaryDirectory(prefix="onnxfold-") as folder:
        target = Path(folder) / "folded.onnx"
        planner = Planner(found, manner, evidence, input_shapes, progress, providers=usable, target=target)
        original = on_disk(found.model, Path(folder))
        way = None
        while way != planner.sampled:  # all rows the same way, also where the samples prove useless at a later one
            way, rows, refused = planner.sampled, list[SweepRow](), list[PlanError | NothingToFoldError]()
            for budget in budgets:
                try:
                    rows.append(_row(planner, budget, original, target, usable, missing, latency))
                except (PlanError, NothingToFoldError) as error:
                    refused.append(error)
                    rows.append(SweepRow(budget.value, None, None, None, (), (), str(error)))
    if len(refused) == len(budgets):
        raise next((error for error in refused if isinstance(error, PlanError)), refused[0])
    seconds["sweep"] = time.perf_counter() - begin - sum(seconds.values())
    before = Size(found.model.size, count_parameters(found.model.proto), found.prices.macs({}))
    return SweepReport(
        found.name, {**planner.settings(round_to), "at": [b.value for b in budgets]}, before, tuple(rows),
        recommended(rows, before), planner.described, () if planner.evidence is None else planner.evidence.notes,
        seconds,
    )  # fmt: skip


def recommended(rows: Sequence[SweepRow], before: Size) -> float | None:
    """The target of the row at the knee of errors over MACs removed; None where there is none."""
    usable = [(row, row.size, row.error) for row in rows if row.usable and row.size and row.error is not None]
    at = knee([0.0, *(1 - size.macs / max(1, before.macs) for _, size, _ in usable)], [0.0, *(e for *_, e in usable)])
    return usable[at - 1][0].target if at else None


def _row(
    planner: Planner,
    budget: Budget,
    original: Path,
    target: Path,
    usable: Sequence[str],
    missing: Sequence[str],
    latency: bool,
) -> SweepRow:
    """One budget decided and measured. Raises PlanError or NothingToFoldError where there is nothing to measure."""
    folded, model = planner.decide(budget).folded, planner.subject.model
    if not folded.merges:
        raise NothingToFoldError(planner.nothing_left(budget))
    with staged(folded.proto, model, target) as written:
        verdict = check(
            original, written.path, planner.feeds, providers=usable, missing=missing,
            protos=(model.proto, folded.proto), inputs=planner.described, latency=latency,
            caches=planner.subject.analysis.caches,
        )  # fmt: skip
        lengths = planner.work.lengths({name: merge.after for name, merge in folded.merges.items()})
        size = Size(written.size, count_parameters(folded.proto), planner.subject.prices.macs(lengths))
    trial = planner.trial
    return SweepRow(
        budget.value, size, trial.error(folded.proto) if trial.possible else None,
        trial.agreement(folded.proto) if trial.possible and verdict.passed and _classes(verdict) else None,
        tuple(Timing.of(done) for done in verdict.providers), verdict.problems, "; ".join(verdict.notes),
    )  # fmt: skip


def _classes(verdict: Check) -> bool:
    """Whether any output is a score per class."""
    return any(error.top1 is not None for done in verdict.providers for error in done.outputs)


def _shares(at: Sequence[float]) -> list[float]:
    """Different shares, falling. Raises RequestError."""
    shares = sorted({float(share) for share in at}, reverse=True)
    if not shares or not all(math.isfinite(share) and 0 < share <= 1 for share in shares):
        raise RequestError(f"--at wants shares of the MACs above 0 and at most 1 (like .9,.7,.5), not {list(at)}")
    return shares
