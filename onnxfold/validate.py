"""Validation: the folded model against the original, through onnxruntime, on every provider there is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto

from .inputs import first
from .session import Feeds, Session

LATENCY_SECONDS = 1.5  # spent per provider on interleaved timing runs, both models together
LATENCY_RUNS = (3, 200)  # at least and at most, per model


@dataclass(frozen=True)
class OutputError:
    """How one output differs. `top1`: share of equal argmax (None where the output is no score per class)."""

    name: str
    relative_l2: float
    cosine: float
    sqnr_db: float
    max_abs: float
    top1: float | None


@dataclass(frozen=True)
class ProviderCheck:
    """The comparison on one provider. `status`: "ok", "missing" or "failed" (`message` says why).

    Latencies are medians in milliseconds at batch 1 (or the fixed batch of the model).
    """

    provider: str
    status: str
    message: str
    latency_before_ms: float | None
    latency_after_ms: float | None
    outputs: tuple[OutputError, ...]

    @property
    def speedup(self) -> float | None:
        """Latency before over latency after."""
        if self.latency_before_ms is None or not self.latency_after_ms:
            return None
        return self.latency_before_ms / self.latency_after_ms


@dataclass(frozen=True)
class Check:
    """The verdict: `problems` is empty if the folded model is sound; `notes` are worth knowing but no failure."""

    problems: tuple[str, ...]
    notes: tuple[str, ...]
    providers: tuple[ProviderCheck, ...]
    inputs: str

    @property
    def passed(self) -> bool:
        """Whether the model may be used."""
        return not self.problems

    @property
    def worst(self) -> OutputError | None:
        """The output with the largest relative L2 error on the first provider that ran."""
        ran = next((p for p in self.providers if p.status == "ok" and p.outputs), None)
        return max(ran.outputs, key=lambda o: o.relative_l2) if ran else None


Loader = Callable[[str | Path | bytes, str], Session]


def check(
    before: Path | bytes,
    after: Path | bytes,
    feeds: Feeds | Callable[[Session], Feeds],
    *,
    providers: Sequence[str],
    missing: Sequence[str] = (),
    protos: tuple[ModelProto, ModelProto],
    inputs: str,
    latency: bool = True,
    loader: Loader = Session,
) -> Check:
    """Compare two models on the same feeds, on each of `providers`; `missing` ones are reported.

    A provider that cannot start or fails while it runs gives its own verdict; the others still count. A problem
    is: a changed interface, a file the checker refuses, a model that runs no more, NaN where there was none.
    """
    problems = [*_interface(*protos), *_checker(before, after)]
    notes, checks = list[str](), list[ProviderCheck]()
    for provider in providers:
        done, trouble = _one(before, after, feeds, provider, latency, loader)
        checks.append(done)
        (problems if trouble else notes).extend(filter(None, [trouble or _remark(done)]))
    checks += [
        ProviderCheck(p, "missing", "not offered by this onnxruntime", None, None, ()) for p in missing
    ]
    if not any(c.status == "ok" for c in checks):
        notes.append("nothing was measured: no provider could run the original model")
    return Check(tuple(dict.fromkeys(problems)), tuple(notes), tuple(checks), inputs)


def _one(
    before: Path | bytes,
    after: Path | bytes,
    feeds: Feeds | Callable[[Session], Feeds],
    provider: str,
    latency: bool,
    loader: Loader,
) -> tuple[ProviderCheck, str]:
    """(comparison on one provider, the problem it shows or '')."""
    try:
        old = loader(before, provider)
        given = feeds(old) if callable(feeds) else feeds
        expected = old.run(given)
    except Exception as error:
        return ProviderCheck(provider, "failed", f"original: {brief(error)}", None, None, ()), ""
    try:
        new = loader(after, provider)
        found = new.run(given)
    except Exception as error:
        reason = f"folded model: {brief(error)}"
        trouble = f"{provider} runs the original but not the {reason}"
        return ProviderCheck(provider, "failed", reason, None, None, ()), trouble
    pairs = [
        (name, np.asarray(a), np.asarray(b))
        for name, a, b in zip(old.outputs, expected, found, strict=True)
        if _numeric(a) and _numeric(b)
    ]
    trouble = ""
    for name, a, b in pairs:
        if a.shape != b.shape:
            return (
                ProviderCheck(provider, "failed", f"output '{name}' changed its shape", None, None, ()),
                f"output '{name}' has shape {list(b.shape)} instead of {list(a.shape)}",
            )
        if np.isfinite(a.astype(np.float64)).all() and not np.isfinite(b.astype(np.float64)).all():
            trouble = f"output '{name}' has NaN or infinite values that the original has not"
    errors = tuple(output_error(name, a, b) for name, a, b in pairs)
    times = interleaved(old, new, first(given, 1)) if latency else (None, None)
    return ProviderCheck(provider, "ok", "", times[0], times[1], errors), trouble


def output_error(name: str, expected: NDArray[Any], found: NDArray[Any]) -> OutputError:
    """All figures for one output; equal outputs have a SQNR of inf, and 0 energy counts as agreeing."""
    a, b = expected.astype(np.float64).ravel(), found.astype(np.float64).ravel()
    signal, noise = float(np.linalg.norm(a)), float(np.linalg.norm(a - b))
    norms = signal * float(np.linalg.norm(b))
    if noise == 0:
        relative, cosine, sqnr = 0.0, 1.0, float("inf")
    else:
        relative = noise / signal if signal > 0 else float("inf")
        cosine = float(a @ b) / norms if norms > 0 else 0.0
        sqnr = -20 * float(np.log10(relative)) if signal > 0 else -float("inf")
    return OutputError(
        name, relative, cosine, sqnr, float(np.abs(a - b).max(initial=0.0)), top1(expected, found)
    )


def top1(expected: NDArray[Any], found: NDArray[Any]) -> float | None:
    """Share of samples whose largest score stays in place; only for floating-point outputs [batch, classes, 1...]."""
    shape = expected.shape
    if expected.dtype.kind != "f" or len(shape) < 2 or shape[1] < 2 or any(d != 1 for d in shape[2:]) or not shape[0]:
        return None
    a, b = expected.reshape(shape[:2]), found.reshape(shape[:2])
    return float((a.argmax(1) == b.argmax(1)).mean())


def interleaved(old: Session, new: Session, feeds: Feeds) -> tuple[float, float]:
    """Median latencies in ms of both models, run in turn so that a busy machine slows both alike."""
    times: tuple[list[float], list[float]] = ([], [])
    for session in (old, new):
        session.run(feeds)
    least, most = LATENCY_RUNS
    begin = time.perf_counter()
    while len(times[0]) < most and (len(times[0]) < least or time.perf_counter() - begin < LATENCY_SECONDS):
        for session, taken in zip((old, new), times, strict=True):
            start = time.perf_counter()
            session.run(feeds)
            taken.append((time.perf_counter() - start) * 1e3)
    return float(np.median(times[0])), float(np.median(times[1]))


def brief(error: BaseException) -> str:
    """The first line of an error, without onnxruntime's prefixes."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0].removeprefix("[ONNXRuntimeError] : ")[:200]


