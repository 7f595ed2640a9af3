"""Names of dimensions are the user's own, whatever they look like: what is found out about lengths is no text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers import model, oracles_hold
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

import onnxfold
from onnxfold.analysis.analyze import analyze
from onnxfold.cli.main import main
from onnxfold.model.dimensions import Dim, Multiple, Unnamed, declarable, period
from onnxfold.model.model import load
from onnxfold.model.shapes.nominal import OPEN_OTHER, concrete_shape

NAMES = [
    "size by side", "N by -4", "N by 8", "N by 8 by 8", " by ", " by 8", "by", "N by 0", "N by x", "8*N", "6*rows",
    "x[0]", "x[1]", "r[0]", "3|5", "7|11", "192|320", "unk__0", "?", "-1", "None", "0", "8", "", " ", "\n",
    "N\nby 8", "N by 8\n", "a+b", "+", "N + 1", "b, c", "'", '"', "{}", "%s", "\\", "übrige", "\x00", "x" * 5000,
]  # fmt: skip
JOINED = """(float[N,6,5] x) => (float[N,6,4] y) {
    r = Reshape(x, flat) h = MatMul(r, u) g = Relu(h) b = Reshape(g, apart) e = MatMul(b, v) y = Add(e, x0) }"""
SHAPES = {"u": (5, 12), "v": (12, 4), "x0": (4,)}
IMAGES = """(float[1,3,N,8] x) => (float[1,4,N,8] y) {
    h = Conv <pads: ints = [1, 1, 1, 1]> (x, u) g = Relu(h) y = Conv <pads: ints = [1, 1, 1, 1]> (g, v) }"""
KERNELS = {"u": (16, 3, 3, 3), "v": (4, 16, 3, 3)}


def joined(name: str) -> ModelProto:
    """A batch called `name` beside 6 rows, in one axis and apart again."""
    return named(model(JOINED, SHAPES, {"flat": [-1, 5], "apart": [-1, 6, 12]}), name)


def images(name: str) -> ModelProto:
    """Images of an open height called `name`."""
    return named(model(IMAGES, KERNELS), name)


def named(proto: ModelProto, name: str, old: str = "N") -> ModelProto:
    """`proto` with dimension `old` called `name`."""
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == old:
                dim.dim_param = name
    return proto


def shape(proto: ModelProto, tensor: str) -> tuple[Dim, ...] | None:
    return load(proto).graph.tensor(tensor).shape


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name[:20]))
def test_a_name_is_a_name(name: str) -> None:
    symbol = name if name else Unnamed((3, 5))
    assert shape(joined(name), "x") == (symbol, 6, 5)
    assert shape(joined(name), "r") == (Multiple(symbol, 6), 5)
    assert shape(joined(name), "b") == (symbol, 6, 12)


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name[:20]))
@pytest.mark.parametrize("make", [joined, images], ids=lambda make: make.__name__)
def test_the_same_is_folded_whatever_lengths_are_called(name: str, make: Callable[[str], ModelProto]) -> None:
    plain, other = (
        onnxfold.fold(make(given), ratio=0.25, round_to=1, effort="fast", latency=False) for given in ("N", name)
    )
    assert [(g.name, g.before, g.after) for g in other.report.groups] == [
        (g.name, g.before, g.after) for g in plain.report.groups
    ]
    assert len(plain.report.groups) == 1
    assert other.model.SerializeToString() == named(plain.model, name).SerializeToString()


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12))
def test_any_text_is_a_name(name: str) -> None:
    assert shape(joined(name), "r") == (Multiple(name, 6), 5)
    assert [group.size for group in analyze(load(joined(name))).groups] == [12]


def test_names_that_look_like_what_is_found_out_are_not_it() -> None:
    """Open lengths that only look as if they were six times N, or the first length of x, are none of these."""
    text = """(float["?",6,5] x, float["6*N",5] z, float["x[0]",6,5] q) => (float y, float w, float k) {
        r = Reshape(x, flat) y = MatMul(r, u) w = MatMul(z, u) k = MatMul(q, u) }"""
    proto = model(text, {"u": (5, 12)}, {"flat": [-1, 5]})
    named(proto, "N", "?")
    dims = [(shape(proto, name) or ())[0] for name in "rzxq"]
    assert dims == [Multiple("N", 6), "6*N", "N", "x[0]"] and len(set(dims)) == 4


def test_axes_without_a_name_are_not_mixed_up() -> None:
    text = "(float[a,b,8] x) => (float y) { r = Reshape(x, flat) h = MatMul(r, u) g = Relu(h) y = MatMul(g, v) }"
    proto = named(named(model(text, {"u": (8, 12), "v": (12, 3)}, {"flat": [-1, 8]}), "", "a"), "", "b")
    first, second, _ = shape(proto, "x") or ()
    assert isinstance(first, Unnamed) and isinstance(second, Unnamed) and first != second
    product, width = shape(proto, "r") or ()
    assert isinstance(product, Unnamed) and product not in (first, second) and width == 8
    oracles_hold(proto, {"x": (2, 3, 8)}, groups=[12])


def test_a_multiple_of_a_length_without_a_name() -> None:
    symbol, *_ = shape(joined(""), "x") or ()
    assert isinstance(symbol, Unnamed) and shape(joined(""), "r") == (Multiple(symbol, 6), 5)


def test_only_a_multiple_has_a_period() -> None:
    assert [period(dim) for dim in (Multiple("N", 8), "N by 8", "8*N", 8, None, Unnamed((3, 5)))] == [8, *[None] * 5]


def test_what_a_model_can_say_of_a_shape() -> None:
    assert declarable(("N", 8, None, Multiple("N", 8), Unnamed((3, 5)))) == ("N", 8, None, None, None)


def test_lengths_are_shown_in_short() -> None:
    assert str(["N", 8, Multiple("N", 8), Unnamed((3, 5))]) == "['N', 8, 8*N, ?]"


@pytest.mark.parametrize("name", ["past + ²", "past+" + "9" * 5000, "past + 999999999", "past+", "+past"])
def test_sums_that_are_none_have_a_length_to_run_with(name: str) -> None:
    """int() refuses superscripts and numbers of thousands of digits, and no probe can be a billion long."""
    (length,) = concrete_shape((1, name), 1)[1:]
    assert length in (0, OPEN_OTHER)


@pytest.mark.parametrize("name", ["size by side", "N by -4", "N by 8", "\n", "", "x[2]", "past + ²"])
def test_the_command_line_folds_it(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(images(name), source)
    assert main([str(source), "--inspect"]) == 0, capsys.readouterr().err
    assert main([str(source), str(target), "--ratio", "0.3", "--round-to", "1", "--effort", "fast"]) == 0
    kernel = onnx.numpy_helper.to_array(onnx.load(target).graph.initializer[0])
    assert kernel.shape == (11, 3, 3, 3) and np.isfinite(kernel).all()


def test_lengths_too_long_for_a_table_are_not_the_only_ones_tried() -> None:
    """Scores of positions that were exported for 20 tokens at most: with more, nothing fits."""
    text = """(float[N,T,4] x) => (float y) { s = Shape(x) e = Gather<axis=0>(s, one) h = MatMul(x, table)
        t = Slice(h, zero, e, two) l = Concat<axis=0>(e, e) m = ConstantOfShape(l) a = Mul(t, m) y = Relu(a) }"""
    proto = model(text, {"table": (4, 20)}, {"zero": [0], "one": [1], "two": [2]})
    assert load(proto).graph.tensor("a").shape == ("N", "T", "T")
