"""Lengths that a graph computes from numbers of channels, where Split, Slice, Expand and Resize use them."""

from __future__ import annotations

from typing import Any

import pytest
from helpers import folds, given, halved, model, node, oracles_hold, refused_for

LISTS: dict[str, Any] = {
    "zero": 0, "one": 1, "two": 2, "four": 4, "z1": [0], "one1": [1], "two1": [2], "three1": [3], "four1": [4],
    "five1": [5], "quarters": [1, 3], "three2": [3, 3], "flat": [-1], "table": [2, 1], "eight": 8, "ten": 10,
    "step": [2],
}  # fmt: skip
C = "s = Shape(h) c = Gather<axis=0>(s, one) c1 = Gather<axis=0>(s, one1)"
SIDES = ["12,12", "K,M"]

GATED = {
    "concat": "d = Div(c1, two1) sizes = Concat<axis=0>(d, d)",
    "scalars": "d = Div(c, two) e = Unsqueeze(d, z1) sizes = Concat<axis=0>(e, e)",
    "rest": "d = Div(c1, two1) e = Sub(c1, d) sizes = Concat<axis=0>(d, e)",
    "expand": "d = Div(c1, two1) sizes = Expand(d, two1)",
    "tile": "d = Div(c1, two1) sizes = Tile(d, two1)",
    "product": "d = Div(c1, two1) k = Concat<axis=0>(one1, one1) sizes = Mul(k, d)",
    "floats": """f = Cast<to=1>(c1) q = Div(f, half) t = Floor(q) d = Cast<to=7>(t)
        sizes = Concat<axis=0>(d, d)""",
    "turned": """d = Div(c1, two1) k = Concat<axis=0>(d, d) t = Reshape(k, table) f = Transpose(t)
        sizes = Reshape(f, flat)""",
}
"""The sizes of two halves."""
APART = {
    **GATED,
    "quarters": "d = Div(c1, four1) e = Mul(d, three1) sizes = Concat<axis=0>(d, e)",
    "a-constant": "e = Sub(c1, two1) sizes = Concat<axis=0>(two1, e)",
    "a-constant-turned": "e = Sub(c1, two1) k = Concat<axis=0>(e, two1) sizes = Slice(k, flat, least, z1, flat)",
}
"""The sizes of two parts."""
PARTS = {"quarters": (2, 6), "a-constant": (2, 6), "a-constant-turned": (2, 6)}


def of(sides: str, body: str, weights: dict[str, Any]) -> Any:
    """A convolution of 8 channels, h, and `body` from h to y."""
    text = f"(float[N,3,{sides}] x) => (float[N,5,P,Q] y) {{ h = Conv<pads=[1,1,1,1]>(x, w) {C} {body} }}"
    lists = {**LISTS, "half": [2.0], "least": [-(2**63) + 1]}
    return model(text, {"w": (8, 3, 3, 3), **weights}, {name: one for name, one in lists.items() if name in text})


def shapes(sides: str) -> dict[str, tuple[int, ...]] | None:
    return {"x": (2, 3, 9, 14)} if sides == "K,M" else None


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("how", GATED)
def test_halves_of_a_gate(how: str, sides: str) -> None:
    body = f"{GATED[how]} a, b = Split<axis=1>(h, sizes) g = Sigmoid(b) m = Mul(a, g) y = Conv(m, u)"
    proto = of(sides, body, {"u": (5, 4, 1, 1)})
    refused_for(oracles_hold(proto, shapes(sides), groups=[4]), ())
    if sides != "K,M":
        folds(proto)


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("how", APART)
def test_parts_with_widths_of_their_own(how: str, sides: str) -> None:
    first, second = PARTS.get(how, (4, 4))
    body = f"{APART[how]} a, b = Split<axis=1>(h, sizes) d1 = Conv(a, u) d2 = Conv(b, v) y = Add(d1, d2)"
    proto = of(sides, body, {"u": (5, first, 1, 1), "v": (5, second, 1, 1)})
    found = oracles_hold(proto, shapes(sides), groups=[first, second])
    refused_for(found, ())
    if sides != "K,M":
        folds(proto)


def test_what_the_graph_computes_by_itself_stays() -> None:
    """Halves that fold alike: the list is computed as before. Others become numbers of their own."""
    gated = "a, b = Split<axis=1>(h, sizes) m = Mul(a, b) y = Conv(m, u)"
    after = halved(of("12,12", f"{GATED['concat']} {gated}", {"u": (5, 4, 1, 1)}))
    assert node(after, "Split").input[1] == "sizes" and node(after, "Div").input[0] == "c1"
    apart = "a, b = Split<axis=1>(h, sizes) d1 = Conv(a, u) d2 = Conv(b, v) y = Add(d1, d2)"
    weights = {"u": (5, 2, 1, 1), "v": (5, 6, 1, 1)}
    after = halved(of("12,12", f"{APART['a-constant-turned']} {apart}", weights))
    assert given(after, "Split", 1) == [1, 3]


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize(
    "body",
    [
        "b = Slice(h, z1, c1, two1) y = Conv(b, u)",
        "b = Slice(h, z1, c1, two1, step) y = Conv(b, u)",
        "e = Sub(c1, four1) k = Concat<axis=0>(four1, e) f = Add(e, four1) b = Slice(h, e, f, three1) y = Conv(b, u)",
        "t = Slice(rows, z1, c1, z1) r = ReduceMean<axes=[0], keepdims=0>(t) i = Conv(h, u) y = Add(i, r)",
        "d = Div(c1, eight) k = Concat<axis=0>(one1, c1, d, d) b = Expand(h, k) y = Conv(b, u)",
        "d = Div(c1, two1) p = Concat<axis=0>(z1, z1, d, z1, z1, z1, z1, z1) b = Pad(h, p) y = Conv(b, u)",
    ],
)
def test_other_axes_keep_their_lengths(body: str, sides: str) -> None:
    """Heights, widths and rows of a table that are cut or padded by a number of channels: that number stays."""
    proto = of(sides, body, {"u": (5, 8, 1, 1), "rows": (12,)})
    oracles_hold(proto, shapes(sides), groups=[8])


def test_sizes_of_a_resize() -> None:
    body = """n1 = Gather<axis=0>(s, z1) k = Concat<axis=0>(n1, c1, c1, c1) b = Resize<mode="nearest">(h, , , k)
        y = Conv(b, u)"""
    proto = of("12,12", body, {"u": (5, 8, 1, 1)})
    oracles_hold(proto, groups=[8])
    folds(proto)