def _numeric(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiub"


def _remark(done: ProviderCheck) -> str:
    if done.status == "failed":
        return f"{done.provider}: {done.message}"
    if done.speedup is not None and done.speedup < 1 / 1.02:
        return f"slower on {done.provider}: {1 / done.speedup:.2f}x the latency"
    return ""


def _interface(before: ModelProto, after: ModelProto) -> list[str]:
    def described(values: Sequence[ValueInfoProto], skip: set[str]) -> dict[str, bytes]:
        return {v.name: v.type.SerializeToString(deterministic=True) for v in values if v.name not in skip}

    constants = {t.name for proto in (before, after) for t in proto.graph.initializer}
    problems = []
    for what, old, new in (
        ("input", before.graph.input, after.graph.input),
        ("output", before.graph.output, after.graph.output),
    ):
        skip = constants if what == "input" else set[str]()
        if described(old, skip) != described(new, skip):
            problems.append(f"the model's {what}s changed")
    return problems


def _checker(before: Path | bytes, after: Path | bytes) -> list[str]:
    """The full check of the result, unless the original does not pass it either."""

    def refused(model: Path | bytes) -> str:
        try:
            onnx.checker.check_model(model if isinstance(model, bytes) else str(model), full_check=True)
        except Exception as error:  # ValidationError, InferenceError and bare RuntimeErrors alike
            return brief(error)
        return ""

    reason = refused(after)
    return [f"the ONNX checker refuses the folded model: {reason}"] if reason and not refused(before) else []


