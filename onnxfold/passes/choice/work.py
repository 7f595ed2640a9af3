"""How much there is to do where chains of steps are compared, about: what cannot be the best is left out later."""

from __future__ import annotations

from collections.abc import Sequence

from ...options.choices import Step
from ...options.options import ChoiceOptions
from ...planning.time_estimate import Estimate, Work
from ...progress import Phase, Title
from .chain import kinds

_UNKNOWN = Estimate(0.0, 0.0, {phase: 1.0 for phase in (Phase.SENSITIVITY, Phase.RECONSTRUCT)} | {Phase.TRAIN: 5.0})
"""What stages weigh where nobody measured how long they take."""
_STAGES = (
    "quantizing", "folding to targets", "sharing and dropping layers", "training folds", "making what is advised",
)  # fmt: skip
_ADVISED = 2  # folds, about


def work_of(options: ChoiceOptions) -> Work:
    """What is made with these options. Folds in fewer bits have widths of their own, which all kinds share."""
    bits, allow = len(kinds(options.allow)), options.allow
    shares = len(options.at) if Step.FOLD in allow else 0
    wholes = sum(step in allow for step in (Step.SHARE, Step.DROP))
    trained, advised = Step.REFINE in allow, min(shares, _ADVISED)
    return Work(
        quantized=bits, folds=shares * (1 + bool(bits)), folded=shares * (1 + bits), wholes=wholes * (1 + bits),
        trainings=advised if trained else 0, settled=advised,
    )  # fmt: skip


def folds_to(at: Sequence[float]) -> Work:
    """What a sweep makes: one fold for each share, and in full what it recommends."""
    return Work.of_folds(len(at))


def titles(options: ChoiceOptions, found: Estimate | None) -> list[Title]:
    """Of the loops over the stages, with the part of what is left that each takes: one without turns takes nearly
    nothing."""
    seconds = (found or _UNKNOWN).stages(work_of(options))
    return [
        Title.taking(max(1e-6, own / max(sum(seconds[at:]), 1e-6)), name)
        for at, (own, name) in enumerate(zip(seconds, _STAGES, strict=True))
    ]
