"""Attention that an exporter wrote out: whole heads of Q, K, V and the output are one group each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from attending import TWO_LAYERS, WIDTH, D, H, T
from helpers import Case, assert_holds, node

from onnxfold.analysis.alternatives import Option, settled
from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.groups import Role
from onnxfold.folding.merge import pruning
from onnxfold.model.model import load
from onnxfold.model.shapes.lists import source
from onnxfold.planning.group_layout import GroupLayout
from onnxfold.transform.edits import edits
from onnxfold.transform.emit import emit

QKV = {"q": (WIDTH, H * D), "k": (WIDTH, H * D), "v": (WIDTH, H * D), "o": (H * D, WIDTH), "c": (H * D,)}
SPLIT = {"heads": [0, T, H, D], "joined": [0, T, H * D]}
SCORES = "s = MatMul(qt, kt) p = Softmax<axis=-1>(s)"
JOINED = "a = MatMul(p, vt) t = Transpose<perm=[0,2,1,3]>(a) j = Reshape(t, joined) y = MatMul(j, o)"
VALUES = "vh = Reshape(v1, heads) vt = Transpose<perm=[0,2,1,3]>(vh)"
QUERIES = "qh = Reshape(q1, heads) qt = Transpose<perm=[0,2,1,3]>(qh)"
KEYS = "kh = Reshape(k1, heads) kt = Transpose<perm=[0,2,3,1]>(kh)"
MADE = "q0 = MatMul(x, q) q1 = Add(q0, c) k1 = MatMul(x, k) v1 = MatMul(x, v)"


def attention(name: str, body: str, groups: tuple[int, ...] = (H,), **more: Any) -> Case:
    """`body` from x [N, tokens, width] to y."""
    weights = {**QKV, **more.pop("weights", {})}
    values = {**SPLIT, **more.pop("values", {})}
    text = f"(float[N,{T},{WIDTH}] x) => (float[N,{T},{WIDTH}] y) {{ {body} }}"
    return Case(name, text, {n: s for n, s in weights.items() if f" {n})" in body}, groups, values, **more)


def shared(k: str) -> str:
    """Four key (or value) heads, each read by two query heads."""
    return f"""{k}h = Reshape({k}1, pairs) {k}u = Unsqueeze({k}h, three) {k}e = Expand({k}u, twice)
        {k}w = Reshape({k}e, heads)"""


GROUPED = {
    "pairs": [0, T, H, D], "three": [3], "twice": [1, 1, 1, 2, 1], "heads": [0, T, 2 * H, D],
    "joined": [0, T, 2 * H * D],
}  # fmt: skip

# one head of keys and values, repeated as `expand` is traced
TRACED = """d = Shape<start=0, end=1>(x) z = Concat<axis=0>(d, single, times, tokens, size) r = Shape(z)
    f = ConstantOfShape<value=int64[1]{1}>(r) m = Mul(f, minus) e = Equal(z, m) w = Where(e, f, z)
    ku = Unsqueeze(k1, pair) ke = Expand(ku, w) kw = Reshape(ke, spread) kt = Transpose<perm=[0,1,3,2]>(kw)
    vu = Unsqueeze(v1, pair) ve = Expand(vu, w) vt = Reshape(ve, spread)"""
REPEATED = {
    "single": [1], "times": [H], "tokens": [T], "size": [-1], "minus": -1, "pair": [1, 2], "spread": [0, H, T, D]
}  # fmt: skip

# in one node: 4 heads of 8
WIDE = {"q": (WIDTH, 32), "k": (WIDTH, 32), "v": (WIDTH, 32), "o": (32, WIDTH), "w": (WIDTH, 96), "b": (96,)}
QKV_APART = "q1 = MatMul(x, q) k1 = MatMul(x, k) v1 = MatMul(x, v)"
EVERY = """d = Shape<start=0, end=1>(x) e = Concat<axis=0>(d, tokens) at = Expand(range, e)"""
TABLES = {"range": [[0, 1, 2, 3, 4]], "tokens": [T], "cosines": np.cos(np.outer(np.arange(T), [1.0, 0.3, 0.1, 0.03])),
          "sines": np.sin(np.outer(np.arange(T), [1.0, 0.3, 0.1, 0.03]))}  # fmt: skip
TABLES = {n: np.asarray(v, np.float32) if n.endswith("s") and n != "tokens" else v for n, v in TABLES.items()}


def fused(name: str, body: str, groups: tuple[int, ...] = (H,), opset: int = 17, **more: Any) -> Case:
    """`body` from x [N, tokens, width] to a [N, tokens, 32], and the output's projection."""
    weights = more.pop("weights", WIDE)
    text = f"(float[N,{T},{WIDTH}] x) => (float[N,{T},{WIDTH}] y) {{ {body} y = MatMul(a, o) }}"
    used = {n: s for n, s in weights.items() if f" {n})" in text or f" {n}," in text}
    return Case(name, text, used, groups, opset=opset, **more)


