"""Heads whose queries meet a table of positions, repeated for every sample of an open batch (DeBERTa)."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import constant, fold_by, folds, model, oracles_hold

from onnxfold.analysis.analyze import analyze
from onnxfold.model.model import load

NET = """(float[N,5,6] x) => (float[N,5,4] y) {{
    h = MatMul(x, w) r = Reshape(h, split) t = Transpose<perm=[0,2,1,3]>(r) f = Reshape(t, flat) {table}
    s = Shape(f) {times} c = Concat<axis=0>(u, one, one) k = Tile(table, c) kt = Transpose<perm=[0,2,1]>(k)
    m = MatMul(f, kt) a = Softmax<axis=-1>(m) b = Reshape(a, back) bt = Transpose<perm=[0,2,1,3]>(b)
    j = Reshape(bt, join) y = MatMul(j, v) }}"""
ONE_BY_ONE = "g = Gather<axis=0>(s, zero) d = Div(g, heads) u = Unsqueeze(d, first)"
MADE = "p = MatMul(pos, w) pr = Reshape(p, split3) table = Transpose<perm=[1,0,2]>(pr)"
WEIGHTS = {"w": (6, 8), "v": (12, 4)}
VALUES = {
    "split": [0, 5, 4, 2], "flat": [-1, 5, 2], "split3": [3, 4, 2], "zero": 0, "heads": 4, "first": [0], "one": [1],
    "back": [-1, 4, 5, 3], "join": [0, 5, 12],
}  # fmt: skip


@pytest.mark.parametrize(
    ("table", "weights"), [("", {"table": (4, 3, 2)}), (MADE, {"pos": (3, 6)})], ids=["stored", "made-of-the-weight"]
)
def test_heads_fold(table: str, weights: dict[str, tuple[int, ...]]) -> None:
    """The number of heads by which the length of all samples' heads is divided changes with them."""
    proto = model(NET.format(table=table, times=ONE_BY_ONE), {**WEIGHTS, **weights}, VALUES)
    (group,) = oracles_hold(proto, groups=[4]).groups
    folds(proto)
    after = fold_by({group.name: [0, 1, 1, 2]}, proto)
    assert constant(after, "heads") == 3
    assert len(after.graph.node) == len(proto.graph.node), "the table is still made of the weight"


def test_a_table_goes_with_what_its_weight_reads() -> None:
    """Its channels are averaged as those of data are; the weight adds up what it reads, once for both."""
    net = NET.replace("h = MatMul(x, w)", "e = MatMul(x, w0) x1 = Relu(e) h = MatMul(x1, w)")
    proto = model(net.format(table=MADE, times=ONE_BY_ONE), {**WEIGHTS, "w0": (6, 6), "pos": (3, 6)}, VALUES)
    first, _ = oracles_hold(proto, groups=[6, 4]).groups
    after = fold_by({first.name: [0, 0, 1, 2, 3, 4]}, proto)
    pos, w = constant(proto, "pos"), constant(proto, "w")
    np.testing.assert_allclose(constant(after, "pos")[:, 0], pos[:, :2].mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(constant(after, "w")[0], w[:2].sum(axis=0), rtol=1e-6)


def test_lengths_that_are_divided_together_stay() -> None:
    together = "ds = Div(s, parts) u = Slice(ds, first, one)"
    proto = model(NET.format(table="", times=together), {**WEIGHTS, "table": (4, 3, 2)}, {**VALUES, "parts": [4, 1, 1]})
    found = analyze(load(proto))
    assert all(group.size != 4 for group in found.groups)
    assert "Div computes this length" in [one.kind for one in found.refusals]


def test_a_weight_that_is_a_product_of_constants_stays_one() -> None:
    """An update of low rank that nothing else uses is no layer."""
    proto = model("(float[N,6] x) => (float[N,5] y) { w = MatMul(a, b) h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }",
                  {"a": (6, 2), "b": (2, 8), "v": (8, 5)})  # fmt: skip
    assert "w" in load(proto).constants
    oracles_hold(proto, groups=[8])
    np.testing.assert_allclose(
        load(proto).constants.array("w"), constant(proto, "a") @ constant(proto, "b"), rtol=1e-5, atol=1e-6
    )
