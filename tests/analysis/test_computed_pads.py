"""Pads that a graph computes of heights and widths, as exporters write them: what they pad is followed all the same."""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from helpers import folds, model, oracles_hold, refused_for
from onnx import ModelProto
from tiny import CASES

import onnxfold
from onnxfold.analysis.costs import costs
from onnxfold.model.model import load

LEAST = -(2**63) + 1
WEIGHTS = {"w": (8, 3, 3, 3), "u": (5, 12, 1, 1)}
H, W = "hh = Gather<axis=0>(s, two)", "ww = Gather<axis=0>(s, three)"
LISTS: Mapping[str, Any] = {
    "two": 2, "three": 3, "four": 4, "one": 1, "zero": 0, "minus": [-1], "least": [LEAST], "ax": [0], "z1": [0],
    "z2": [0, 0], "z4": [0, 0, 0, 0], "table": [-1, 2], "flat": [-1], "eight": 8, "f2": np.float32(2.0),
    "two1": [2], "one1": [1], "three1": [3], "steps": [1, 1, 4, 4], "four1": [4], "eight1": [8], "rows": [[6], [7]],
    "channels": [[1], [5]],
}  # fmt: skip
# the end of H and W is padded to a multiple of 4: (p, q) from H and W
UP = "m = Mod(hh, four) d = Sub(four, m) p = Mod(d, four) mw = Mod(ww, four) dw = Sub(four, mw) q = Mod(dw, four)"
TORCH_PADS = "pu = Unsqueeze(p, ax) qu = Unsqueeze(q, ax) c = Concat<axis=0>(z1, qu, z1, pu, z4)"
TORCH_TURN = """r = Reshape(c, table) f = Slice(r, minus, least, ax, minus) t = Transpose<perm=[1,0]>(f)
    g = Reshape(t, flat) pads = Cast<to=7>(g)"""
TORCH_REST = """pu = Unsqueeze(p, ax) qu = Unsqueeze(q, ax) c4 = Concat<axis=0>(z1, qu, z1, pu) len = Shape(c4)
    more = Sub(eight1, len) zeros = ConstantOfShape<value=int64[1] {0}>(more) c = Concat<axis=0>(c4, zeros)"""

PADS = {
    "flat": f"{H} {W} {UP} pu = Unsqueeze(p, ax) qu = Unsqueeze(q, ax) pads = Concat<axis=0>(z4, z2, pu, qu)",
    "torch": f"{H} {W} {UP} {TORCH_PADS} {TORCH_TURN}",
    "torch-zeros-from-shape": f"{H} {W} {UP} {TORCH_REST} {TORCH_TURN}",
    # timm's SAME: max((ceil(h / s) - 1) * s + (k - 1) + 1 - h, 0), in floats
    "same": f"""{H} {W} hf = Cast<to=1>(hh) hd = Div(hf, f2) hc = Ceil(hd) hi = Cast<to=7>(hc) h1 = Sub(hi, one)
        h2 = Mul(h1, two) h3 = Add(h2, three) h4 = Sub(h3, hh) p = Max(h4, zero)
        wf = Cast<to=1>(ww) wd = Div(wf, f2) wc = Ceil(wd) wi = Cast<to=7>(wc) w1 = Sub(wi, one)
        w2 = Mul(w1, two) w3 = Add(w2, three) w4 = Sub(w3, ww) q = Clip(w4, zero)
        pl = Div(p, two) pr = Sub(p, pl) ql = Div(q, two) qr = Sub(q, ql)
        a1 = Unsqueeze(pl, ax) a2 = Unsqueeze(pr, ax) b1 = Unsqueeze(ql, ax) b2 = Unsqueeze(qr, ax)
        c = Concat<axis=0>(b1, b2, a1, a2, z4) {TORCH_TURN}""",
    # TensorFlow: a table [4, 2] of paddings, transposed and flattened
    "tensorflow": f"""{H} {W} {UP} pu = Unsqueeze(p, ax) qu = Unsqueeze(q, ax) hp = Concat<axis=0>(z1, pu)
        wp = Concat<axis=0>(z1, qu) h1 = Unsqueeze(hp, ax) w1 = Unsqueeze(wp, ax) zz = Unsqueeze(z2, ax)
        tab = Concat<axis=0>(zz, zz, h1, w1) t = Transpose(tab) pads = Reshape(t, flat)""",
    "chosen": f"""{H} {W} m = Mod(hh, four) odd = Greater(m, zero) d = Sub(four, m) p = Where(odd, d, zero)
        mw = Mod(ww, four) even = Equal(mw, zero) dw = Sub(four, mw) q = Where(even, zero, dw)
        pu = Unsqueeze(p, ax) qu = Unsqueeze(q, ax) pads = Concat<axis=0>(z4, z2, pu, qu)""",
    "set-in-zeros": f"""{H} {W} {UP} pu = Unsqueeze(p, ax) qu = Unsqueeze(q, ax) pq = Concat<axis=0>(pu, qu)
        zeros = ConstantOfShape<value=int64[1] {{0}}>(eight1) pads = ScatterND(zeros, rows, pq)""",
    "of-the-whole-shape": """m = Mod(s, steps) d = Sub(steps, m) rest = Mod(d, steps)
        pads = Concat<axis=0>(z4, rest)""",
}


def padded(pads: str, sides: str = "15,14", mode: str = "constant", read: int = 8) -> ModelProto:
    """Conv of 8 channels, Pad, Conv of 12 that reads `read`."""
    text = f"""(float[N,3,{sides}] x) => (float[N,5,P,Q] y) {{
        h = Conv<pads=[1,1,1,1]>(x, w) a = Relu(h) s = Shape(a) {pads} o = Pad<mode="{mode}">(a, pads)
        e = Conv(o, v) i = Relu(e) y = Conv(i, u) }}"""
    return model(text, {**WEIGHTS, "v": (12, read, 3, 3)}, LISTS)


