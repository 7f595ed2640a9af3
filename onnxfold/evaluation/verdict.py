"""Validation: the folded model against the original, through onnxruntime, on every provider there is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from ..compat import StrEnum
from ..errors import ExecutionError, RequestError
from ..model.graph import impossible
from ..model.kv_cache import Cache
from ..model.leftovers import scratch_folder
from ..model.onnx_calls import asking_onnx
from ..progress import steps
from ..runtime.batching import Batching
from ..runtime.session import Feeds, Session, brief, short
from ..units import in_percent
from .candidates import samples_in
from .device_latency import DEVICE, CommandTimer
from .interface import changes as _interface
from .interface import left_open
from .latency import SLOWER, OperatorTime, briefly_in_turn, in_turn, timing_feeds
from .metrics import OutputError, pooled_error
from .own_measure import Measured
from .quality import USUAL, Limit, Mark, Quality


class Status(StrEnum):
    """What became of the comparison on one provider; the values are those of reports."""

    OK = "ok"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True)
class ProviderCheck:
    """The comparison on one provider; `message` says why where there is none.

    Latencies are medians in milliseconds at batch 1 (or the fixed batch of the model), on the provider, or where
    `timed_on` says; `p90`: nine of ten runs take no longer; `floats`: of the result before it was stored in fewer bits,
    where it was. `operators`: where that time goes, if it was looked into.
    `samples`: on how many inputs the `outputs` were compared, some of those that judge (0: nobody counted).
    """

    provider: str
    status: Status
    message: str
    latency_before_ms: float | None
    latency_after_ms: float | None
    outputs: tuple[OutputError, ...]
    p90_before_ms: float | None = None
    p90_after_ms: float | None = None
    operators: tuple[OperatorTime, ...] = ()
    timed_on: str = ""
    samples: int = 0
    latency_floats_ms: float | None = None

    def timed(self, runs: Sequence[Sequence[float]], on: str = "") -> ProviderCheck:
        """The same with latencies in ms of several runs of the original, of the result, and of that in floats if it was
        stored in fewer bits; `on` another device where that is named."""
        (p50, p90), (q50, q90), *floats = ([float(x) for x in np.percentile(one, (50, 90))] for one in runs)
        return replace(
            self, latency_before_ms=p50, latency_after_ms=q50, p90_before_ms=p90, p90_after_ms=q90, timed_on=on,
            latency_floats_ms=floats[0][0] if floats else None,
        )  # fmt: skip

    @property
    def where(self) -> str:
        """Where latencies were measured, for people."""
        return self.timed_on or short(self.provider)

    @property
    def speedup(self) -> float | None:
        """Latency before over latency after."""
        if self.latency_before_ms is None or not self.latency_after_ms:
            return None
        return self.latency_before_ms / self.latency_after_ms

    @property
    def slower(self) -> bool:
        """Whether the result takes longer, by more than noise."""
        return self.speedup is not None and self.speedup < 1 / SLOWER


@dataclass(frozen=True)
class Check:
    """The verdict: `problems` is empty if the folded model is sound; `notes` are worth knowing but no failure.

    `quality` is what was measured on all inputs that judge (None: nothing was), `limit` what that has to keep;
    `measure` what the user's own measure says (None: there is none).
    """

    problems: tuple[str, ...]
    notes: tuple[str, ...]
    providers: tuple[ProviderCheck, ...]
    inputs: str
    quality: Quality | None = None
    limit: Limit = USUAL
    measure: Measured | None = None

    @property
    def passed(self) -> bool:
        """Whether the model may be used."""
        return not self.problems

    @property
    def mark(self) -> Mark:
        """How it went, in one word."""
        if self.problems:
            return Mark.FAILED
        if self.measure is not None and self.measure.kept:  # nobody knows better
            return Mark.KEPT
        quality = self.quality
        trusted = quality is not None and quality.independent and not quality.broken(self.limit)
        return Mark.KEPT if trusted else Mark.UNSURE

    @property
    def lost(self) -> tuple[str, ...]:
        """The outputs that are lost, unless the user's own measure keeps its limit."""
        known = self.measure is not None and self.measure.kept
        return () if self.quality is None or known else tuple(one.name for one in self.quality.lost)

    def judged(self, quality: Quality | None, limit: Limit, unmeasured: bool, measure: Measured | None = None) -> Check:
        """The verdict with what all inputs say. `unmeasured`: that nothing ran is no problem.

        Where `measure`, the user's own, keeps its limit, it is no problem that nothing ran, nor that outputs are lost
        (of several it need not look at all, so that is noted).
        """
        problems, notes, known = list(self.problems), list(self.notes), measure is not None and measure.kept
        if quality is not None:
            lost, written = quality.lost, limit.loses and not known
            said = notes if written or (known and len(quality.outputs) > 1) else [] if known else problems
            where = f"on {quality.inputs}"
            told = [one for one in lost if math.isfinite(one.error) or not problems]  # else it does not even run
            said += [f"output '{one.name}' is lost: error {in_percent(one.error)} {where}" for one in told]
            broken = quality.broken(limit) if limit.given and (known or written or not lost) else ""
            problems += [f"{broken} {where}, which breaks `{limit.parameter}`"] if broken else []
        elif not unmeasured and not known and all(done.status is Status.FAILED for done in self.providers):
            problems.append(
                "nothing was measured: no provider could run the original model (to write the result anyway, "
                "pass `allow_unmeasured`)"
            )
        problems += [measure.broken] if measure is not None and measure.broken else []
        return replace(
            self, problems=tuple(problems), notes=tuple(notes), quality=quality, limit=limit, measure=measure
        )

    def noting(self, *notes: str) -> Check:
        """The same verdict with these notes too, but for empty ones."""
        return replace(self, notes=(*self.notes, *filter(None, notes)))

    def failing(self, *problems: str) -> Check:
        """The verdict with these problems too, but for empty ones."""
        return replace(self, problems=(*self.problems, *filter(None, problems)))

    @property
    def worst(self) -> OutputError | None:
        """The output with the largest relative L2 error on the first provider that ran."""
        ran = next((p for p in self.providers if p.status is Status.OK and p.outputs), None)
        return max(ran.outputs, key=lambda o: o.relative_l2) if ran else None


