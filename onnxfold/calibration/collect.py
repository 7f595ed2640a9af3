"""Which samples a fold is chosen and repaired with, if any, and what happens where they cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import ExecutionError, RequestError
from ..model.kv_cache import Cache
from ..model.model import Model, Shapes
from ..options.budget import Aim
from ..options.choices import Effort, Method, Recovery
from ..options.parts import CalibrationOptions, PlanningOptions
from ..progress import Progress, silent
from ..runtime.probe_inputs import emptied
from ..runtime.session import Session, brief
from .samples import Samples, calibration_samples, save_samples, synthetic_samples, warn_of_preprocess


def wanted(effort: Effort, method: Method, recovery: Recovery, refine: bool = False) -> bool:
    """Whether inputs are made where the user gives none."""
    open_ = refine or method is Method.AUTO or recovery is Recovery.AUTO
    return effort is not Effort.FAST and (open_ or _needed(method, recovery))


def _needed(method: Method, recovery: Recovery) -> bool:
    return method.needs_samples or recovery in (Recovery.LEAST_SQUARES, Recovery.STATISTICS)


@dataclass(frozen=True)
class Making:
    """How synthetic samples are made: in which `shapes`, on which `providers`, and whom that tells."""

    progress: Progress[Any] = silent
    providers: Sequence[str] = ()
    shapes: Shapes = None


def collect_samples(
    model: Model,
    calibration: CalibrationOptions,
    planning: PlanningOptions,
    making: Making,
    training: bool = False,
    max_memory: int | None = None,
) -> Samples | None:
    """The samples to decide and repair with; None where nothing asks for them. Raises RequestError where they lack.

    `training`: whether weights are to be trained on them; `max_memory`: bytes that the user's own may take."""
    method, recovery = planning.selection.method, planning.recovery
    needed, asked = _needed(method, recovery), wanted(calibration.effort, method, recovery, training)
    seed, shapes = planning.runtime.seed, planning.runtime.input_shapes
    warn_of_preprocess(calibration)
    try:
        if calibration.data is not None:
            return calibration_samples(
                model, calibration.data, calibration.samples, calibration.preprocess, shapes, max_memory
            )
        found = None
        if asked:
            how, effort = making, calibration.effort
            found = synthetic_samples(model, effort, seed, how.shapes, how.progress, how.providers)
    except ExecutionError as error:
        reason = _unloadable(model)
        if not reason:
            raise
        if needed or calibration.data is not None:
            raise RequestError(f"cannot use samples: onnxruntime cannot load this model ({reason})") from error
        return None  # the verdict says why nothing is measured
    if needed and (found is None or not found.trusted):
        what = f"`method={method.value!r}`" if method.needs_samples else f"`recovery={recovery.value!r}`"
        why = "`effort='fast'` makes none" if found is None else f"none can be made for this model: {found.described}"
        raise RequestError(f"{what} needs sample inputs ({why}): pass `calibration`")
    return found


def refuse_samples(calibration: object, method: Method, recovery: Recovery, aim: Aim, refine: bool) -> None:
    """Raise RequestError for what cannot be had of a model that is too large to be run here."""
    asked = {
        "`calibration`": calibration is not None, f"`method={method.value!r}`": method.needs_samples,
        f"`recovery={recovery.value!r}`": recovery in (Recovery.LEAST_SQUARES, Recovery.STATISTICS),
        "`refine`": refine, f"`{aim.parameter}`": aim.runs_model,
    }  # fmt: skip
    for what, given in asked.items():
        if given:
            raise RequestError(
                f"{what} needs the model to run, but it is too large (over 2 GiB, or over `max_memory`): use "
                "`ratio`, `target_params`, `target_macs` or `target_size`, which weights alone can decide"
            )


def _unloadable(model: Model) -> str:
    """Why onnxruntime does not load a model; '' if it does."""
    try:
        Session.of(model)
    except ExecutionError as error:
        return brief(error)
    return ""


def given_up(evidence: Samples, error: Exception, method: Method, recovery: Recovery) -> Samples:
    """Samples that are not to be used, with a note that the model does not run piece by piece. Raises RequestError
    where the method or the recovery that the user chose needs them."""
    reason = f"decided from the weights alone: the model cannot be run in segments ({brief(error)})"
    if _needed(method, recovery):
        raise RequestError(f"cannot use samples: the model cannot be run in segments ({brief(error)})") from error
    return replace(evidence, given_up=True, notes=(*evidence.notes, reason))


def without_caches(evidence: Samples, caches: Sequence[Cache]) -> Samples:
    """Samples whose `caches`, the heads of which may change, hold nothing: what a folded model would have put there is
    known to nobody. Raises RequestError where the user has filled them."""
    if evidence.own:
        for feed in (*evidence.fit, *evidence.check):
            full = [cache.past for cache in caches if feed[cache.past].any()]
            if full:
                raise RequestError(
                    f"`fold_heads` changes the heads of the cache '{full[0]}', but the calibration data fills it: make "
                    "it empty (length 0) or all zeros"
                )
        return evidence
    fit, check = (tuple(emptied(feed, caches) for feed in feeds) for feeds in (evidence.fit, evidence.check))
    return replace(evidence, fit=fit, judge=replace(evidence.judge, batches=check))


def keep_samples(samples: Samples | None, calibration: object, path: Path) -> None:
    """Write the synthetic samples where the user can look at them. Raises RequestError where there are none."""
    if samples is None or calibration is not None:
        raise RequestError(
            "`synthetic` has nothing to write: inputs are made only without `calibration`, and not with `effort='fast'`"
        )
    try:
        save_samples(samples, path)
    except OSError as error:
        raise RequestError(f"cannot write the synthetic inputs {path}: {error.strerror or error}") from error
