"""What a limit that nothing keeps would have to be: the smallest fold there is, and what it buys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ..evaluation.candidates import Evaluator
from ..options.budget import Aim
from ..units import in_percent
from .allocation import Width, path
from .goal import Goal
from .sampled import Folded, SampledMerger
from .search import SearchContext, good_enough


@dataclass(frozen=True)
class Least:
    """The fold that removes the least: what it costs and leaves, in `words`, and whether that is `good` enough."""

    folded: Folded
    words: str
    good: bool


def least(
    context: SearchContext, evaluator: Evaluator, sampled: SampledMerger | None, goal: Goal, chosen: Sequence[str]
) -> Least | None:
    """The fold that removes the least, measured; None where there is none."""
    work = context.merger
    widths = work.layout.widths(chosen)
    if sampled is None:
        curves = {w.name: _relative(context, w) for w in widths}
    else:
        curves = sampled.curves(widths, goal.round_to)
    step = next(islice(path(widths, curves, context.price(goal), goal), 1, 2), None)
    if step is None or not evaluator.possible:
        return None
    if sampled is None:
        merges = {name: work.recovered(name, keep, True) for name, keep in step.keep.items()}
        folded = Folded(work.emit(merges), merges, pending=work.pending(merges))
    else:
        folded = sampled.finish(step.keep)
    error = evaluator.error(folded.proto)
    if not math.isfinite(error):
        return None
    (name, keep), *_ = step.keep.items()
    size = next(w.size for w in widths if w.name == name)
    agreement = evaluator.agreement(folded.proto) if goal.aim is Aim.AGREEMENT else None
    cost = f"an output error of {in_percent(error)}" if agreement is None else f"an agreement of {agreement:.3g}"
    words = (
        f"the least that can go, {size - keep} of {size} channels of '{name}', costs {cost} and leaves "
        f"{100 * step.price:.1f} % of the MACs"
    )
    return Least(folded, words, good_enough(evaluator, folded.proto, goal))


def _relative(context: SearchContext, width: Width) -> NDArray[np.float64]:
    curve = context.merger.curve(width.name)
    return curve / max(float(curve[width.cells]), 1e-30)
