"""Lengths of inputs that are made: one for one name, and long enough for the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers import model
from onnx import ModelProto
from tiny import CASES, main

import onnxfold
from onnxfold.analysis.costs import costs
from onnxfold.model.model import load
from onnxfold.model.shapes.nominal import agreed, concrete_shape, stretchable
from onnxfold.passes.base import State
from onnxfold.runtime.lengths import settled
from onnxfold.runtime.session import Session

CLASSIFIER = {"w": (32, 1, 25), "u": (32, 32, 5), "v": (4, 32, 3)}
AUDIO = """(float[n,1,t] signal) => (float[n,4,s] y) { a = Conv<strides=[5]>(signal, w) b = Relu(a)
    c = Conv<strides=[2]>(b, u) d = Relu(c) y = Conv(d, v) }"""


def shapes(inputs: str, given: Mapping[str, Sequence[int]] | None = None) -> Mapping[str, Sequence[int]]:
    """What `agreed` makes of a model with these inputs."""
    names = [one.split()[-1] for one in inputs.split(", ")]
    text = " ".join(f"o{i} = Cast<to=1>({name})" for i, name in enumerate(names))
    loaded = load(model(f"({inputs}) => ({', '.join(f'float o{i}' for i in range(len(names)))}) {{ {text} }}"))
    return agreed(loaded.graph, loaded.constants, given or {})


@pytest.mark.parametrize(
    ("inputs", "given", "found"),
    [
        ("float[t,n,10] x, int32[n] lens", {}, {"x": (-1, -1, 10)}),
        ("float[t,n,10] x, int32[n] lens", {"x": (16, 4, 10)}, {"lens": (4,)}),
        ("float[t,n,10] x, int32[n] lens", {"lens": (5,)}, {"x": (-1, 5, 10)}),
        ("float[n,3,h,w] x, float[n,h,w] mask", {}, {"mask": (-1, 256, 256)}),
        ("float[n,3] x, float[n,5] z", {"x": (1, 3)}, {"z": (1, 5)}),
        ("float[b,s] x, float[b,s] z", {}, {}),
        ("float[a,3] x, float[b,5] z", {}, {}),
        ("float[d,3,d,d] x", {}, {}),
    ],
)
def test_one_length_for_one_name(inputs: str, given: dict[str, Sequence[int]], found: dict[str, Sequence[int]]) -> None:
    """Only where the usual lengths contradict each other, or those that are given; -1 is any number of samples."""
    assert shapes(inputs, given) == {**given, **found}


def test_a_past_that_is_given_is_part_of_the_sum() -> None:
    inputs = 'int64[b,s] ids, int64[b,"past + s"] mask, float[b,2,past,4] key, float[b,2,past,4] value'
    assert shapes(inputs) == {}
    given = {"key": (1, 2, 5, 4)}
    assert shapes(inputs, given) == {**given, "ids": (1, 16), "mask": (1, 21), "value": (1, 2, 5, 4)}


def test_any_number_of_samples() -> None:
    assert concrete_shape(("n", 1, "t"), 8, (-1, 1, 96)) == (8, 1, 96)
    assert concrete_shape(("n", 1, "t"), 8, (2, 1, 96)) == (2, 1, 96)


def test_what_may_be_longer() -> None:
    loaded = load(model("(float[n,1,t] a, int64[n,s] b, float[n,2,past,4] c) => (float y) { y = Identity(a) }"))
    assert stretchable(loaded.graph, loaded.constants, {}) == {"a": {("a", 2): 16}, "b": {("b", 1): 16}}
    assert stretchable(loaded.graph, loaded.constants, {"a": (1, 1, 9)}) == {"b": {("b", 1): 16}}


def test_the_state_of_a_recurrent_network_has_as_many_samples() -> None:
    """Also where no name says so."""
    nodes = """p = Pad<mode="reflect">(x, pads) c = Unsqueeze(p, one) f = Conv<strides=[64]>(c, w)
    s = Transpose<perm=[2,0,1]>(f) a, b = GRU<hidden_size=6>(s, wi, wr, , , h) y = Squeeze(a, one)"""
    for name in ("n", "m"):
        text = f"(float[n,t] x, float[1,{name},6] h) => (float[r,n,6] y, float[1,n,6] b) {{ {nodes} }}"
        weights = {"w": (4, 1, 128), "wi": (1, 18, 4), "wr": (1, 18, 6)}
        loaded = load(model(text, weights, {"pads": [0, 0, 0, 64], "one": [1]}))
        found = settled(loaded, None)
        assert found.shapes is not None and found.shapes["h"] == (1, -1, 6) and found.shapes["x"] == (-1, 96)


def test_a_batch_and_sides_that_only_the_graph_knows() -> None:
    """A detector whose grid was written for images of 320 x 320, one at a time."""
    text = """(float[b,3,h,w] x) => (float[1,8,1600] y) { a = Conv<strides=[8, 8]>(x, w) y = Reshape(a, t) }"""
    found = settled(load(model(text, {"w": (8, 3, 8, 8)}, {"t": [1, 8, 1600]})), None)
    assert found.shapes == {"x": (1, 3, 320, 320)} and "'x' [1, 3, 320, 320]" in found.note


def audio() -> ModelProto:
    return model(AUDIO, CLASSIFIER)


def test_lengths_grow_until_the_graph_fits_and_costs_are_for_them() -> None:
    loaded = load(audio())
    found = settled(loaded, None)
    assert found.shapes == {"signal": (-1, 1, 96)} and "'signal' [1, 1, 96]" in found.note
    assert "`input_shapes`" in found.note
    (output,) = Session.of(loaded).run({"signal": np.zeros((1, 1, 96), np.float32)})
    assert output.shape == (1, 4, 4)
    frames = (96 - 25) // 5 + 1
    second = (frames - 5) // 2 + 1
    assert costs(loaded, found.shapes).macs({}) == frames * 32 * 25 + second * 32 * 32 * 5 + 4 * 4 * 32 * 3


def test_nothing_is_found_where_lengths_are_given_or_fit() -> None:
    loaded = load(audio())
    assert settled(loaded, {"signal": (2, 1, 1600)}).shapes == {"signal": (2, 1, 1600)}
    fitting = load(model("(float[n,1,t] x) => (float y) { y = Conv(x, w) }", {"w": (4, 1, 3)}))
    assert settled(fitting, None).shapes is None


def test_what_only_a_run_tells() -> None:
    """A U-net of five levels: with 16 samples its two sides differ in length."""
    downs = "".join(f"d{i} = MaxPool<kernel_shape=[2], strides=[2]>(d{i - 1}) " for i in range(1, 6))
    ups = "".join(f"u{i} = Resize(s{i + 1}, none, scales) s{i} = Add(u{i}, d{i}) " for i in range(4, -1, -1))
    body = f"d0 = Conv<pads=[1,1]>(x, w) {downs} s5 = Relu(d5) {ups} y = Conv(s0, v)"
    text = f"(float[n,1,t] x) => (float[n,2,r] y) {{ {body} }}"
    proto = model(
        text,
        {"w": (8, 1, 3), "v": (2, 8, 1)},
        {"none": np.zeros(0, np.float32), "scales": np.array([1, 1, 2], np.float32)},
    )
    found = settled(load(proto), None)
    assert found.shapes == {"x": (-1, 1, 32)}
    assert settled(load(proto), None, may_run=False).note == ""


def test_a_model_that_runs_with_no_length_says_how_to_give_one() -> None:
    text = "(float[n,t,8] x) => (float[n,t,5] y) { a = Add(x, table) b = MatMul(a, u) c = Relu(b) y = MatMul(c, v) }"
    proto = model(text, {"table": (1, 777, 8), "u": (8, 16), "v": (16, 5)})
    assert "pass `input_shapes`" in settled(load(proto), None).note
    with pytest.raises(onnxfold.RequestError, match=r"`input_shapes` sets other shapes"):
        onnxfold.fold(proto, effort="fast", latency=False)
    report = onnxfold.fold(proto, ratio=0.5, effort="fast", latency=False, allow_unmeasured=True).report
    assert "pass `input_shapes`" in report.verdict
    given = {"x": (1, 777, 8)}
    report = onnxfold.fold(proto, ratio=0.5, effort="fast", latency=False, input_shapes=given).report
    assert report.check is not None and report.check.providers[0].outputs and not report.notes


def test_reports_name_the_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = onnxfold.fold(audio(), tmp_path / "out.onnx", ratio=0.25, effort="fast", latency=False)
    looked = onnxfold.inspect(audio())
    compared = onnxfold.compare(audio(), tmp_path / "out.onnx", latency=False)
    for report in (result.report, looked, compared):
        assert report.notes == (settled(load(audio()), None).note,) and report.notes[0] in report.verdict
    assert result.report.before.macs == looked.before.macs == compared.before.macs
    assert result.report.check is not None and result.report.check.providers[0].outputs
    (tmp_path / "in.onnx").write_bytes(audio().SerializeToString())
    assert main([str(tmp_path / "in.onnx"), "--inspect"]) == 0
    assert "--input-shape" in capsys.readouterr().out


def test_lengths_of_a_state_are_not_those_of_its_model() -> None:
    """The user's own samples may have any length."""
    state = State.load(audio(), None)
    assert state.source.graph.tensor("signal").shape == ("n", 1, "t")


@pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not there")
@pytest.mark.parametrize("name", ["same_symbol", "short_audio"])
def test_the_cases_are_measured(name: str) -> None:
    report = onnxfold.fold(CASES / f"{name}.onnx", ratio=0.25, effort="fast", latency=False).report
    assert report.check is not None and report.check.passed and report.check.providers[0].outputs


@pytest.mark.parametrize(
    ("shape", "rows", "found"),
    [
        ("n,3,h,w", 0, None),
        ("n,h,w,3", 0, None),
        ("n,3,h,w", 48, (-1, 3, 48, 320)),
        ("n,3,h,w", 64, (-1, 3, 64, 64)),
        ("n,1,h,w", 0, None),
    ],
)
def test_color_images_are_as_large_as_photographs_where_they_can_be(
    shape: str, rows: int, found: tuple[int, ...] | None
) -> None:
    """A reader of lines of text wants rows that it pools to one; other graphs may want small images."""
    fixed = "y = Reshape(p, to)" if rows else "y = Identity(p)"
    text = f"(float[{shape}] x) => (float[a,b,c,d] y) {{ p = MaxPool<kernel_shape=[8,8], strides=[8,8]>(x) {fixed} }}"
    loaded = load(model(text, {}, {"to": [0, 3, rows // 8, 40 if rows == 48 else 8]} if rows else {}))
    usual = concrete_shape(loaded.graph.tensor("x").declarable or (), 1)
    assert max(usual) == (64 if "1," in shape else 256)
    shapes = settled(loaded, None).shapes or {}
    assert shapes.get("x") == found


@pytest.mark.parametrize(
    ("op", "much"),
    [
        ("p = Pad(x, pads)", [0, 0, 60_000, 60_000]),
        ("p = Tile(x, pads)", [60_000, 10_000]),
        ("p = CenterCropPad<axes=[0,1]>(w, pads)", [60_000, 60_000]),
        ("u = ReduceMax(x) q = Expand(u, pads) t = Transpose(q) p = MatMul(q, t)", [65_536, 1]),
    ],
    ids=["pad", "tile", "constant", "outer"],
)
def test_a_tensor_that_takes_all_memory(op: str, much: list[int]) -> None:
    """Nothing is run; inspection goes on."""
    text = f"""(float[2,8] x) => (float[2,4] y) {{
        {op} s = ReduceSum<keepdims=0>(p) a = MatMul(x, w) b = Add(a, s) y = MatMul(b, v) }}"""
    proto = model(text, {"w": (8, 16), "v": (16, 4)}, {"pads": much}, opset=20)
    with pytest.raises(onnxfold.ModelError, match=r"'p' has \d{10,} numbers .*: export it again, for smaller inputs"):
        onnxfold.fold(proto, ratio=0.5, effort="fast")
    assert onnxfold.inspect(proto).groups


def test_an_open_input_that_takes_all_memory() -> None:
    """Told by the lengths that it would be run with."""
    text = "(float[N,3,H,W] x) => (float y) { a = Conv(x, w) p = Tile(a, many) g = GlobalMaxPool(p) y = Conv(g, v) }"
    proto = model(text, {"w": (8, 3, 3, 3), "v": (4, 8, 1, 1)}, {"many": [1, 1, 3000, 3000]})
    with pytest.raises(onnxfold.ModelError, match=r"'p' has \d{10,} numbers .*: give smaller `input_shapes`"):
        onnxfold.fold(proto, ratio=0.5, effort="fast")