Loader = Callable[[str | Path | bytes, str], Session]


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Where and how two models are compared.

    Attributes:
        providers: of onnxruntime, on each of which they run.
        latency: whether it is measured too; `quick`: by fewer runs.
        too_large: they do not fit beside each other, so nothing runs: the checks of files and interfaces remain.
        in_float32: makes copies of both that are compared where a provider does not run the original.
        counted: outputs whose number of elements depends on values: it may differ.
        caches: in which the new model may have fewer heads; such outputs are not compared.
        loader: makes the sessions.
        timer: measures latency on another device, instead of the providers.
        floats: the new model before it was stored in fewer bits, which is timed beside both; None for none.
    """

    providers: Sequence[str]
    latency: bool = True
    quick: bool = False
    too_large: bool = False
    in_float32: Callable[[], tuple[bytes, bytes]] | None = None
    counted: frozenset[str] = frozenset()
    caches: Sequence[Cache] = ()
    loader: Loader = Session
    timer: CommandTimer | None = None
    floats: bytes | None = None


def check(
    before: Path | bytes,
    after: Path | bytes,
    feeds: Feeds | Callable[[Session], Sequence[Feeds]],
    *,
    protos: tuple[ModelProto, ModelProto],
    inputs: str,
    conditions: Conditions,
) -> Check:
    """Compare two models on the same `feeds`, or on each of several, taken together; `inputs` says what these are.
    `protos` are what both files hold.

    A provider that cannot start or fails while it runs gives its own verdict; the others still count. A problem is: a
    changed interface, a file the checker refuses, a model that runs no more, NaN where there was none.
    """
    providers, too_large, in_float32 = conditions.providers, conditions.too_large, conditions.in_float32
    heads = {name: cache.axis for cache in conditions.caches for name in (cache.past, cache.present)}
    differs = _MayDiffer(heads, conditions.counted & left_open(protos[0]))
    problems = [*_interface(*protos, heads), *_checker(before, after, full=not _impossible(protos[0]))]
    notes, checks = list[str](), list[ProviderCheck]()
    several = feeds if callable(feeds) else lambda _: [feeds]
    for provider in () if too_large else providers:
        done, trouble, remark = _one(before, after, several, provider, conditions, differs)
        if remark and done.status is Status.FAILED and in_float32 is not None:
            untimed = replace(conditions, latency=False)
            copies, flaw, _ = _one(*in_float32(), several, provider, untimed, differs)
            if copies.status is Status.OK:
                why = done.message.removeprefix("original: ")
                done, trouble = copies, flaw
                remark = f"{short(provider)} does not run this bfloat16 model, so float32 copies were compared ({why})"
        checks.append(done)
        problems += [trouble] if trouble else []
        notes += [remark] if remark else []
    if conditions.timer is not None and conditions.latency and not problems:
        checks, slower = _on_device(before, after, checks, conditions.timer, conditions.floats)
        notes += [slower] if slower else []
    if too_large:
        notes.append("not run as a whole: the model is too large for the available memory")
        checks += [ProviderCheck(p, Status.SKIPPED, "too large to run here", None, None, ()) for p in providers]
    elif not any(c.status is Status.OK for c in checks):
        notes.append("nothing was measured: no provider could run the original model")
    return Check(tuple(dict.fromkeys(problems)), tuple(notes), tuple(checks), inputs)


def _on_device(
    before: Path | bytes,
    after: Path | bytes,
    checks: Sequence[ProviderCheck],
    timer: CommandTimer,
    floats: bytes | None,
) -> tuple[list[ProviderCheck], str]:
    """`checks`, with latencies that `timer` measures in the first one that ran; and a note where the result is slower.

    Raises RequestError where the command of the timer fails."""
    found = list(checks)
    at = next((i for i, one in enumerate(found) if one.status is Status.OK), None)
    if at is None or isinstance(before, bytes) or isinstance(after, bytes):
        return found, ""
    with scratch_folder() as scratch:
        others = [] if floats is None else [scratch / "floats.onnx"]
        for one in others:
            one.write_bytes(floats or b"")
        done = found[at].timed(timer.in_turn(before, after, *others), DEVICE)
    found[at] = done
    slow = done.speedup is not None and done.slower
    return found, f"slower on {done.where}: {1 / (done.speedup or 1):.2f}x the latency" if slow else ""


@dataclass(frozen=True)
class _MayDiffer:
    """What may differ of inputs and outputs: `heads`, the axis of caches along which some may be gone, and the number
    of elements of outputs that are `counted`."""

    heads: Mapping[str, int]
    counted: frozenset[str]


def _one(
    before: Path | bytes,
    after: Path | bytes,
    feeds: Callable[[Session], Sequence[Feeds]],
    provider: str,
    conditions: Conditions,
    differs: _MayDiffer,
) -> tuple[ProviderCheck, str, str]:
    """(comparison on one provider, the problem it shows or '', a note or '')."""
    where, heads, counted, loader = short(provider), differs.heads, differs.counted, conditions.loader
    latency = conditions.latency and conditions.timer is None
    try:
        old = loader(before, provider)
        given = feeds(old)
        expected = [dict(zip(old.outputs, old.run(one), strict=True)) for one in steps("running the original", given)]
    except (ExecutionError, RequestError) as error:
        reason = f"original: {brief(error)}"
        return _failed(provider, reason), "", f"{where}: {reason}"
    try:
        new = loader(after, provider)
        found = [
            dict(zip(new.outputs, new.run(new.fitted(one)), strict=True)) for one in steps("running the result", given)
        ]
        timing = timing_feeds(old, new, given[0]) if latency else None
    except ExecutionError as error:
        trouble = f"{where} runs the original but not the result: {brief(error)}"
        return _failed(provider, f"folded model: {brief(error)}"), trouble, ""
    pairs = [
        (name, np.asarray(a), np.asarray(b[name]))
        for outputs, b in zip(expected, found, strict=True)
        for name, a in outputs.items()
        if name in b and _numeric(a) and _numeric(b[name])
        if name not in heads or np.shape(a)[heads[name]] == np.shape(b[name])[heads[name]]
    ]
    trouble, remark = "", ""
    for name, a, b in pairs:
        if a.shape != b.shape and name in counted:
            shapes = f"{list(b.shape)} instead of {list(a.shape)}"
            remark = f"output '{name}' has shape {shapes}, because its shape depends on values"
            continue
        if a.shape != b.shape:
            reason = f"output '{name}' has shape {list(b.shape)} instead of {list(a.shape)}"
            return _failed(provider, f"output '{name}' changed its shape"), reason, ""
        if not np.isfinite(a.astype(np.float64)).all():
            remark = f"output '{name}' of the original has NaN or infinite values on these inputs"
        elif not np.isfinite(b.astype(np.float64)).all():
            trouble = trouble or f"output '{name}' has NaN or infinite values, unlike the original"
    lengths = {name for name, a, b in pairs if a.shape != b.shape}
    errors = _errors([pair for pair in pairs if pair[0] not in lengths])
    samples = samples_in(given, Batching.of(old.inputs))
    done = ProviderCheck(provider, Status.OK, "", None, None, errors, samples=samples)
    if timing is not None:
        timed = briefly_in_turn if conditions.quick else in_turn
        done = done.timed(timed(old, new, timing, *_in_floats(conditions, provider, timing)))
    if not trouble and done.speedup is not None and done.slower:
        remark = f"slower on {where}: {1 / done.speedup:.2f}x the latency" + (f"; {remark}" if remark else "")
    return done, trouble, remark


def _in_floats(conditions: Conditions, provider: str, feeds: Feeds) -> list[Session]:
    """The new model before it was stored in fewer bits, warm; none where there is none, or where it does not run."""
    if conditions.floats is None:
        return []
    try:
        found = conditions.loader(conditions.floats, provider)
        found.run(found.fitted(feeds))
    except ExecutionError:
        return []
    return [found]


def _errors(pairs: Sequence[tuple[str, NDArray[Any], NDArray[Any]]]) -> tuple[OutputError, ...]:
    """The error of every output, over all inputs together."""
    names = dict.fromkeys(name for name, _, _ in pairs)
    batches = {name: [(a, b) for other, a, b in pairs if other == name] for name in names}
    return tuple(pooled_error(name, *zip(*both, strict=True)) for name, both in batches.items())


def _failed(provider: str, reason: str) -> ProviderCheck:
    return ProviderCheck(provider, Status.FAILED, reason, None, None, ())


def _numeric(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiub"


def _impossible(proto: ModelProto) -> bool:
    """Whether lengths are declared at which shape inference, part of the full check, may never end, or all ends."""
    return any(impossible(value) for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info))


def _checker(before: Path | bytes, after: Path | bytes, full: bool) -> list[str]:
    """The (full) check of the result, unless the original does not pass it either."""

    def refused(model: Path | bytes) -> str:
        try:
            with asking_onnx():
                onnx.checker.check_model(model if isinstance(model, bytes) else str(model), full_check=full)
        except ExecutionError as error:
            return brief(error)
        return ""

    reason = refused(after)
    return [f"the ONNX checker refuses the folded model: {reason}"] if reason and not refused(before) else []
