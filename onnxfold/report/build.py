"""From what a run found to its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..analysis.groups import ChannelGroup
from ..calibration.samples import Samples
from ..evaluation.latency import SLOWER
from ..evaluation.verdict import Check
from ..folding.merge import Merge
from ..options.budget import Aim, Budget
from ..planning.allocation import round_width
from ..planning.merger import Merger
from ..planning.subject import Subject
from ..recovery.channel_maps import wide_notes
from ..recovery.reconstruct import Refitted
from .fold_report import GroupReport


def _group_reports(found: Subject, work: Merger, merges: Mapping[str, Merge], round_to: int) -> tuple[GroupReport, ...]:
    out = []
    for group in found.analysis.groups:
        merge = merges.get(group.name)
        if merge is None:
            note = found.notes.get(group.name, "kept by the budget")
            width = work.widths([group.name])[0]
            if group.name not in found.notes and round_width(width, 0, round_to) == group.size:
                note = f"too narrow for --round-to {round_to}"
            out.append(_group_report(group, group.size, 0, 0.0, note))
        else:
            merged = int((np.bincount(merge.labels[merge.labels >= 0]) > 1).sum())
            out.append(_group_report(group, merge.after, merged, work.relative_error(group.name, merge), ""))
    return tuple(out)


def _group_report(group: ChannelGroup, after: int, clusters: int, error: float, note: str) -> GroupReport:
    return GroupReport(
        group.name, group.size, after, group.blocks, clusters, error, group.producers, group.consumers, note
    )


def _with_notes(
    verdict: Check, before: int, after: int, evidence: Samples | None, budget: Budget, refitted: Sequence[Refitted]
) -> Check:
    """The verdict with what else the user should know."""
    notes = [*verdict.notes, *(() if evidence is None else evidence.notes)]
    notes += wide_notes({one.output: one.fit for one in refitted})
    if after > before:
        notes.append(f"the file grew by {after - before} bytes")
    speedup = verdict.providers[0].speedup if verdict.providers else None
    if budget.aim is Aim.LATENCY and speedup is not None and 1 / speedup > SLOWER * budget.value:
        notes.append(
            f"{1 / speedup:.2f} of the latency in this check, though --{budget.aim.value} {budget.value:g} was met "
            "before: timings on this machine vary"
        )
    return Check(verdict.problems, tuple(notes), verdict.providers, verdict.inputs)