CASES = [
    attention("heads", f"{MADE} {QUERIES} {KEYS} {VALUES} {SCORES} {JOINED}"),
    attention("packed", f"""m = MatMul(x, w) f = Reshape(m, five) g = Transpose<perm=[2,0,3,1,4]>(f)
        qt = Gather(g, zero) k2 = Gather(g, one) vt = Gather(g, two) kt = Transpose<perm=[0,1,3,2]>(k2) {SCORES}
        {JOINED}""",
        weights={"w": (WIDTH, 3 * H * D)}, values={"five": [0, T, 3, H, D], "zero": 0, "one": 1, "two": 2}),
    attention("packed-and-split", f"""m = MatMul(x, w) q1, k1, v1 = Split<axis=-1>(m, thirds) {QUERIES} {KEYS} {VALUES}
        {SCORES} {JOINED}""", weights={"w": (WIDTH, 3 * H * D)}, values={"thirds": [H * D] * 3}),
    attention("grouped-query", f"""{MADE} {QUERIES} {shared('k')} kt = Transpose<perm=[0,2,3,1]>(kw) {shared('v')}
        vt = Transpose<perm=[0,2,1,3]>(vw) {SCORES} {JOINED}""", values=GROUPED,
        weights={"q": (WIDTH, 2 * H * D), "c": (2 * H * D,), "o": (2 * H * D, WIDTH)}),
    attention("multi-query", f"""{MADE} {QUERIES} kh = Unsqueeze(k1, one) kt = Transpose<perm=[0,1,3,2]>(kh)
        vt = Unsqueeze(v1, one) {SCORES} {JOINED}""", weights={"k": (WIDTH, D), "v": (WIDTH, D)}, values={"one": [1]},
        refused=("MatMul mixes this axis",)),
    attention("multi-query-traced", f"{MADE} {QUERIES} {TRACED} {SCORES} {JOINED}", values=REPEATED,
        weights={"k": (WIDTH, D), "v": (WIDTH, D)}, refused=("MatMul mixes this axis",)),
    attention("heads-mixed-by-a-softmax", f"""{MADE} {QUERIES} {KEYS} {VALUES} s = MatMul(qt, kt) p = Softmax<axis=1>(s)
        {JOINED}""", (D, D)),
    fused("microsoft-packed", "a = com.microsoft.Attention<num_heads=4>(x, w, b)"),
    fused("microsoft-packed-sizes", """a =
        com.microsoft.Attention<num_heads=4, qkv_hidden_sizes=[32,32,32]>(x, w, b)"""),
    fused("microsoft-apart", f"{QKV_APART} a = com.microsoft.MultiHeadAttention<num_heads=4>(q1, k1, v1)"),
    fused("microsoft-apart-bias", f"{QKV_APART} a = com.microsoft.MultiHeadAttention<num_heads=4>(q1, k1, v1, b)"),
    fused("microsoft-turned", f"""{EVERY} {QKV_APART}
        q2 = com.microsoft.RotaryEmbedding<num_heads=4>(q1, at, cosines, sines)
        k2 = com.microsoft.RotaryEmbedding(k1, at, cosines, sines)
        a = com.microsoft.MultiHeadAttention<num_heads=4>(q2, k2, v1)""", values=TABLES,
        refused=("RotaryEmbedding mixes this axis",)),
    fused("microsoft-grouped", f"""{QKV_APART} d = Shape<start=0, end=1>(x) n = ConstantOfShape<value=int32[1]{{4}}>(d)
        t = Cast<to=6>(total)
        a = com.microsoft.GroupQueryAttention<num_heads=4, kv_num_heads=4>(q1, k1, v1, , , n, t)""",
        values={"total": T}),
    fused("opset23", f"{QKV_APART} a = Attention<q_num_heads=4, kv_num_heads=4>(q1, k1, v1)", opset=23),
    fused("opset23-multi-query", f"{QKV_APART} a = Attention<q_num_heads=4, kv_num_heads=1>(q1, k1, v1)", opset=23,
          weights={**WIDE, "k": (WIDTH, 8), "v": (WIDTH, 8)}, refused=("Attention mixes this axis",)),
    fused("opset23-turned", f"""{EVERY} {QKV_APART} q2 = RotaryEmbedding<num_heads=4>(q1, cosines, sines, at)
        a = Attention<q_num_heads=4, kv_num_heads=4>(q2, k1, v1)""", opset=23, values=TABLES,
          refused=("RotaryEmbedding mixes this axis",)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("batch", ["N", 2], ids=["open", "fixed"])
def test_case(case: Case, batch: str | int) -> None:
    """Groups, both oracles with their controls, and folded models that run; open batch and fixed."""
    assert_holds(case, batch)


@pytest.mark.parametrize(("minus", "times"), [(-1, H), (H, H), (0, H), (-1, -1)])
def test_numbers_that_where_lets_pass(minus: int, times: int) -> None:
    """Only in a list whose negative numbers are replaced can another be edited, and only one that is not replaced."""
    case = next(case for case in CASES if case.name == "multi-query-traced")
    loaded = load(replace(case, values={**case.values, "minus": minus, "times": [times]}).model("N"))
    name = next(n.outputs[0] for n in loaded.graph.nodes if n.op == "Where")
    assert source(loaded.graph, loaded.constants, name, 2) == (("times", 0, False) if minus < 0 < times else None)


BESIDE = f"""(float[N,{T},{WIDTH}] x) => (float y) {{
    tx = Transpose<perm=[1,0,2]>(x) d = Shape(tx) n1 = Gather(d, one) e1 = Gather(d, two) w1 = Div(e1, parts)
    nh = Mul(n1, number) u = Unsqueeze(nh, zeros) wu = Unsqueeze(w1, zeros) f = Concat<axis=0>(tokens, u, wu)
    q1 = MatMul(tx, q) k1 = MatMul(tx, k) v1 = MatMul(tx, v)
    qh = Reshape(q1, f) qt = Transpose<perm=[1,0,2]>(qh) kh = Reshape(k1, f) kt = Transpose<perm=[1,2,0]>(kh)
    vh = Reshape(v1, f) vt = Transpose<perm=[1,0,2]>(vh) s = MatMul(qt, kt) p = Softmax<axis=-1>(s)
    a = MatMul(p, vt) t = Transpose<perm=[1,0,2]>(a) j = Reshape(t, joined) y = MatMul(j, o) }}"""


def test_heads_beside_the_batch() -> None:
    """torch's MultiheadAttention: [tokens, batch * heads, dimension], and a number of heads that is multiplied."""
    case = Case(
        "beside", BESIDE, {**{n: (WIDTH, H * 3) for n in "qkv"}, "o": (H * 3, WIDTH)}, (H,),
        {"one": 1, "two": 2, "parts": 2, "number": H, "zeros": [0], "tokens": [T], "joined": [T, -1, H * 3]},
    )  # fmt: skip
    assert_holds(case, "N")
    loaded = load(case.model("N"))
    found = analyze(loaded)
    folded = emit(loaded, edits(loaded, found, {g.name: pruning(np.arange(3), H) for g in found.groups}))
    (heads,) = [t for t in folded.graph.initializer if t.name == node(folded, "Mul").input[1]]
    assert np.frombuffer(heads.raw_data, np.int64).tolist() == [3]


def test_one_list_for_two_layers() -> None:
    """A target that two layers share: each may keep other heads, and then has a list of its own."""
    assert_holds(TWO_LAYERS, "N")
    loaded = load(TWO_LAYERS.model("N"))
    found = analyze(loaded)
    first, _, second = found.groups
    merges = {first.name: pruning(np.arange(2), H), second.name: pruning(np.arange(3), H)}
    folded = emit(loaded, edits(loaded, found, merges))
    assert [n.op_type for n in folded.graph.node].count("Concat") == 2
    same = {name: pruning(np.arange(3), H) for name in (first.name, second.name)}
    folded = emit(loaded, edits(loaded, found, same))
    assert [n.op_type for n in folded.graph.node].count("Concat") == 1


def test_a_head_is_as_wide_as_its_dimension() -> None:
    """Rounding counts positions: 4 heads of 3 are 12 wide, in weights that make them and in those that read them."""
    loaded = load(CASES[0].model("N"))
    found = analyze(loaded)
    (group,) = found.groups
    (width,) = GroupLayout.of(loaded, found).widths([group.name])
    assert width.run == D
    assert {p.positions.shape[1] for p in group.places if p.role in (Role.PRODUCES, Role.CONSUMES)} == {D}


def test_what_leaves_most_weights_is_followed() -> None:
    """Channels 0..3 hold weights, 4..7 none; following one option keeps what the other speaks of."""
    reach = np.array([5, 5, 5, 5, 0, 0, 0, 0])
    heads = Option(np.array([6]), np.array([0]), np.array([7]))
    dims = Option(np.array([6]), np.array([7]), np.array([0, 1, 2, 3]))
    free = np.zeros(8, bool)
    assert settled([(dims, heads)], free, reach) == {0: 1}
    assert settled([(dims, heads)], free, 1 - np.minimum(reach, 1)) == {0: 0}
    kept = free.copy()
    kept[0] = True
    assert settled([(dims, heads)], kept, reach) == {0: 0}, "an option that is blocked is not followed"
