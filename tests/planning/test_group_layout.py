"""What rounding counts: positions in the weights that kernels multiply by, not in tables, scales and gates beside."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import Case, model, oracles_hold
from onnx import ModelProto
from tiny import MODELS

from onnxfold.analysis.analyze import analyze
from onnxfold.model.model import load
from onnxfold.planning.allocation import Width, uniform
from onnxfold.planning.group_layout import GroupLayout
from onnxfold.transform.edits import removed_atoms

HEADS, DIM, TOKENS = 6, 16, 4
WIDTH = HEADS * DIM
SCORES = """q1 = MatMul(x, q) k1 = MatMul(x, k) v1 = MatMul(x, v) qh = Reshape(q1, split) kh = Reshape(k1, split)
    vh = Reshape(v1, split) qt = Transpose<perm=[0,2,1,3]>(qh) kt = Transpose<perm=[0,2,3,1]>(kh)
    vt = Transpose<perm=[0,2,1,3]>(vh) s = MatMul(qt, kt)"""
READ = """p = Softmax<axis=-1>(b) a = MatMul(p, vt) t = Transpose<perm=[0,2,1,3]>(a) j = Reshape(t, joined)
    y = MatMul(j, o)"""
WEIGHTS = {**{name: (WIDTH, WIDTH) for name in "qkv"}, "o": (WIDTH, 5)}
INDEX = np.arange(TOKENS)[:, None] - np.arange(TOKENS)[None] + TOKENS - 1

BIASED = {
    "folded": ("b = Add(s, table)", {"table": (HEADS, TOKENS, TOKENS)}),
    "swin": (
        "g = Gather<axis=0>(table, flat) r = Reshape(g, square) c = Transpose<perm=[2,0,1]>(r) u = Unsqueeze(c, zero) "
        "b = Add(s, u)", {"table": (2 * TOKENS - 1, HEADS)}),
    "t5": (
        "g = Gather<axis=0>(table, index) c = Transpose<perm=[2,0,1]>(g) u = Unsqueeze(c, zero) b = Add(s, u)",
        {"table": (2 * TOKENS - 1, HEADS)}),
    "levit": ("g = Gather<axis=1>(table, index) b = Add(s, g)", {"table": (HEADS, 2 * TOKENS - 1)}),
    "swin-v2": (
        "m = MatMul(e, hidden) r = Relu(m) f = MatMul(r, table) g = Gather<axis=0>(f, index) "
        "c = Transpose<perm=[2,0,1]>(g) d = Sigmoid(c) l = Mul(s, scale) b = Add(l, d)",
        {"hidden": (2, 8), "table": (8, HEADS), "scale": (HEADS, 1, 1)}),
    "a-gate-per-head": (
        "m = MatMul(x, gate) n = Sigmoid(m) c = Transpose<perm=[0,2,1]>(n) u = Unsqueeze(c, last) b = Mul(s, u)",
        {"gate": (WIDTH, HEADS)}),
}  # fmt: skip


def attending(name: str) -> ModelProto:
    body, weights = BIASED[name]
    inputs = f"float[N,{TOKENS},{WIDTH}] x" + (f", float[{2 * TOKENS - 1},2] e" if name == "swin-v2" else "")
    values = {"split": [0, TOKENS, HEADS, DIM], "joined": [0, TOKENS, WIDTH], "index": INDEX, "flat": INDEX.ravel(),
              "square": [TOKENS, TOKENS, HEADS], "zero": [0], "last": [3]}  # fmt: skip
    used = {key: value for key, value in values.items() if f" {key})" in f"{SCORES} {body} {READ}"}
    return model(f"({inputs}) => (float y) {{ {SCORES} {body} {READ} }}", {**WEIGHTS, **weights}, used)


def widths(proto: ModelProto) -> list[Width]:
    loaded = load(proto)
    found = analyze(loaded)
    return GroupLayout.of(loaded, found).widths([group.name for group in found.groups])


@pytest.mark.parametrize("name", BIASED)
def test_heads_with_something_per_head_beside_them_go_one_by_one(name: str) -> None:
    proto = attending(name)
    oracles_hold(proto)
    (heads,) = [width for width in widths(proto) if width.size == HEADS]
    assert heads.run == DIM
    assert uniform([heads], 0.25, 8).keep == {heads.name: 5}


@pytest.mark.parametrize(
    "case",
    [
        Case("flattened", """(float[N,3,6,6] x) => (float y) {
                h = Conv(x, w) a = Relu(h) f = Flatten(a) y = Gemm(f, v) }""",
             {"w": (16, 3, 3, 3), "v": (256, 5)}),
        Case("unflattened", """(float[N,3] x) => (float y) {
                h = MatMul(x, w) r = Reshape(h, to) a = Relu(r) y = Conv(a, v) }""",
             {"w": (3, 64), "v": (5, 16, 1, 1)}, values={"to": [0, 16, 2, 2]}),
        Case("flattened-behind-a-depthwise", """(float[N,3] x) => (float y) {
                h = MatMul(x, w) r = Reshape(h, to) a = Conv<group=16>(r, u) f = Flatten(a) y = Gemm(f, v) }""",
             {"w": (3, 64), "u": (16, 1, 1, 1), "v": (64, 5)}, values={"to": [0, 16, 2, 2]}),
        Case("gate-and-up-in-one", """(float[N,3] x) => (float y) {
                h = MatMul(x, w) g, u = Split<axis=1>(h) s = Sigmoid(g) a = Mul(s, u) y = MatMul(a, v) }""",
             {"w": (3, 32), "v": (16, 5)}, opset=11),
    ],
    ids=str,
)  # fmt: skip
def test_channels_that_kernels_see_one_by_one_are_rounded(case: Case) -> None:
    (width,) = widths(case.model())
    assert (width.size, width.run) == (16, 1)
    assert uniform([width], 0.4, 8).keep == {width.name: 8}


@pytest.mark.parametrize("name", ["digits_resnet_bn", "digits_mobilenet", "swin"])
def test_lengths_are_those_of_all_atoms_that_go(name: str) -> None:
    """Remembered group by group, they are what counting all atoms at once says."""
    loaded = load(attending(name) if name in BIASED else MODELS / f"{name}.onnx")
    found = analyze(loaded)
    layout, rng = GroupLayout.of(loaded, found), np.random.default_rng(0)
    for _ in range(5):
        chosen = [g for g in found.groups if rng.random() < 0.7]
        keep = {g.name: g.blocks * int(rng.integers(1, 1 + g.size // g.blocks)) for g in chosen}
        kept = np.ones(found.atoms, bool)
        for group in chosen:
            first = [np.flatnonzero(group.cells == c)[: keep[group.name] // group.blocks] for c in range(group.blocks)]
            kept[removed_atoms(group, np.concatenate(first))] = False
        left = {key: (int(kept[at : at + size].sum()), size) for key, (at, size) in found.slots.items()}
        wanted = {(t, axis): count // blocks for (t, axis, blocks), (count, size) in left.items() if count != size}
        assert layout.lengths(keep) == wanted and layout.lengths(keep) == wanted
