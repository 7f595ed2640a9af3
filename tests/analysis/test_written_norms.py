"""Spellings of RMS and layer normalization that is written out: the stream under each folds as under the operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from dependent import of_rank, stream, with_dead
from helpers import model
from numpy.typing import NDArray
from onnx import ModelProto

from onnxfold.analysis.analyze import analyze
from onnxfold.evaluation.metrics import relative_l2
from onnxfold.folding.basis import Basis, selection
from onnxfold.folding.merge import Merge, pruning
from onnxfold.model.model import Model, load
from onnxfold.planning.residual import measured
from onnxfold.runtime.session import Feeds, Session
from onnxfold.testing import duplicate, permute
from onnxfold.transform.edits import edits
from onnxfold.transform.emit import emit
from onnxfold.transform.plain_norms import plain_norms

EXACT = 1e-5  # float32, sums in another order; measured 4e-7
WRONG = 5e-3  # what must show where something is left out on purpose; measured 3e-2
N, RANK, EPSILON = 8, 5, 1e-3

SQUARES = "s$ = ReduceSumSquare<axes=[-1]>(x$) m$ = Div(s$, n)"
ROOTED = "v$ = Add(m$, e) r$ = Sqrt(v$) d$ = Div(x$, r$) y$ = Mul(d$, g$)"
RMS: Mapping[str, str] = {
    "mean": f"q$ = Mul(x$, x$) m$ = ReduceMean<axes=[-1]>(q$) {ROOTED}",
    "sum-of-squares": f"{SQUARES} {ROOTED}",
    "sum-of-squares-times": f"s$ = ReduceSumSquare<axes=[-1]>(x$) m$ = Mul(s$, share) {ROOTED}",
    "sum": f"q$ = Pow(x$, two) s$ = ReduceSum(q$, last) m$ = Div(s$, n) {ROOTED}",
    "power": f"{SQUARES} v$ = Add(m$, e) r$ = Pow(v$, minus_half) d$ = Mul(x$, r$) y$ = Mul(d$, g$)",
    "unsqueezed": f"""s$ = ReduceSumSquare<axes=[-1], keepdims=0>(x$) t$ = Unsqueeze(s$, last) m$ = Div(t$, n)
        {ROOTED}""",
    "scale-first": f"{SQUARES} v$ = Add(m$, e) r$ = Sqrt(v$) i$ = Reciprocal(r$) k$ = Mul(i$, g$) y$ = Mul(x$, k$)",
}
"""``x$ / sqrt(mean(x$ * x$) + e) * g$`` as y$."""
LENGTH: Mapping[str, str] = {
    "norm": "l$ = ReduceL2<axes=[-1]>(x$) v$ = Max(l$, tiny) d$ = Div(x$, v$) z$ = Mul(d$, root) y$ = Mul(z$, g$)",
    "clip": "l$ = ReduceL2<axes=[-1]>(x$) v$ = Clip(l$, tiny) d$ = Div(x$, v$) z$ = Mul(d$, root) y$ = Mul(z$, g$)",
    "torch": """l$ = ReduceL2<axes=[-1]>(x$) c$ = Clip(l$, tiny) h$ = Shape(x$) v$ = Expand(c$, h$) d$ = Div(x$, v$)
        z$ = Mul(d$, root) y$ = Mul(z$, g$)""",
    "mean-of-roots": "l$ = ReduceL2<axes=[-1]>(x$) v$ = Div(l$, root) d$ = Div(x$, v$) y$ = Mul(d$, g$)",
    "operator": "d$ = LpNormalization<axis=-1, p=2>(x$) z$ = Mul(d$, root) y$ = Mul(z$, g$)",
    "default": "d$ = LpNormalization(x$) z$ = Mul(d$, root) y$ = Mul(z$, g$)",
}
"""The same without e."""
MEAN = "mu$ = ReduceMean<axes=[-1]>(x$)"
LAYER: Mapping[str, str] = {
    "differences": f"""{MEAN} c$ = Sub(x$, mu$) q$ = Mul(c$, c$) m$ = ReduceMean<axes=[-1]>(q$) v$ = Add(m$, e)
        r$ = Sqrt(v$) d$ = Div(c$, r$) y$ = Mul(d$, g$)""",
    "mean-of-squares": f"""{MEAN} q$ = Mul(x$, x$) m$ = ReduceMean<axes=[-1]>(q$) p$ = Mul(mu$, mu$) w$ = Sub(m$, p$)
        v$ = Add(w$, e) r$ = Sqrt(v$) c$ = Sub(x$, mu$) d$ = Div(c$, r$) y$ = Mul(d$, g$)""",
    "not-below-0": f"""{MEAN} {SQUARES} p$ = Pow(mu$, two) w$ = Sub(m$, p$) f$ = Relu(w$) v$ = Add(f$, e) r$ = Sqrt(v$)
        c$ = Sub(x$, mu$) d$ = Div(c$, r$) y$ = Mul(d$, g$)""",
    "sums": f"""a$ = ReduceSum(x$, last) mu$ = Mul(a$, share) {SQUARES} p$ = Mul(mu$, mu$) w$ = Sub(m$, p$)
        v$ = Add(w$, e) r$ = Sqrt(v$) c$ = Sub(x$, mu$) d$ = Div(c$, r$) y$ = Mul(d$, g$)""",
    "tensorflow": f"""{MEAN} q$ = Mul(x$, x$) m$ = ReduceMean<axes=[-1]>(q$) p$ = Mul(mu$, mu$) w$ = Sub(m$, p$)
        v$ = Add(w$, e) r$ = Sqrt(v$) i$ = Reciprocal(r$) k$ = Mul(i$, g$) d$ = Mul(x$, k$) o$ = Mul(mu$, k$)
        b$ = Sub(zero, o$) y$ = Add(d$, b$)""",
}
"""``(x$ - mean) / sqrt(variance + e) * g$``."""
ALL = {**RMS, **LENGTH, **LAYER}
NUMBERS: Mapping[str, Any] = {
    "e": EPSILON, "n": float(N), "share": 1.0 / N, "root": N**0.5, "tiny": 1e-12, "two": 2.0, "minus_half": -0.5,
    "last": [-1], "zero": [0.0] * N,
}  # fmt: skip


def numbers(text: str) -> dict[str, Any]:
    return {name: one for name, one in NUMBERS.items() if f"{name})" in text or f"({name}" in text}


def single(norm: str) -> ModelProto:
    """One norm between two layers."""
    text = "(float[N,5] x) => (float y) { x1 = MatMul(x, w) " + norm.replace("$", "1") + " y = MatMul(y1, u) }"
    return model(text.replace("g1", "scale1"), {"w": (5, N), "u": (N, 4), "scale1": (N,)}, numbers(text), opset=13)


def blocks(norm: str) -> ModelProto:
    """A residual stream of two blocks with norms before them and behind."""
    text, weights = "(float[N,S,5] x) => (float[N,S,4] y) { x1 = MatMul(x, w) ", {"w": (5, N), "u": (N, 4)}
    for i in "12":
        up, down = f"up{i}", f"down{i}"
        weights |= {up: (N, 6), down: (6, N)}
        text += f"{norm.replace('$', i)} in{i} = MatMul(y{i}, {up}) act{i} = Relu(in{i}) "
        text += f"out{i} = MatMul(act{i}, {down}) x{int(i) + 1} = Add(x{i}, out{i}) "
    text += norm.replace("$", "3") + " y = MatMul(y3, u) }"
    for i in "123":
        text = text.replace(f"g{i}", f"scale{i}")
        weights[f"scale{i}"] = (N,)
    return model(text, weights, numbers(text), opset=13)


def inputs() -> Feeds:
    return {"x": np.random.default_rng(0).normal(size=(3, 7, 5)).astype(np.float32)}


def error(found: Model, proto: ModelProto, merge: Merge) -> float:
    """Of a fold of the stream of `found`, which is as good as `proto`."""
    after = emit(found, edits(found, analyze(found, fold_residual=True), {stream(found).group.name: merge}))
    before, now = (Session.of_version(one, None).run(inputs()) for one in (proto, after))
    return relative_l2(before[0], now[0])


@pytest.mark.parametrize("name", ALL)
def test_channels_are_followed(name: str) -> None:
    for proto in (single(ALL[name]), blocks(ALL[name])):
        loaded = load(proto)
        assert N not in [g.size for g in analyze(loaded).groups], "only where it is asked for"
        analysis = analyze(loaded, fold_residual=True)
        assert [g.size for g in analysis.groups if g.size == N] == [N]
        for oracle in (permute, duplicate):
            found = oracle(loaded, analysis)
            assert found.error < EXACT and found.control > WRONG


@pytest.mark.parametrize("name", [*RMS, *LENGTH])
def test_dead_channels_go_without_loss(name: str) -> None:
    narrow = with_dead(blocks(ALL[name]), np.array([1, 6]))
    loaded = load(narrow)
    spreads = measured(stream(loaded), [inputs()])
    kept = np.setdiff1d(np.arange(N), [1, 6])
    merge = selection(kept, N, spreads)
    assert [*merge.squares.values()] == pytest.approx([(N - 2) / N] * 3)
    assert error(loaded, narrow, merge) < EXACT
    assert error(loaded, narrow, replace(merge, squares={out: 1.0 for out in merge.squares})) > WRONG


@pytest.mark.parametrize("name", [one for one in (*RMS, *LENGTH) if one != "scale-first"])
def test_dead_directions_go_without_loss(name: str) -> None:
    narrow = of_rank(blocks(ALL[name]), RANK)
    loaded = load(narrow)
    loaded = plain_norms(loaded, analyze(loaded, fold_residual=True))
    assert stream(loaded).obstacle() == ""
    spreads = measured(stream(loaded), [inputs()])
    basis = Basis.of(spreads)
    assert error(loaded, narrow, basis.merge(RANK, spreads)) < EXACT
    assert error(loaded, narrow, basis.merge(RANK - 1, spreads)) > WRONG


@pytest.mark.parametrize("name", ALL)
def test_the_statistic_stands_for_the_whole(name: str) -> None:
    """That over the channels that are left is multiplied by the factor of the merge, however it is written."""
    loaded = load(single(ALL[name]))
    found, keep, factor = stream(loaded), np.array([0, 2, 3, 7]), 0.7
    outputs = [spread.norm for spread in measured(found, [small()])]
    merge = replace(pruning(keep, N), squares={out: factor for out in outputs})
    after = emit(loaded, edits(loaded, analyze(loaded, fold_residual=True), {found.group.name: merge}))
    (y,) = Session.of_version(after, None).run(small())
    w, u, scale = (loaded.constants.array(one).astype(np.float64) for one in ("w", "u", "scale1"))
    h = (small()["x"] @ w)[:, keep]
    h = h - h.mean(axis=1, keepdims=True) if name in LAYER else h
    square = factor * np.mean(h**2, axis=1, keepdims=True)
    expected: NDArray[np.float64] = h / np.sqrt(square + (0 if name in LENGTH else EPSILON)) * scale[keep] @ u[keep]
    assert relative_l2(expected, y) < EXACT


@pytest.mark.parametrize("name", LAYER)
def test_the_variance_is_measured(name: str) -> None:
    loaded = load(single(ALL[name]))
    (spread,) = measured(stream(loaded), [small()])
    h = small()["x"] @ loaded.constants.array("w")
    c = h - h.mean(axis=1, keepdims=True)
    c = c / np.sqrt(np.mean(c**2, axis=1, keepdims=True))
    assert np.allclose(spread.moments, c.T @ c / len(c), atol=1e-5)


def small() -> Feeds:
    return {"x": np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)}


@pytest.mark.parametrize(
    "norm",
    [
        "d$ = LpNormalization<p=1>(x$) y$ = Mul(d$, g$)",
        "l$ = ReduceL1<axes=[-1]>(x$) d$ = Div(x$, l$) y$ = Mul(d$, g$)",
        "l$ = ReduceL2<axes=[-1]>(x$) d$ = Add(x$, l$) y$ = Mul(d$, g$)",
        "q$ = Mul(x$, x$) m$ = ReduceMean<axes=[-1]>(q$) o$ = Sigmoid(x$) w$ = Sub(m$, o$) y$ = Mul(x$, w$)",
    ],
)
def test_what_is_no_norm_stays(norm: str) -> None:
    assert not analyze(load(single(norm)), fold_residual=True).groups
