"""Pooling, resizing and sampling."""

from __future__ import annotations

import pytest
from helpers import Case, assert_holds, by_name, given, keep_first, newest_opset

CONV = {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 1, 1)}


def between(name: str, body: str, opset: int = 17, groups: tuple[int, ...] = (8,), **more: object) -> Case:
    """A Conv of 8 channels, `body` from h to a, and a Conv that reads them."""
    text = f"(float[N,3,10,10] x) => (float y) {{ h = Conv(x, w, b) {body} y = Conv(a, v) }}"
    weights = {**CONV, **more.pop("weights", {})}  # type: ignore[dict-item]
    return Case(name, text, weights, groups, opset=opset, **more)  # type: ignore[arg-type]


WINDOW = "<kernel_shape=[2,2], strides=[2,2]>"
CASES = [
    *(between(op, f"a = {op}{WINDOW}(h)") for op in ("AveragePool", "MaxPool", "LpPool")),
    *(between(op, f"a = {op}(h)") for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")),
    *(between(f"{op}-opset7", f"a = {op}{WINDOW}(h)", 7) for op in ("AveragePool", "MaxPool")),
    *(between(f"{op}-newest", f"a = {op}{WINDOW}(h)", newest_opset()) for op in ("AveragePool", "MaxPool")),
    between("AveragePool-ceil-dilated", "a = AveragePool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1, "
            "dilations=[1,1], count_include_pad=1, pads=[1,1,1,1]>(h)", 19),
    Case("pool-1d", """(float[N,3,16] x) => (float y) {
        h = Conv(x, w) a = MaxPool<kernel_shape=[2]>(h) g = GlobalAveragePool(a) y = Conv(g, v) }""",
         {"w": (8, 3, 3), "v": (5, 8, 1)}, (8,)),
    Case("pool-3d", """(float[N,3,6,6,6] x) => (float y) {
        h = Conv(x, w) a = AveragePool<kernel_shape=[2,2,2]>(h) y = Conv(a, v) }""",
         {"w": (8, 3, 3, 3, 3), "v": (5, 8, 1, 1, 1)}, (8,)),
    *(Case(f"{op}-beside-channels", f"""(float[N,6,5] x) => (float y) {{ h = MatMul(x, w) u = Unsqueeze(h, one)
        p = {op}<kernel_shape=[2,1], strides=[2,1]>(u) s = Squeeze(p, one) y = MatMul(s, v) }}""",
           {"w": (5, 8), "v": (8, 4)}, (8,), {"one": [1]}) for op in ("AveragePool", "MaxPool")),
    between("MaxPool-indices-are-kept", f"g, i = MaxPool{WINDOW}(h) f = Cast<to=1>(i) d = Mul(f, tiny) e = Add(g, d) "
            "c = Conv(e, u) a = Relu(c)", weights={"u": (8, 8, 1, 1)}, values={"tiny": 0.001},
            refused=("MaxPool also outputs indices that number the channels",)),
    between("Resize-scales", "a = Resize<mode=\"nearest\">(h, , scales)", values={"scales": [1.0, 1.0, 2.0, 2.0]}),
    between("Resize-scales-linear-opset11", "a = Resize<mode=\"linear\">(h, roi, scales)", 11,
            values={"scales": [1.0, 1.0, 0.5, 0.5], "roi": [0.0] * 8}),
    between("Resize-opset10", "a = Resize(h, scales)", 10, values={"scales": [1.0, 1.0, 2.0, 2.0]}),
    between("Resize-axes", "a = Resize<axes=[2,3]>(h, , , sizes)", 18, values={"sizes": [12, 12]}),
    between("Resize-axes-scales", "a = Resize<axes=[3,2]>(h, , scales)", 18, values={"scales": [1.5, 2.0]}),
    between("Resize-newest", "a = Resize(h, , scales)", newest_opset(), values={"scales": [1.0, 1.0, 2.0, 2.0]}),
    between("Upsample-opset9", "a = Upsample(h, scales)", 9, values={"scales": [1.0, 1.0, 2.0, 2.0]}),
    between("Upsample-opset7", "a = Upsample<scales=[1.0, 1.0, 2.0, 2.0]>(h)", 7),
    between("Resize-like-another", """s = Shape(h) n = Slice(s, zero, two) t = Concat<axis=0>(n, space)
            a = Resize(h, , , t)""", values={"zero": [0], "two": [2], "space": [12, 12]}),
    between("Resize-crops", "a = Resize<coordinate_transformation_mode=\"tf_crop_and_resize\">(h, roi, scales) ",
            values={"roi": [0.0, 0.0, 0.1, 0.1, 1.0, 1.0, 0.9, 0.9], "scales": [1.0, 1.0, 2.0, 2.0]}, groups=(),
            refused=("Resize crops while resizing",)),
    Case("GridSample", """(float[2,3,6,6] x) => (float y) {
        h = Conv(x, w, b) a = GridSample(h, grid) y = Conv(a, v) }""",
         {**CONV, "grid": (2, 3, 5, 2)}, (8,), opset=20),
    Case("GridSample-opset16", """(float[2,3,6,6] x) => (float y) {
        h = Conv(x, w, b) a = GridSample<mode="bilinear">(h, grid) y = Conv(a, v) }""",
         {**CONV, "grid": (2, 3, 5, 2)}, (8,), opset=16),
    between("RoiAlign", "a = RoiAlign<output_height=2, output_width=3>(h, rois, at)",
            values={"rois": [[0.0, 0.0, 4.0, 5.0], [1.0, 2.0, 6.0, 6.0], [0.0, 3.0, 5.0, 6.0]], "at": [0, 1, 0]}),
    between("MaxRoiPool", "a = MaxRoiPool<pooled_shape=[2,2]>(h, rois)",
            values={"rois": [[0.0, 0.0, 0.0, 4.0, 5.0], [1.0, 1.0, 2.0, 6.0, 6.0]]}),
    between("Col2Im", """f = Conv(h, u) e = Reshape(f, flat) a = Col2Im(e, image, block)""", 18, (8, 6),
            weights={"u": (24, 8, 1, 1), "v": (5, 6, 1, 1)},
            values={"flat": [0, 24, 64], "image": [9, 9], "block": [2, 2]}),
]  # fmt: skip
SIZES = Case("Resize-sizes", """(float[2,3,10,10] x) => (float y) {
    h = Conv(x, w, b) a = Resize(h, , , sizes) y = Conv(a, v) }""", CONV, (8,), {"sizes": [2, 8, 12, 12]})  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case, batch: str | int) -> None:
    assert_holds(case, batch)


def test_sizes_follow_the_channels() -> None:
    assert_holds(SIZES, 2)
    assert given(keep_first(5, SIZES.model()), "Resize", 3) == [2, 5, 12, 12]


def test_sizes_of_space_alone_stay() -> None:
    assert given(keep_first(5, by_name(CASES)("Resize-axes").model()), "Resize", 3) == [12, 12]