@pytest.mark.parametrize("sides", ["15,14", "K,M", "16,16"])
@pytest.mark.parametrize("how", PADS)
def test_pads_of_sides(how: str, sides: str) -> None:
    proto = padded(PADS[how], sides)
    found = oracles_hold(proto, {"x": (2, 3, 13, 18)} if sides == "K,M" else None, groups=[8, 12])
    assert not [r for r in found.refusals if r.parameters]


@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_other_modes(mode: str) -> None:
    oracles_hold(padded(PADS["torch"], mode=mode), groups=[8, 12])


@pytest.mark.parametrize(
    "pads",
    [
        "k = Concat<axis=0>(z2, two1) pads = Tile(k, two1)",
        "k = Expand(two1, one1) pads = Concat<axis=0>(z2, z1, k, z2, z1, k)",
        "k = Range(zero, four, one) h1 = Div(k, two1) pads = Concat<axis=0>(h1, h1)",
    ],
)
def test_constants_that_grow(pads: str) -> None:
    """Pads that are computed of constants alone, by operators that may make much of little."""
    proto = padded(pads.replace("Concat<axis=0>(z2, two1)", "Concat<axis=0>(z2, z1, two1)"))
    oracles_hold(proto, groups=[8, 12])


def test_folds_and_runs() -> None:
    folds(padded(PADS["same"]))


@pytest.mark.parametrize("how", PADS)
def test_what_is_behind_pads_is_priced(how: str) -> None:
    """MACs of the Conv behind them were those of a single pixel."""
    prices = costs(load(padded(PADS[how], "16,16")))
    side = 15 if how == "same" else 14
    assert prices.macs({}) == 16**2 * 8 * 27 + side**2 * 12 * 8 * 9 + side**2 * 5 * 12


def test_pads_of_channels() -> None:
    """As many channels are added as there are: afterwards the number of those that are left of them, by itself."""
    proto = padded("c = Gather<axis=0>(s, one) cu = Unsqueeze(c, ax) pads = Concat<axis=0>(z4, z1, cu, z2)", read=16)
    refused_for(oracles_hold(proto, groups=[8, 12]), ())
    folds(proto)


def test_no_channels_are_added_as_long_as_there_are_eight() -> None:
    """Pads of 0, computed from the number of channels: of another number they would be others, so that 0 is written."""
    pads = "c = Gather<axis=0>(s, one) d = Sub(eight, c) cu = Unsqueeze(d, ax) pads = Concat<axis=0>(z4, z1, cu, z2)"
    proto = padded(pads)
    refused_for(oracles_hold(proto, groups=[8, 12]), ())
    folds(proto)


SHORTCUT = {
    "half-of-the-rest": "r = Sub(cb, ca) d = Div(r, two1) pads = Concat<axis=0>(z1, d, z2, z1, d, z2)",
    "rest-behind": "r = Sub(cb, ca) d = Div(r, two1) k = Sub(r, d) pads = Concat<axis=0>(z1, d, z2, z1, k, z2)",
    "all-behind": "r = Sub(cb, ca) pads = Concat<axis=0>(z4, z1, r, z2)",
    "quarter": "d = Div(cb, four1) pads = Concat<axis=0>(z1, d, z2, z1, d, z2)",
    "torch": f"gap = Sub(cb, ca) d = Div(gap, two1) c = Concat<axis=0>(z4, d, d, z2) {TORCH_TURN}",
    "expanded": "r = Sub(cb, ca) d = Div(r, two1) k = Concat<axis=0>(z1, d, z2) pads = Tile(k, two1)",
    "set-in-zeros": """r = Sub(cb, ca) d = Div(r, two1) k = Expand(d, two1)
        zeros = ConstantOfShape<value=int64[1] {0}>(eight1) pads = ScatterND(zeros, channels, k)""",
}
"""A shortcut that is padded from 8 to 16 channels with zeros, as many as there are more behind it."""


@pytest.mark.parametrize("sides", ["15,14", "K,M"])
@pytest.mark.parametrize("how", SHORTCUT)
def test_shortcuts_padded_to_more_channels(how: str, sides: str) -> None:
    text = f"""(float[N,3,{sides}] x) => (float[N,5,P,Q] y) {{
        h = Conv<pads=[1,1,1,1]>(x, w) a = Relu(h) b = Conv<pads=[1,1,1,1]>(a, v)
        sa = Shape(a) sb = Shape(b) ca = Gather<axis=0>(sa, one1) cb = Gather<axis=0>(sb, one1) {SHORTCUT[how]}
        o = Pad(a, pads) sum = Add(b, o) act = Relu(sum) y = Conv(act, u) }}"""
    proto = model(text, {"w": (8, 3, 3, 3), "v": (16, 8, 3, 3), "u": (5, 16, 1, 1)}, LISTS)
    found = oracles_hold(proto, {"x": (2, 3, 13, 18)} if sides == "K,M" else None, groups=[8, 8])
    refused_for(found, ())
    if sides != "K,M":
        folds(proto)


@pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not there")
def test_the_cases_are_in_reach(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make = runpy.run_path(str(CASES / "computed_pads.py"))["model"]
    runpy.run_path(str(CASES / "pad_by_transpose.py"))
    models = [make(True), make(True, 1), make(True, 1, "hw"), "repro_pad_torch.onnx", "repro_pad_plain.onnx"]
    for one in models:
        reach = onnxfold.inspect(one).coverage
        assert (reach.parameters, reach.macs) == (1, 1)
