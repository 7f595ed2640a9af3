"""The peak memory of activations: computed by hand on small graphs, float32 at batch 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from helpers import model
from onnx import ModelProto
from tiny import MODELS, fold, net

from onnxfold.analysis.costs import costs
from onnxfold.analysis.peak_memory import peak_memory
from onnxfold.model.graph import TensorInfo
from onnxfold.model.model import load
from onnxfold.report.fold_report import FoldReport

CONV = {"w": [4, 3, 1, 1], "v": [2, 4, 1, 1], "u": [4, 4, 1, 1]}


def peak(proto: ModelProto, shapes: Mapping[str, Any] | None = None) -> int | None:
    found = load(proto, shapes)
    return peak_memory(found, costs(found, shapes))


def graph(body: str, shape: str = "N,3,5,5", weights: Mapping[str, Any] = CONV, **given: Any) -> ModelProto:
    return model(f"(float[{shape}] x) => (float y) {{ {body} }}", weights, **given)


X, H, Y = 4 * 3 * 25, 4 * 4 * 25, 4 * 2 * 25  # bytes of 3, 4 and 2 channels of 5 x 5


def test_a_chain_holds_an_input_and_an_output_at_a_time() -> None:
    assert peak(graph("h = Conv(x, w) r = Relu(h) y = Conv(r, v)")) == H + H  # at the Relu
    assert peak(graph("h = Conv(x, w) y = Conv(h, v)")) == X + H > H + Y


def test_a_residual_is_held_until_it_is_added() -> None:
    body = "h = Conv(x, w) r = Relu(h) c = Conv(r, u) s = Add(h, c) y = Conv(s, v)"
    assert peak(graph(body)) == 3 * H  # h, r and c; at the Add: h, c and s


def test_an_output_stays_to_the_end() -> None:
    body = "h = Conv(x, w) r = Relu(h) t = Relu(r) y = Conv(t, v)"
    assert peak(model(f"(float[1,3,5,5] x) => (float h, float y) {{ {body} }}", CONV)) == 3 * H  # h, r and t


def test_many_outputs_take_no_longer_each() -> None:
    """Twice as many, about twice as long: names are looked up, not searched for."""

    class Counted(str):
        asked = 0

        def __eq__(self, other: object) -> bool:
            Counted.asked += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    found = load(graph("h = Conv(x, w) r = Relu(h) y = Conv(r, v)"))
    outputs = tuple(map(Counted, (*found.graph.outputs, *(f"other {i}" for i in range(500)))))
    many = replace(found, graph=replace(found.graph, outputs=outputs))
    assert peak_memory(many, costs(found)) == H + H and Counted.asked < 50


def test_what_nobody_uses_is_there_for_one_step() -> None:
    assert peak(graph("h = Conv(x, w) d = Conv(h, u) r = Relu(h) y = Conv(r, v)")) == 2 * H


def test_reshaping_copies_nothing() -> None:
    ends = {"s": [1, 100], "t": [1, 4, 5, 5]}
    assert peak(graph("h = Conv(x, w) f = Reshape(h, s) g = Reshape(f, t) y = Conv(g, v)", values=ends)) == X + H


def test_between_quantize_and_dequantize_there_are_integers() -> None:
    scale = {"q0": 0.1}
    whole = "a = QuantizeLinear(x, q0) b = DequantizeLinear(a, q0) h = Conv(b, w) c = QuantizeLinear(h, q0) "
    proto = graph(whole + "d = DequantizeLinear(c, q0) y = Conv(d, v)", values=scale)
    assert peak(proto) == max(X + X // 4, X // 4 + H // 4, H // 4 + Y)
    both = "h = Conv(x, w) c = QuantizeLinear(h, q0) d = DequantizeLinear(c, q0) y = Add(h, d)"
    assert peak(graph(both, values=scale)) == H + H // 4 + H  # floats are needed too


def test_what_a_body_uses_lives_until_the_node_that_holds_it() -> None:
    body = """h = Conv(x, w) r = Relu(h) m = ReduceMax<keepdims=0>(r) b = Cast<to=9>(m)
              y = If(b) <then_branch = yes () => (float[1,4,5,5] p) { p = Relu(h) },
                         else_branch = no () => (float[1,4,5,5] n) { n = Neg(h) }>"""
    assert peak(graph(body)) == 2 * H + 4  # h and r, and the maximum; at the If: h, y and a truth value


def test_element_types_that_nobody_knows_give_no_figure() -> None:
    proto = graph("h = Conv(x, w) y = Conv(h, v)")
    found = load(proto)
    tensors = {**found.graph.tensors, "h": TensorInfo("h", (1, 4, 5, 5), -1)}
    odd = replace(found, graph=replace(found.graph, tensors=tensors))
    assert peak_memory(odd, costs(found)) is None and peak_memory(found, costs(found)) is not None


def test_lengths_that_nobody_knows_give_no_figure() -> None:
    body = "i = NonZero(x) f = Cast<to=1>(i) y = Relu(f)"
    assert peak(graph(body, "1,3,5,5")) is None
    open_ = graph("h = Conv(x, w) y = Conv(h, v)", "N,3,H,W")
    assert peak(open_, {"x": (1, 3, 10, 10)}) == 4 * (X + H)


@pytest.mark.parametrize("name", ["digits_mobilenet", "digits_resnet_fused"])
def test_the_result_is_as_its_own_file_says(name: str) -> None:
    found = fold(MODELS / f"{name}.onnx", ratio=0.5, effort="fast", latency=False)
    after = load(found.model)
    said = found.report.after
    assert said is not None and said.peak_memory == peak_memory(after, costs(after))
    before = found.report.before.peak_memory
    assert said.peak_memory is not None and before is not None and said.peak_memory < before


def test_reports_of_earlier_versions_have_none() -> None:
    report = fold(net(), ratio=0.5, effort="fast", latency=False).report
    data = report.to_json().replace('"peak_memory"', '"unknown"')
    read = FoldReport.from_json(data)
    assert read.before.peak_memory is None and report.before.peak_memory is not None
    assert {"": "peak memory (est.)", "before": "-", "after": "-", "change": "-"} in read.figures()
