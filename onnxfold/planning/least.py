"""What a limit that nothing keeps would have to be: the smallest fold there is, and what it buys."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..evaluation.candidates import Evaluator
from ..options.budget import Aim
from .allocation import Width, round_width
from .goal import Goal
from .sampled import Folded, SampledMerger
from .search import SearchContext, good_enough

_FIRST = 3  # groups, of which the one that costs the least goes first
_TRIALS = 4  # of longer plans, once the shortest is good enough


@dataclass(frozen=True)
class Least:
    """What a limit leaves where the steps of the usual path are too much: the fold that removes the least, in `words`,
    and the best fold of single steps that is good enough (None: not even that one is)."""

    words: str
    folded: Folded | None


def least(
    context: SearchContext, evaluator: Evaluator, sampled: SampledMerger | None, goal: Goal, chosen: Sequence[str]
) -> Least | None:
    """One step for each group, the least error first, as many as are good enough; None where nothing can be measured.

    (The path of `allocation.path` goes by error per price, so that its first step may be far from the smallest.)
    """
    widths = context.merger.layout.widths(chosen)
    if sampled is None:
        curves = {w.name: _relative(context, w) for w in widths}
    else:
        curves = sampled.curves(widths, goal.round_to)
    steps = sorted(_steps(widths, curves, goal.round_to))
    if not steps or not evaluator.possible:
        return None

    def folded(taken: Sequence[tuple[float, str, int]]) -> Folded:
        keep = {name: k for _, name, k in taken}
        if sampled is not None:
            return sampled.finish(keep)
        merges = {name: context.merger.recovered(name, k, True) for name, k in keep.items()}
        return Folded(context.merger.emit(merges), merges, pending=context.merger.pending(merges))

    tried = [folded([step]) for step in steps[:_FIRST]]
    errors = [evaluator.error(one.proto) for one in tried]
    at = int(np.argmin(errors))
    error, first = errors[at], tried[at]
    if not math.isfinite(error):
        return None
    steps.insert(0, steps.pop(at))
    _, name, keep = steps[0]
    size = next(w.size for w in widths if w.name == name)
    agreement = evaluator.agreement(first.proto) if goal.aim is Aim.AGREEMENT else None
    cost = f"an output error of {100 * error:.3g} %" if agreement is None else f"an agreement of {agreement:.3g}"
    words = (
        f"removing even {size - keep} of the {size} channels of '{name}' costs {cost}, and leaves "
        f"{100 * context.price(goal)({name: keep}):.1f} % of the MACs"
    )
    if not good_enough(evaluator, first.proto, goal):
        return Least(words, None)
    best, low, high = first, 1, len(steps)
    for _ in range(_TRIALS):
        if low >= high:
            break
        middle = (low + high + 1) // 2
        longer = folded(steps[:middle])
        if good_enough(evaluator, longer.proto, goal):
            best, low = longer, middle
        else:
            high = middle - 1
    return Least(words, best)


def _steps(
    widths: Sequence[Width], curves: Mapping[str, NDArray[np.float64]], round_to: int
) -> Iterator[tuple[float, str, int]]:
    """(expected error, group, width) of the smallest step of every group."""
    for width in widths:
        keep = round_width(width, width.size - 1, round_to)
        if keep >= width.size:
            keep = round_width(width, width.size - width.step(round_to), round_to)
        if keep < width.size and np.isfinite(curves[width.name][keep]):
            yield float(curves[width.name][keep]), width.name, keep


def _relative(context: SearchContext, width: Width) -> NDArray[np.float64]:
    curve = context.merger.curve(width.name)
    return curve / max(float(curve[width.cells]), 1e-30)
